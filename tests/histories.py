"""Random histories of a collection for property tests: any changes, in any order, that a store would accept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from app.domain.changes import (
    Change,
    ClassConfigured,
    ClassRefitted,
    ClassRemoved,
    ClassRenamed,
    ClassRestored,
    Committed,
    ExampleRemoved,
    ExamplesAdded,
    Snapshot,
    fold_change,
)
from app.domain.values import ClassModel, ClassState, FloatArray, no_regions
from tests.values import example_of, model_of, unit

NAMES = ("Acme", "acme", "b", "ba", "z/1", "é")
# Few enough that classes often share a representative, and two so near each other that single precision cannot order them.
VECTORS = tuple(unit(vector) for vector in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 1, 1), (3, 4, 0), (3, 4, 1e-4)))
SETTINGS = ((None, {}), (0.7, {}), (0.25, {"shop": 3, "where": "Zürich"}))


@dataclass(frozen=True)
class Expecting:
    """A change, and the version of the class that it was made on."""

    change: Change
    expected: int


def histories(max_moves: int = 20) -> st.SearchStrategy[list[Expecting]]:
    """Changes that can be committed one after the other; the first makes version 1."""
    move = st.tuples(
        st.sampled_from(("enrol", "enrol", "forget", "configure", "rename", "refit", "remove", "restore")),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),  # where a rename goes
        st.lists(st.sampled_from(range(len(VECTORS))), min_size=1, max_size=3),  # representatives
        st.sampled_from(SETTINGS),
    )
    return st.lists(move, max_size=max_moves).map(_played)


def committed(history: list[Expecting]) -> list[Committed]:
    return [Committed(version, each.change) for version, each in enumerate(history, start=1)]


def snapshot_after(changes: list[Committed]) -> Snapshot:
    """What a store that committed these would give."""
    states: dict[str, ClassState] = {}
    for change in changes:
        state = fold_change(states.pop(change.change.class_name, None), change)
        if state is not None:
            states[state.name] = state
    return Snapshot(len(changes), tuple(sorted(states.values(), key=lambda state: state.name)))


def _played(moves: list[tuple]) -> list[Expecting]:
    states: dict[str, ClassState] = {}
    history: list[Expecting] = []
    for move in moves:
        name, version = move[1], len(history) + 1
        change = _change_of(move, states, version)
        if change is None:  # not possible here
            continue
        before = states.pop(name, None)
        history.append(Expecting(change, 0 if before is None else before.version))
        after = fold_change(before, Committed(version, change))
        if after is not None:
            states[after.name] = after
    return history


def _change_of(move: tuple, states: dict[str, ClassState], version: int) -> Change | None:
    kind, name, new_name, chosen, (threshold, metadata) = move
    vectors = [VECTORS[number] for number in chosen]
    state = states.get(name)
    if kind == "enrol":
        example = example_of(f"{version}", vectors[0], points=version % 3, regions=version % 2)
        return ExamplesAdded(name, (example,), _model_of(vectors, version))
    if kind == "restore" and state is None:
        examples = tuple(example_of(f"{version} {place}", vector, points=place) for place, vector in enumerate(vectors))
        return ClassRestored(name, examples, model_of(*vectors), threshold, metadata)
    if state is None:
        return None
    if kind == "forget" and state.examples:
        return ExampleRemoved(name, state.examples[0].id, _model_of(vectors, version) if len(state.examples) > 1 else None)
    if kind == "configure":
        return ClassConfigured(name, threshold, metadata)
    if kind == "rename" and (new_name == name or new_name not in states):
        return ClassRenamed(name, new_name, threshold, metadata)
    if kind == "refit" and state.examples:
        return ClassRefitted(name, tuple(example_of(example.id, vectors[0]) for example in state.examples), model_of(*vectors))
    return ClassRemoved(name) if kind == "remove" else None


def _model_of(vectors: list[FloatArray], version: int) -> ClassModel:
    """Now and then one that a detector has had a part in, which then knows it by the same vectors, or has seen no crop."""
    seen = [np.stack(vectors).astype(np.float16), no_regions(), None]
    return model_of(*vectors, regions=seen[version % len(seen)])

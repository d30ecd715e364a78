"""The kinds of change, and what each makes of one class.

A change carries everything that a replica needs: embeddings and class model were computed once by the writer and travel in it,
so that folding a change never computes a vector. `fold_change` is the only place that says what a change means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.domain.values import ClassModel, ClassState, Example
from app.errors import VersionConflict

RECEIPTS_KEPT_S = 24 * 3600  # how long a write may be sent again


@dataclass(frozen=True, slots=True)
class ExamplesAdded:
    """Creates the class when it is new."""

    class_name: str
    examples: tuple[Example, ...]
    model: ClassModel


@dataclass(frozen=True, slots=True)
class ExampleRemoved:
    class_name: str
    example_id: str
    model: ClassModel | None  # None when it was the last example


@dataclass(frozen=True, slots=True)
class ClassConfigured:
    """Both values as they are after the change; `user_threshold` None returns to the computed one."""

    class_name: str
    user_threshold: float | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClassRenamed:
    """Renames and configures at once, so that one PATCH is one change."""

    class_name: str
    new_name: str
    user_threshold: float | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClassRefitted:
    """The same examples under another model set: new embeddings, new class model."""

    class_name: str
    examples: tuple[Example, ...]
    model: ClassModel


@dataclass(frozen=True, slots=True)
class ClassRestored:
    """A class with all that it had, out of a backup; it must not be there."""

    class_name: str
    examples: tuple[Example, ...]
    model: ClassModel | None
    user_threshold: float | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClassRemoved:
    class_name: str


Change = ExamplesAdded | ExampleRemoved | ClassConfigured | ClassRenamed | ClassRefitted | ClassRestored | ClassRemoved


@dataclass(frozen=True, slots=True)
class Committed:
    """A change that the store has acknowledged, and its version."""

    version: int
    change: Change


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A point in the history of a collection. A log that replaces another, such as a restored one, has a later epoch."""

    epoch: int
    version: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.version}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a caller was told of a write, committed with the change: the same write sent again is told this and not done."""

    key: str  # whose write and which: SHA-256 in hex
    fingerprint: str  # of what was asked: SHA-256 in hex
    answer: Mapping[str, Any]  # JSON; its "version", if it has one, is that of the change and only known afterwards
    version: int = 0  # of the change


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All classes at one version, sorted by name."""

    version: int
    classes: tuple[ClassState, ...]
    epoch: int = 0  # of the log; versions of two epochs do not compare, but a later epoch is greater


def fold_expected(state: ClassState | None, committed: Committed, *, expected: int) -> ClassState | None:
    """`fold_change` for a store about to commit: VersionConflict unless the class is at `expected` (0: must not exist)."""
    found = 0 if state is None else state.version
    if found != expected:
        raise VersionConflict(committed.change.class_name, expected=expected, found=found)
    return fold_change(state, committed)


def fold_snapshot(snapshot: Snapshot, changes: Iterable[Committed]) -> Snapshot:
    """The snapshot after the changes that follow it."""
    version, states = snapshot.version, {state.name: state for state in snapshot.classes}
    for committed in changes:
        version = committed.version
        state = fold_change(states.pop(committed.change.class_name, None), committed)
        if state is not None:
            states[state.name] = state
    return Snapshot(version, tuple(states[name] for name in sorted(states)), snapshot.epoch)


def fold_change(state: ClassState | None, committed: Committed) -> ClassState | None:
    """The class after a change; None when it is gone. For a rename, the state comes back under the new name."""
    version, change = committed.version, committed.change
    if isinstance(change, ExamplesAdded) and state is None:
        return ClassState(change.class_name, version, _sorted(change.examples), change.model)
    if isinstance(change, ClassRestored):
        examples = _sorted(change.examples)
        return ClassState(change.class_name, version, examples, change.model, change.user_threshold, change.metadata)
    if state is None:
        raise ValueError(f"change {version} is about class {change.class_name!r}, which does not exist")
    match change:
        case ExamplesAdded():
            return replace(state, version=version, examples=_sorted(state.examples + change.examples), model=change.model)
        case ExampleRemoved():
            left = tuple(example for example in state.examples if example.id != change.example_id)
            return replace(state, version=version, examples=left, model=change.model)
        case ClassConfigured():
            return replace(state, version=version, user_threshold=change.user_threshold, metadata=change.metadata)
        case ClassRenamed():
            return replace(
                state, name=change.new_name, version=version, user_threshold=change.user_threshold, metadata=change.metadata
            )
        case ClassRefitted():
            return replace(state, version=version, examples=_sorted(change.examples), model=change.model)
        case ClassRemoved():
            return None


def _sorted(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    # By id, so that a state does not depend on the order in which examples arrived.
    return tuple(sorted(examples, key=lambda example: example.id))

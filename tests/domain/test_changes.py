from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.changes import (
    Change,
    ClassConfigured,
    ClassRefitted,
    ClassRemoved,
    ClassRenamed,
    Committed,
    ExampleRemoved,
    fold_change,
    fold_expected,
)
from app.domain.values import ClassState
from app.errors import VersionConflict
from tests.values import added, class_of, example_of, model_of, plain


def test_first_examples_create_the_class_at_the_version_of_the_change() -> None:
    change = added("acme", (1, 0))
    assert fold_change(None, Committed(7, change)) == ClassState("acme", 7, change.examples, change.model)


def test_second_enrolment_appends() -> None:
    change = added("acme", (0, 1), ids="second")
    state = fold_change(class_of("acme", (1, 0)), Committed(2, change))
    assert state is not None
    assert [example.id for example in state.examples] == ["e0", "second0"]
    assert state.model is change.model


def test_examples_do_not_depend_on_the_order_in_which_they_arrived() -> None:
    first, second, model = added("acme", (1, 0), ids="a"), added("acme", (0, 1), ids="b"), model_of((1, 1))
    one_way = [Committed(1, replace(first, model=model)), Committed(2, replace(second, model=model))]
    other_way = [Committed(1, replace(second, model=model)), Committed(2, replace(first, model=model))]
    assert plain(_folded(one_way)) == plain(_folded(other_way))


def test_adding_to_a_class_keeps_what_a_user_set() -> None:
    state = replace(class_of("acme"), user_threshold=0.8, metadata={"shop": 3})
    after = fold_change(state, Committed(2, added("acme", ids="second")))
    assert after is not None
    assert (after.user_threshold, after.metadata) == (0.8, {"shop": 3})


def test_a_removed_example_takes_its_embedding_along() -> None:
    state, model = class_of("acme", (1, 0), (0, 1)), model_of((0, 1))
    after = fold_change(state, Committed(2, ExampleRemoved("acme", "e0", model)))
    assert after == ClassState("acme", 2, state.examples[1:], model)


def test_a_class_outlives_its_last_example_without_a_model() -> None:
    after = fold_change(class_of("acme"), Committed(2, ExampleRemoved("acme", "e0", None)))
    assert after == ClassState("acme", 2)


def test_configuring_replaces_threshold_and_metadata() -> None:
    state = replace(class_of("acme"), user_threshold=0.8, metadata={"old": 1})
    after = fold_change(state, Committed(2, ClassConfigured("acme", None, {"new": 2})))
    assert after == replace(state, version=2, user_threshold=None, metadata={"new": 2})


def test_renaming_keeps_everything_but_the_name() -> None:
    state = class_of("acme")
    after = fold_change(state, Committed(2, ClassRenamed("acme", "other", 0.7, {"a": 1})))
    assert after == replace(state, name="other", version=2, user_threshold=0.7, metadata={"a": 1})


def test_refitting_replaces_vectors_and_model_only() -> None:
    state = replace(class_of("acme", (1, 0)), user_threshold=0.8, metadata={"a": 1})
    examples, model = (example_of("e0", (0, 1)),), model_of((0, 1), networks="newer")
    after = fold_change(state, Committed(2, ClassRefitted("acme", examples, model)))
    assert after == replace(state, version=2, examples=examples, model=model)


def test_a_removed_class_is_gone() -> None:
    assert fold_change(class_of("acme"), Committed(2, ClassRemoved("acme"))) is None


@pytest.mark.parametrize("change", [ClassRemoved("acme"), ClassConfigured("acme", None, {}), ExampleRemoved("acme", "e0", None)])
def test_a_change_to_a_class_that_is_not_there_is_a_bug_of_the_caller(change: Change) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        fold_change(None, Committed(2, change))


@pytest.mark.parametrize(("state", "expected"), [(class_of("acme", version=4), 3), (class_of("acme", version=4), 0), (None, 4)])
def test_a_change_made_on_another_version_is_a_conflict(state: ClassState | None, expected: int) -> None:
    with pytest.raises(VersionConflict) as conflict:
        fold_expected(state, Committed(5, added("acme", ids="second")), expected=expected)
    assert (conflict.value.expected, conflict.value.found) == (expected, 4 if state else 0)


def _folded(history: list[Committed]) -> ClassState | None:
    state = None
    for committed in history:
        state = fold_change(state, committed)
    return state

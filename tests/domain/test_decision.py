from __future__ import annotations

import numpy as np
import pytest

from app.domain.calibration import Calibration
from app.domain.decision import decide, evidence_of, rank
from app.domain.values import Box, Candidate, ClassModel, ClassState, Evidence, Example, Outcome, Provenance, Reason
from tests.fakes import calibration_for_tests

CALIBRATION: Calibration = calibration_for_tests()  # doubtful 0.05 below the threshold, ambiguous nearer than 0.02


def candidate(name: str, similarity: float, *, threshold: float = 0.6, accepted: bool | None = None) -> Candidate:
    is_accepted = similarity >= threshold if accepted is None else accepted
    return Candidate(name, similarity, probability=0.5, accepted=is_accepted, threshold=threshold, evidence=())


def class_state(name: str, *, threshold: float = 0.6, user_threshold: float | None = None, examples: int = 1) -> ClassState:
    vector = np.array([1, 0], np.float32)
    model = ClassModel(vector[np.newaxis], 0.1, threshold, Provenance("n", "c"))
    support = tuple(Example(f"{name}{number}", Box(0, 0, 9, 9), vector, 0.1) for number in range(examples))
    return ClassState(name, 1, support, model, user_threshold)


def test_without_classes_everything_is_unknown() -> None:
    assert decide([], CALIBRATION) == (Outcome.UNKNOWN, None, Reason.NO_CLASSES)


def test_an_accepted_class_is_the_decision() -> None:
    assert decide([candidate("acme", 0.6), candidate("other", 0.3)], CALIBRATION) == (Outcome.MATCH, "acme", None)


@pytest.mark.parametrize(
    ("similarity", "outcome"), [(0.599, Outcome.DOUBTFUL), (0.551, Outcome.DOUBTFUL), (0.549, Outcome.UNKNOWN)]
)
def test_below_the_threshold_it_is_doubtful_for_a_while_and_then_unknown(similarity: float, outcome: Outcome) -> None:
    assert decide([candidate("acme", similarity)], CALIBRATION) == (outcome, None, Reason.BELOW_THRESHOLD)


def test_a_less_probable_class_can_be_the_one_that_is_nearly_accepted() -> None:
    candidates = [candidate("strict", 0.7, threshold=0.9), candidate("lenient", 0.58)]
    assert decide(candidates, CALIBRATION)[0] is Outcome.DOUBTFUL


@pytest.mark.parametrize(("second", "outcome"), [(0.69, Outcome.DOUBTFUL), (0.67, Outcome.MATCH), (0.75, Outcome.DOUBTFUL)])
def test_two_accepted_classes_that_are_too_close_are_ambiguous(second: float, outcome: Outcome) -> None:
    found = decide([candidate("acme", 0.70), candidate("other", second)], CALIBRATION)
    assert found == ((outcome, None, Reason.AMBIGUOUS) if outcome is Outcome.DOUBTFUL else (outcome, "acme", None))


@pytest.mark.parametrize("third", [0.69, 0.71, 0.90])
def test_a_rival_too_close_or_more_similar_need_not_be_the_next_in_rank(third: float) -> None:
    candidates = [candidate("acme", 0.70), candidate("far", 0.61), candidate("rival", third)]
    assert decide(candidates, CALIBRATION) == (Outcome.DOUBTFUL, None, Reason.AMBIGUOUS)


def test_a_class_that_is_not_accepted_makes_nothing_ambiguous() -> None:
    candidates = [candidate("acme", 0.7), candidate("strict", 0.695, threshold=0.9)]
    assert decide(candidates, CALIBRATION) == (Outcome.MATCH, "acme", None)


def test_the_decision_is_the_most_probable_of_the_accepted() -> None:
    candidates = [candidate("strict", 0.8, threshold=0.9), candidate("acme", 0.7), candidate("other", 0.6)]
    assert decide(candidates, CALIBRATION) == (Outcome.MATCH, "acme", None)


def test_candidates_are_ranked_by_probability_not_by_similarity() -> None:
    generic, distinct = class_state("generic", threshold=0.8), class_state("distinct", threshold=0.6)
    ranked = rank([(generic, 0.75), (distinct, 0.70)], CALIBRATION)
    assert [shown.class_name for shown in ranked] == ["distinct", "generic"]


def test_equals_are_ranked_by_name() -> None:
    ranked = rank([(class_state("b"), 0.7), (class_state("a"), 0.7)], CALIBRATION)
    assert [shown.class_name for shown in ranked] == ["a", "b"]


def test_a_users_threshold_moves_acceptance_but_not_probability() -> None:
    (computed,) = rank([(class_state("acme"), 0.7)], CALIBRATION)
    (strict,) = rank([(class_state("acme", user_threshold=0.8), 0.7)], CALIBRATION)
    assert (computed.accepted, computed.threshold) == (True, 0.6)
    assert (strict.accepted, strict.threshold) == (False, 0.8)
    assert strict.probability == computed.probability


def test_probability_knows_the_number_of_examples() -> None:
    one, five = rank([(class_state("one"), 0.7)], CALIBRATION) + rank([(class_state("five", examples=5), 0.7)], CALIBRATION)
    assert five.probability == CALIBRATION.probability(0.7, threshold=0.6, examples=5) > one.probability


def test_evidence_is_the_nearest_examples_nearest_first() -> None:
    axes = {"a": [0.6, 0.8], "b": [1.0, 0.0], "c": [0.0, 1.0], "d": [0.8, 0.6]}
    examples = [Example(name, Box(0, 0, 9, 9), np.array(axis, np.float32), 0.1) for name, axis in axes.items()]
    found = evidence_of(np.array([1, 0], np.float32), examples)
    assert found == (Evidence("b", 1.0), Evidence("d", 0.8), Evidence("a", 0.6))

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from app.domain.calibration import Calibration, probability_of
from app.domain.decision import Ranked, decide, evidence_of, rank
from app.domain.values import Box, Candidate, ClassModel, ClassState, Evidence, Example, Outcome, Provenance, Reason, Verified
from app.domain.verification import NO_FINDS, Found, Proof
from tests.fakes import calibration_for_tests

CALIBRATION: Calibration = calibration_for_tests()  # doubtful 0.05 below the threshold, ambiguous nearer than 0.02


def candidate(name: str, similarity: float, *, threshold: float = 0.6) -> Ranked:
    shown = Candidate(name, similarity, probability=0.5, accepted=similarity >= threshold, threshold=threshold, evidence=())
    return Ranked(shown, log_odds=0.0, found=(), strength=0.0, proved=False)


def quad(left: float) -> NDArray[np.float64]:
    return np.array([[left, 0], [left + 0.5, 0], [left + 0.5, 1], [left, 1]], np.float64)


def found(name: str, points: int, *, left: float = 0.0, votes: float = 0.5) -> Found:
    """Half of the example, half of the picture's points: 0.5 ln(points) + 1.41 + votes."""
    example = Example(name, Box(0, 0, 9, 9), np.array([1, 0], np.float32), 0.1)
    return Found(example, Proof(points, 0.5, 0.5, quad(left), np.arange(points)), votes)


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
    decided = decide([candidate("acme", 0.70), candidate("other", second)], CALIBRATION)
    assert decided == ((outcome, None, Reason.AMBIGUOUS) if outcome is Outcome.DOUBTFUL else (outcome, "acme", None))


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
    ranked = rank([(generic, 0.75), (distinct, 0.70)], NO_FINDS, CALIBRATION, classes=2)
    assert [shown.candidate.class_name for shown in ranked] == ["distinct", "generic"]


def test_equals_are_ranked_by_name() -> None:
    ranked = rank([(class_state("b"), 0.7), (class_state("a"), 0.7)], NO_FINDS, CALIBRATION, classes=2)
    assert [shown.candidate.class_name for shown in ranked] == ["a", "b"]


def test_a_users_threshold_moves_acceptance_but_not_probability() -> None:
    (computed,) = rank([(class_state("acme"), 0.7)], NO_FINDS, CALIBRATION, classes=2)
    (strict,) = rank([(class_state("acme", user_threshold=0.8), 0.7)], NO_FINDS, CALIBRATION, classes=2)
    assert (computed.candidate.accepted, computed.candidate.threshold) == (True, 0.6)
    assert (strict.candidate.accepted, strict.candidate.threshold) == (False, 0.8)
    assert strict.candidate.probability == computed.candidate.probability


def test_probability_knows_the_number_of_examples() -> None:
    (one,) = rank([(class_state("one"), 0.7)], NO_FINDS, CALIBRATION, classes=2)
    (five,) = rank([(class_state("five", examples=5), 0.7)], NO_FINDS, CALIBRATION, classes=2)
    assert five.log_odds == CALIBRATION.log_odds(0.7, reference=0.6, examples=5) > one.log_odds
    assert five.candidate.probability == probability_of(five.log_odds)


def test_among_more_classes_each_accepts_fewer() -> None:
    # 0.6 + 0.05 ln(200 / 20) * 0.4 / 0.8; up to 20 classes nothing is added, and a user's own threshold stays.
    (few,) = rank([(class_state("acme"), 0.6)], NO_FINDS, CALIBRATION, classes=20)
    (many,) = rank([(class_state("acme"), 0.6)], NO_FINDS, CALIBRATION, classes=200)
    (user,) = rank([(class_state("acme", user_threshold=0.6), 0.6)], NO_FINDS, CALIBRATION, classes=200)
    assert (few.candidate.threshold, few.candidate.accepted) == (0.6, True)
    assert (many.candidate.threshold, many.candidate.accepted) == (pytest.approx(0.657565, abs=1e-6), False)
    assert (user.candidate.threshold, user.candidate.accepted) == (0.6, True)
    assert many.log_odds == user.log_odds < few.log_odds


def test_evidence_is_the_nearest_examples_nearest_first() -> None:
    axes = {"a": [0.6, 0.8], "b": [1.0, 0.0], "c": [0.0, 1.0], "d": [0.8, 0.6]}
    examples = [Example(name, Box(0, 0, 9, 9), np.array(axis, np.float32), 0.1) for name, axis in axes.items()]
    shown = evidence_of(np.array([1, 0], np.float32), examples, (), Box(0, 0, 9, 9))
    assert shown == (Evidence("b", 1.0), Evidence("d", 0.8), Evidence("a", 0.6))


# With 60 points a proof has strength 3.96, above the line of 3; with 8 points 2.95, above the lower line of 2.


def test_a_proved_class_is_accepted_far_below_its_threshold() -> None:
    (proved,) = rank([(class_state("acme"), 0.1)], {"acme": [found("acme0", 60)]}, CALIBRATION, classes=2)
    assert proved.candidate.accepted
    assert decide([proved], CALIBRATION) == (Outcome.MATCH, "acme", None)


def test_a_weak_proof_makes_a_class_doubtful() -> None:
    (weak,) = rank([(class_state("acme"), 0.1)], {"acme": [found("acme0", 8)]}, CALIBRATION, classes=2)
    assert not weak.candidate.accepted
    assert decide([weak], CALIBRATION) == (Outcome.DOUBTFUL, None, Reason.BELOW_THRESHOLD)


# By similarity alone: 20 for each that it lies above 0.6, and 0.5 more. By the proof of 60 points: its strength less 1.
@pytest.mark.parametrize(("similarity", "log_odds"), [(0.1, 2.96), (0.7, 2.96), (0.75, 3.5)])
def test_the_log_odds_are_those_of_the_proof_or_those_of_similarity_whichever_are_greater(
    similarity: float, log_odds: float
) -> None:
    (proved,) = rank([(class_state("acme"), similarity)], {"acme": [found("acme0", 60)]}, CALIBRATION, classes=2)
    assert proved.log_odds == pytest.approx(log_odds, abs=0.005)
    assert proved.candidate.probability == probability_of(proved.log_odds)


def test_a_users_threshold_does_not_move_the_ground_of_print() -> None:
    (proved,) = rank([(class_state("acme", user_threshold=1.0), 0.1)], {"acme": [found("acme0", 60)]}, CALIBRATION, classes=2)
    assert proved.candidate.accepted


def test_the_strongest_of_several_proofs_counts() -> None:
    (both,) = rank(
        [(class_state("acme", examples=2), 0.1)], {"acme": [found("acme0", 8), found("acme1", 60)]}, CALIBRATION, classes=2
    )
    (alone,) = rank([(class_state("acme", examples=2), 0.1)], {"acme": [found("acme1", 60)]}, CALIBRATION, classes=2)
    assert (both.strength, both.log_odds) == (alone.strength, alone.log_odds)
    assert [one.example.id for one in both.found] == ["acme1", "acme0"]


def test_a_proof_decides_between_looks_that_are_alike() -> None:
    ranked = rank(
        [(class_state("acme"), 0.70), (class_state("other"), 0.71)], {"acme": [found("acme0", 60)]}, CALIBRATION, classes=2
    )
    assert decide(ranked, CALIBRATION) == (Outcome.MATCH, "acme", None)


def test_a_proof_that_ranks_second_makes_the_first_ambiguous() -> None:
    ranked = rank(
        [(class_state("acme"), 0.99), (class_state("other"), 0.1)], {"other": [found("other0", 60)]}, CALIBRATION, classes=2
    )
    assert [one.candidate.class_name for one in ranked] == ["acme", "other"]
    assert decide(ranked, CALIBRATION) == (Outcome.DOUBTFUL, None, Reason.AMBIGUOUS)


@pytest.mark.parametrize(
    ("points", "left", "outcome"),
    [(60, 0.0, Outcome.DOUBTFUL), (59, 0.0, Outcome.DOUBTFUL), (30, 0.0, Outcome.MATCH), (60, 0.5, Outcome.MATCH)],
)
def test_two_proofs_of_one_place_are_ambiguous_unless_one_is_much_stronger(points: int, left: float, outcome: Outcome) -> None:
    finds = {"acme": [found("acme0", 60)], "other": [found("other0", points, left=left)]}
    ranked = rank([(class_state("acme"), 0.1), (class_state("other"), 0.1)], finds, CALIBRATION, classes=2)
    assert all(one.proved for one in ranked)
    assert decide(ranked, CALIBRATION)[0] is outcome


def test_evidence_shows_proofs_first_and_in_pixels_of_the_whole_picture() -> None:
    axes = {"a": [0.6, 0.8], "b": [1.0, 0.0], "c": [0.8, 0.6], "d": [0.9, 0.43]}
    examples = [Example(name, Box(0, 0, 9, 9), np.array(axis, np.float32), 0.1) for name, axis in axes.items()]
    proved = found("a", 60)
    shown = evidence_of(np.array([1, 0], np.float32), examples, (Found(examples[0], proved.proof, 0.5),), Box(100, 50, 200, 400))
    assert [one.example_id for one in shown] == ["a", "b", "d"]
    assert shown[0].verified == Verified(60, 0.5, ((100.0, 50.0), (300.0, 50.0), (300.0, 450.0), (100.0, 450.0)))
    assert shown[1].verified is None


# With 8 points a proof has strength 2.95; where looks count 2, one of 0.5 brings it to 3.95, above the line of 3.
LOOKING = replace(CALIBRATION, proof=replace(CALIBRATION.proof, look=2.0))


@pytest.mark.parametrize(
    ("look", "outcome"), [(0.5, Outcome.MATCH), (0.01, Outcome.DOUBTFUL), (-0.5, Outcome.DOUBTFUL), (None, Outcome.DOUBTFUL)]
)
def test_a_few_points_are_enough_where_the_place_looks_like_the_example(look: float | None, outcome: Outcome) -> None:
    proved = replace(found("acme0", 8), look=look)
    ranked = rank([(class_state("acme"), 0.1)], {"acme": [proved]}, LOOKING, classes=2)
    assert decide(ranked, LOOKING)[0] is outcome


def test_many_points_are_enough_whatever_the_look() -> None:
    unlike = replace(found("acme0", 60), look=-1.0)
    ranked = rank([(class_state("acme"), 0.1)], {"acme": [unlike]}, LOOKING, classes=2)
    assert decide(ranked, LOOKING) == (Outcome.MATCH, "acme", None)


@pytest.mark.parametrize(
    ("looks", "decided"),
    [
        ((0.8, 0.3), (Outcome.MATCH, "acme", None)),
        ((0.3, 0.8), (Outcome.MATCH, "other", None)),
        ((0.80, 0.75), (Outcome.DOUBTFUL, None, Reason.AMBIGUOUS)),  # 0.1 of strength apart
    ],
)
def test_siblings_of_equal_points_are_told_apart_by_the_look(
    looks: tuple[float, float], decided: tuple[Outcome, str | None, Reason | None]
) -> None:
    finds = {name: [replace(found(f"{name}0", 60), look=look)] for name, look in zip(("acme", "other"), looks, strict=True)}
    ranked = rank([(class_state("acme"), 0.1), (class_state("other"), 0.1)], finds, LOOKING, classes=2)
    assert decide(ranked, LOOKING) == decided


def test_of_several_proofs_of_a_class_the_one_that_looks_alike_is_shown_first() -> None:
    finds = {"acme": [found("acme0", 60), replace(found("acme1", 50), look=0.9)]}
    (one,) = rank([(class_state("acme", examples=2), 0.1)], finds, LOOKING, classes=2)
    assert [each.example.id for each in one.found] == ["acme1", "acme0"]
    assert one.strength == LOOKING.proof.strength(finds["acme"][1])

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from app.domain.calibration import calibration_from_json, probability_of, region_calibration_from_json
from app.domain.verification import Found, Proof
from tests.fakes import calibration_for_tests, region_calibration_for_tests
from tests.values import example_of

RIGHT, UP = [1.0, 0.0], [0.0, 1.0]


def vectors(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_threshold_lies_between_the_nearest_of_the_cohort_and_the_class_itself() -> None:
    calibration = replace(calibration_for_tests(), above_cohort=0.5)
    # Similarities to the class: 0.2, 0.6 and 38 times -1. A twentieth of 40 is two: their mean is 0.4, half the way to 1 is 0.7.
    cohort = vectors(*[[-1, 0]] * 38, *([cosine, math.sqrt(1 - cosine**2)] for cosine in (0.2, 0.6)))
    assert calibration.threshold_of(vectors(RIGHT), cohort) == pytest.approx(0.7, abs=1e-6)


def test_cohort_is_compared_with_the_nearest_representative() -> None:
    calibration = replace(calibration_for_tests(), above_cohort=0.0, threshold_floor=-1.0)
    sixty_degrees = vectors([0.5, math.sqrt(0.75)])  # 0.5 from one representative, 0.866 from the other
    assert calibration.threshold_of(vectors(RIGHT, UP), sixty_degrees) == pytest.approx(math.sqrt(0.75), abs=1e-6)


@pytest.mark.parametrize(("above_cohort", "threshold"), [(0.0, 0.6), (0.99, 0.9)])
def test_threshold_stays_between_floor_and_ceiling(above_cohort: float, threshold: float) -> None:
    calibration = replace(calibration_for_tests(), above_cohort=above_cohort)
    assert calibration.threshold_of(vectors(RIGHT), vectors(UP)) == threshold


def test_probability_is_logistic_in_similarity_above_the_threshold() -> None:
    # 20 * 0.1 + 0.5
    log_odds = calibration_for_tests().log_odds(0.7, reference=0.6, examples=1)
    assert probability_of(log_odds) == pytest.approx(1 / (1 + math.exp(-2.5)))


def test_in_probability_a_threshold_is_drawn_to_the_typical_one() -> None:
    calibration = replace(calibration_for_tests(), threshold_share=0.25, typical_threshold=0.6)
    assert calibration.reference_among(0.7, classes=20) == pytest.approx(0.625)
    # And raised as thresholds are: 0.05 ln(200 / 20) * 0.375 / 0.8
    assert calibration.reference_among(0.7, classes=200) == pytest.approx(0.625 + 0.05 * math.log(10) * 0.375 / 0.8, abs=1e-6)


def test_slope_and_offset_grow_with_the_logarithm_of_examples() -> None:
    log_odds = (20 + 2 * math.log(5)) * 0.1 + 0.5 + 0.1 * math.log(5)
    assert calibration_for_tests().log_odds(0.7, reference=0.6, examples=5) == pytest.approx(log_odds)


def test_more_examples_than_were_measured_count_as_the_most_measured() -> None:
    calibration = calibration_for_tests()
    assert calibration.log_odds(0.7, reference=0.6, examples=500) == calibration.log_odds(0.7, reference=0.6, examples=10)


def test_probability_of_the_impossible_is_a_number() -> None:
    steep = replace(calibration_for_tests(), slope=1e6)
    assert probability_of(steep.log_odds(-1, reference=1, examples=1)) == 0
    assert probability_of(steep.log_odds(1, reference=-1, examples=1)) == 1


PROOFS = calibration_for_tests().proof  # 0.5 ln(points) + the roots of coverage and agreement + votes; bias -1
QUAD = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)


LOOKING = replace(PROOFS, look=2.0)


def found(
    points: int = 20, coverage: float = 0.49, agreement: float = 0.25, votes: float = 0.3, look: float | None = None
) -> Found:
    return Found(example_of("e"), Proof(points, coverage, agreement, QUAD, np.arange(points)), votes, look)


def test_the_strength_of_a_proof_is_the_weighted_sum_of_what_it_has() -> None:
    by_points = 0.5 * math.log(20) + 0.7 + 0.5 + 0.3
    assert LOOKING.strength(found(look=0.6)) == pytest.approx(by_points + 1.2, abs=1e-6)
    assert LOOKING.by_points(found(look=0.6)) == pytest.approx(by_points, abs=1e-6)


@pytest.mark.parametrize("more", [{"points": 21}, {"coverage": 0.5}, {"agreement": 0.26}, {"votes": 0.31}, {"look": 0.01}])
def test_more_of_anything_makes_a_proof_stronger(more: dict[str, Any]) -> None:
    assert LOOKING.strength(found(**more)) > LOOKING.strength(found())


@pytest.mark.parametrize("look", [None, 0.0, -0.7])
def test_a_place_that_is_unlike_or_was_not_looked_at_takes_nothing_from_a_proof(look: float | None) -> None:
    assert LOOKING.strength(found(look=look)) == LOOKING.by_points(found())


def test_the_log_odds_of_a_proof_are_its_strength_from_the_bias_on() -> None:
    assert PROOFS.log_odds(3.0) == 2.0


def test_calibration_survives_json() -> None:
    calibration = calibration_for_tests()
    assert calibration_from_json(json.loads(json.dumps(asdict(calibration)))) == calibration


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["target_far"], ..., "target_far"),
        (["warnings"], ..., "warnings"),
        (["warnings", "blurred"], ..., "blurred"),
        (["temperature"], 1.0, "temperature"),
        (["warnings", "too_dark"], 1.0, "too_dark"),
        (["slope"], "steep", "calibration.slope"),
        (["slope"], float("nan"), "calibration.slope"),
        (["slope"], True, "calibration.slope"),
        (["slope"], -20.0, "slope"),
        (["slope_log_examples"], -10.0, "slope"),
        (["warnings", "blurred"], None, "calibration.warnings.blurred"),
        (["target_far"], 1.5, "target_far"),
        (["threshold_floor"], 0.95, "threshold_floor"),
        (["ambiguous_margin"], -0.1, "ambiguous_margin"),
        (["threshold_share"], 1.5, "threshold_share"),
        (["proof"], ..., "proof"),
        (["proof", "line"], ..., "line"),
        (["proof", "line"], "high", "calibration.proof.line"),
        (["proof", "luck"], 1.0, "luck"),
        (["proof", "target_far"], 0.0, "proof.target_far"),
        (["proof", "votes"], -1.0, "weights log_points, coverage, agreement, votes, look"),
        (["proof", "look"], -1.0, "weights log_points, coverage, agreement, votes, look"),
        (["proof", "look"], ..., "look"),
        (["proof", "looked_from"], -0.1, "proof.looked_from"),
        (["proof", "doubtful_line"], 3.5, "proof.doubtful_line"),
        (["proof", "ambiguous_margin"], -0.1, "ambiguous_margin"),
    ],
)
def test_calibration_that_cannot_be_meant_is_refused_by_name(path: list[str], value: Any, complaint: str) -> None:
    data = asdict(calibration_for_tests())
    *parents, name = path
    entries = data[parents[0]] if parents else data
    if value is ...:
        del entries[name]
    else:
        entries[name] = value
    with pytest.raises(ValueError, match=complaint):
        calibration_from_json(data)


@pytest.mark.parametrize("data", [None, [], "calibration", {"warnings": 3}])
def test_calibration_that_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="not an object"):
        calibration_from_json(data)


def test_log_odds_of_a_box_by_hand() -> None:
    calibration = replace(region_calibration_for_tests(), bias=1.0, look=0.5, lead=10.0, log_posterior=2.0, log_objectness=3.0)
    # 1 + 0.5 * 4 + 10 * 0.3 + 2 ln 0.5 + 3 ln 0.25
    log_odds = calibration.log_odds(4.0, lead=0.3, posterior=0.5, objectness=0.25)
    assert log_odds == pytest.approx(6 - 8 * math.log(2), abs=1e-6)


def test_a_detector_that_says_nothing_is_not_infinitely_sure() -> None:
    calibration = region_calibration_for_tests()
    assert calibration.log_odds(0.0, lead=0.0, posterior=0.0, objectness=0.0) == pytest.approx(2 * math.log(1e-6), abs=1e-6)


@pytest.mark.parametrize("said", ["by_look", "lead", "posterior", "objectness"])
def test_more_of_anything_never_speaks_against_a_box(said: str) -> None:
    calibration = replace(region_calibration_for_tests(), lead=1.0)
    few = {"by_look": 0.1, "lead": 0.1, "posterior": 0.2, "objectness": 0.3}
    more = few | {said: 0.9}
    assert calibration.log_odds(**more) > calibration.log_odds(**few)


def test_a_region_calibration_comes_back_as_it_was() -> None:
    assert region_calibration_from_json(asdict(region_calibration_for_tests())) == region_calibration_for_tests()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"look": -1.0}, "weights look"),
        ({"looked_from": 1.0}, "looked_from"),
        ({"doubtful_line": 0.5}, "doubtful_line is not above line"),
        ({"ambiguous_margin": -0.1}, "ambiguous_margin"),
        ({"bias": math.inf}, r"detector\.calibration\.bias is not a finite number"),
        ({"line": None}, r"detector\.calibration\.line"),
        ({"more": 1.0}, "'more'"),
    ],
)
def test_a_region_calibration_that_makes_no_sense_is_refused_by_name(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as raised:
        region_calibration_from_json(asdict(region_calibration_for_tests()) | wrong)
    assert str(raised.value).startswith("detector.calibration")

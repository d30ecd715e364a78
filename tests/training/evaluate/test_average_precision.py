"""Areas by hand: what a miss, a repeat and a wrong class cost."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluate.average_precision import (
    Ranking,
    Verdict,
    average_precision,
    matched,
    overlap,
    precision_and_recall,
    precision_at_recall,
)

RIGHT, WRONG, REPEATED = Verdict.RIGHT, Verdict.WRONG, Verdict.REPEATED
HERE, THERE, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)


def ranking(*verdicts: Verdict, things: int, scores: list[float] | None = None) -> Ranking:
    """Of one class and one episode, best first."""
    count = len(verdicts)
    falling = np.array(scores if scores is not None else np.linspace(1, 0.1, count), np.float64)
    zeros = np.zeros(count, np.int64)
    return Ranking(falling, zeros, zeros, np.array(verdicts, np.int64), np.array([[things]]))


def area(found: Ranking) -> float:
    return average_precision(found, np.ones(found.truths.shape[0]), np.ones(found.truths.shape[1]))


def test_overlap_is_intersection_over_union() -> None:
    assert overlap(HERE, (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert overlap(HERE, THERE) == 0
    assert overlap(HERE, HERE) == 1


def test_the_highest_score_takes_the_thing_and_the_rest_are_repeats() -> None:
    near = (1, 0, 10, 10)
    assert matched([(0, near, 0.5), (0, HERE, 0.9), (0, FAR, 0.8)], [(0, HERE)], least_overlap=0.5) == [REPEATED, RIGHT, WRONG]
    # The better fitting box comes second: its score decides, not its overlap.
    assert matched([(0, near, 0.9), (0, HERE, 0.5)], [(0, HERE)], least_overlap=0.5) == [RIGHT, REPEATED]


def test_a_second_box_takes_the_second_thing_when_it_overlaps_both() -> None:
    beside = (2, 0, 12, 10)  # overlaps HERE by 80 / 120
    found = [(0, HERE, 0.9), (0, (1, 0, 11, 10), 0.8)]
    assert matched(found, [(0, HERE), (0, beside)], least_overlap=0.5) == [RIGHT, RIGHT]


def test_a_box_on_a_thing_of_another_class_is_wrong_once() -> None:
    found = [(1, HERE, 0.9), (1, HERE, 0.8), (2, HERE, 0.7), (0, HERE, 0.6)]
    assert matched(found, [(0, HERE)], least_overlap=0.5) == [WRONG, REPEATED, WRONG, RIGHT]


def test_too_little_overlap_is_wrong_and_a_lower_line_takes_it() -> None:
    half = (5, 0, 15, 10)  # a third of the union
    assert matched([(0, half, 0.9)], [(0, HERE)], least_overlap=0.5) == [WRONG]
    assert matched([(0, half, 0.9)], [(0, HERE)], least_overlap=0.3) == [RIGHT]


def test_area_by_hand() -> None:
    assert area(ranking(RIGHT, RIGHT, things=2)) == 1
    assert area(ranking(RIGHT, things=2)) == pytest.approx(1 / 2)  # a miss
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: made monotone, 1/2 x 1 + 1/2 x 2/3.
    assert area(ranking(RIGHT, WRONG, RIGHT, things=2)) == pytest.approx(1 / 2 + 1 / 3)
    # Precision 0, 1/2, 2/3: made monotone it is 2/3 everywhere.
    assert area(ranking(WRONG, RIGHT, RIGHT, things=2)) == pytest.approx(2 / 3)
    assert area(ranking(things=3)) == 0
    assert np.isnan(area(ranking(WRONG, things=0)))


def test_a_repeat_is_wrong_or_counts_for_nothing() -> None:
    found = ranking(RIGHT, REPEATED, RIGHT, things=2)
    assert area(found) == pytest.approx(1 / 2 + 1 / 3)
    assert area(found.without_repeats()) == 1


def test_boxes_of_one_score_come_together_whatever_their_order() -> None:
    tied = {"things": 1, "scores": [0.5, 0.5]}
    assert area(ranking(RIGHT, WRONG, **tied)) == area(ranking(WRONG, RIGHT, **tied)) == pytest.approx(1 / 2)


def test_all_classes_and_episodes_are_in_one_ranking() -> None:
    # Class 0: right at 0.9. Class 1: wrong at 0.8, right at 0.2 in another episode. Pooled: R W R of two things.
    pooled = Ranking(
        scores=np.array([0.2, 0.9, 0.8]),
        labels=np.array([1, 0, 1]),
        episodes=np.array([1, 0, 0]),
        verdicts=np.array([RIGHT, RIGHT, WRONG]),
        truths=np.array([[1, 0], [0, 1]]),
    )
    assert area(pooled) == pytest.approx(1 / 2 + 1 / 3)
    assert area(pooled.of_class(0)) == 1
    assert area(pooled.of_class(1)) == pytest.approx(1 / 2)
    assert precision_and_recall(pooled, np.ones(2), np.ones(2)) == pytest.approx((2 / 3, 1))
    # A resample without the second episode, the first twice: R W of one thing, each twice.
    assert average_precision(pooled, np.array([2, 0]), np.ones(2)) == 1
    # And one with class 1 only.
    assert average_precision(pooled, np.ones(2), np.array([0, 2])) == pytest.approx(1 / 2)


def test_precision_where_so_much_is_found() -> None:
    found = ranking(RIGHT, WRONG, RIGHT, things=2)
    ones = np.ones(found.truths.shape[0]), np.ones(found.truths.shape[1])
    assert precision_at_recall(found, *ones, 0.5) == 1
    assert precision_at_recall(found, *ones, 0.9) == pytest.approx(2 / 3)
    assert np.isnan(precision_at_recall(ranking(RIGHT, things=2), *ones, 0.9))

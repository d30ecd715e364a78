from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.scoring import interval_of, precision_at, precision_recall, threshold_for

ANSWERS = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=30)


def test_precision_and_recall_by_hand() -> None:
    # Four things have a right answer; surest first: right, wrong, right, then a foreign one.
    curve = precision_recall([(0.5, True), (0.9, True), (0.2, False), (0.7, False)], known=4)

    assert [(point.confidence, point.precision, point.recall) for point in curve] == [
        (0.9, 1.0, 0.25),
        (0.7, 0.5, 0.25),
        (0.5, 2 / 3, 0.5),
        (0.2, 0.5, 0.5),
    ]


@settings(deadline=None)
@given(ANSWERS)
def test_the_order_of_equal_confidences_does_not_matter(answers: list[tuple[float, bool]]) -> None:
    assert precision_recall(answers, known=30) == precision_recall(answers[::-1], known=30)


@settings(deadline=None)
@given(ANSWERS)
def test_recall_never_falls_as_more_answers_are_given(answers: list[tuple[float, bool]]) -> None:
    recalls = [point.recall for point in precision_recall(answers, known=len(answers))]

    assert recalls == sorted(recalls)


def test_the_most_precise_point_that_recalls_enough_is_taken() -> None:
    curve = precision_recall([(0.9, True), (0.8, False), (0.7, True), (0.6, True)], known=4)

    at = precision_at(curve, recall=0.5)
    assert at is not None
    assert (at.confidence, at.precision) == (0.6, 0.75)
    assert precision_at(curve, recall=0.9) is None


def test_wilsons_interval_by_hand() -> None:
    # 8 of 10: Wilson's score interval is 0.4902 to 0.9433 (Newcombe 1998, method 3, computed by its formula).
    interval = interval_of(8, 10)

    assert interval is not None
    assert (interval.share, round(interval.low, 4), round(interval.high, 4)) == (0.8, 0.4902, 0.9433)


@pytest.mark.parametrize(("hits", "total"), [(0, 5), (5, 5)])
def test_an_interval_stays_between_nothing_and_all(hits: int, total: int) -> None:
    interval = interval_of(hits, total)

    assert interval is not None
    assert 0 <= interval.low <= interval.share <= interval.high <= 1
    assert interval.low < interval.high


def test_nothing_has_no_interval() -> None:
    assert interval_of(0, 0) is None


@pytest.mark.parametrize(("false_accepts", "wanted"), [(0.0, 0.501), (0.25, 0.401), (0.5, 0.301)])
def test_a_threshold_lets_that_share_of_foreign_things_through(false_accepts: float, wanted: float) -> None:
    threshold = threshold_for([0.2, 0.5, 0.3, 0.4], false_accepts=false_accepts)

    assert threshold == pytest.approx(wanted)


def test_without_foreign_things_no_threshold_follows() -> None:
    assert threshold_for([], false_accepts=0.01) is None

"""Known against unknown, and probabilities against what is right: hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluate import open_set

KNOWN, UNKNOWN = np.array([0.9, 0.8, 0.4, 0.6]), np.array([0.7, 0.4])


def test_the_area_counts_pairs_in_order_and_equal_ones_half() -> None:
    # 0.9 and 0.8 beat both; 0.6 beats 0.4 only; 0.4 equals 0.4, and loses to 0.7: shares 1, 1, 1/4, 1/2.
    assert open_set.shares_below(KNOWN, UNKNOWN).tolist() == [1, 1, 0.25, 0.5]


def test_false_accepts_are_counted_where_95_percent_of_the_known_are_accepted() -> None:
    known = np.arange(1, 21) / 20  # 19 of 20 are 95 %: the line is the second lowest, 0.1
    assert open_set.accepted_unknown(known, np.array([0.05, 0.09, 0.1, 0.5])).tolist() == [False, False, True, True]
    # Of four, 95 % are all four: the line is 0.4.
    assert open_set.accepted_unknown(KNOWN, np.array([0.39, 0.4, 0.7])).tolist() == [False, True, True]


def test_the_curve_says_what_is_accepted_at_each_share_of_the_unknown() -> None:
    curve = open_set.roc(KNOWN, UNKNOWN)
    # No unknown picture: above 0.7. One of two, from 50 %: above 0.4. Both: all.
    assert (curve[0], curve[49], curve[50], curve[99], curve[100]) == (0.5, 0.5, 0.75, 0.75, 1)
    assert open_set.roc(KNOWN, np.array([2.0]))[:100].max() == 0  # an unknown picture is above all


def test_the_calibration_error_by_hand() -> None:
    # 30 answers in 15 bins of two. The lower half says 0.2 and one of five is right: 0.2 - 0.2 = 0; the upper half says 0.9 and
    # 9 of 15 are right: |0.9 - 0.6| = 0.3. Half of the answers each: 0.15.
    probabilities = np.repeat([0.2, 0.9], 15)
    right = np.concatenate([np.arange(15) < 3, np.arange(15) < 9]).astype(float)
    bins = open_set.reliability(probabilities, right)
    assert [part["answers"] for part in bins] == [2] * 15
    # The eighth bin has one of each: it says 0.55, and 0.4 are right.
    expected = (14 * 0 + 2 * abs(0.55 - 0.4) + 14 * 0.3) / 30
    assert open_set.calibration_error(bins) == pytest.approx(expected)


def test_bins_hold_as_many_answers_each_and_go_by_probability() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(150)
    right = (rng.random(150) < probabilities).astype(float)
    bins = open_set.reliability(probabilities, right)
    ordered = np.argsort(probabilities)
    for number, part in enumerate(bins):
        members = ordered[10 * number : 10 * number + 10]
        assert part["probability"] == pytest.approx(probabilities[members].mean())
        assert part["right"] == pytest.approx(right[members].mean())


def test_equal_probabilities_come_in_any_order() -> None:
    right = np.repeat([1.0, 0.0], 15)
    for order in (slice(None), slice(None, None, -1)):
        bins = open_set.reliability(np.full(30, 0.5), right[order])
        assert open_set.calibration_error(bins) == 0


def test_fewer_answers_than_bins_have_a_bin_each() -> None:
    assert len(open_set.reliability(np.array([0.1, 0.9]), np.array([0.0, 1.0]))) == 2

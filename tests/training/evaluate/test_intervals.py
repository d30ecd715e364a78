"""Intervals are as wide as what varies."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluate.intervals import two_level


def test_the_interval_holds_the_mean_and_is_wide_when_classes_differ() -> None:
    by_class = np.tile(np.array([0.0, 1.0] * 6), (100, 1))  # every episode alike, classes all or nothing
    interval = two_level(by_class)
    assert interval.mean == 0.5
    # The mean of 12 coin-flips has a standard error of 0.5 / sqrt(12) = 0.144; 1.96 of them is 0.28 either way.
    assert interval.low == pytest.approx(0.22, abs=0.06)
    assert interval.high == pytest.approx(0.78, abs=0.06)


def test_the_interval_is_a_point_when_nothing_varies() -> None:
    interval = two_level(np.full((20, 5), 0.7))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.7, 0.7, 0.7))


def test_a_paired_difference_is_narrower_than_the_arms_it_is_of() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random((50, 1)) * 0.5 + rng.random((1, 10)) * 0.4
    better, worse = difficulty + 0.05, difficulty
    arm, difference = two_level(better), two_level(better - worse)
    assert difference.high - difference.low < (arm.high - arm.low) / 10
    assert difference.low > 0

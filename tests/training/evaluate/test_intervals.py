"""Intervals are as wide as what varies."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluate.intervals import by_pictures, class_means, over_episodes, resampled, two_level


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


def test_classes_or_pictures_count_alike_as_is_asked() -> None:
    values, labels = np.array([1.0, 0.0, 0.0, 0.0]), np.array(["a", "b", "b", "b"])
    assert by_pictures(values, labels, weigh="classes").mean == pytest.approx(1 / 2)
    assert by_pictures(values, labels, weigh="pictures").mean == pytest.approx(1 / 4)


def test_a_resample_of_unequal_classes_takes_of_each_class_as_many_pictures_as_it_has() -> None:
    labels = np.array([2, 0, 0, 0, 1, 1])  # class 0 has three pictures, 1 has two, 2 has one

    def checked(positions: np.ndarray, draws: np.ndarray) -> float:
        for draw in np.unique(draws):
            (label,) = set(labels[positions[draws == draw]])
            assert (draws == draw).sum() == 3 - label
        assert len(np.unique(draws)) == 3  # as many draws of classes as there are classes
        return 0.0

    assert sum(resampled(labels, checked)) == 0


def test_pictures_within_a_class_widen_the_interval_and_between_them_classes_do() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 5)
    within = by_pictures(np.tile([0.0, 0.0, 1.0, 1.0, 0.5], 20), labels, weigh="classes")  # classes alike
    between = by_pictures(np.repeat(rng.integers(0, 2, 20).astype(float), 5), labels, weigh="classes")  # pictures alike
    assert within.low < 0.5 < within.high
    # 100 pictures of deviation 0.45 have a mean of deviation 0.045, 20 classes of deviation 0.5 one of 0.11.
    assert within.high - within.low == pytest.approx(2 * 1.96 * 0.045, rel=0.2)
    assert between.high - between.low == pytest.approx(2 * 1.96 * 0.11, rel=0.2)


def test_a_class_that_is_not_in_an_episode_counts_for_nothing() -> None:
    values = np.array([[1.0, 0.0, np.nan], [1.0, np.nan, 0.0], [np.nan, 0.0, 0.0]])
    assert two_level(values).mean == pytest.approx(2 / 6)
    # Where every class is in every second episode, the same values give the same mean, and nothing varies that did not before.
    sparse = np.where(np.add.outer(np.arange(40), np.arange(6)) % 2 == 0, 0.7, np.nan)
    interval = two_level(sparse)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.7, 0.7, 0.7))


def test_means_of_classes_by_episode() -> None:
    values, labels = [np.array([1.0, 0.0, 1.0]), np.array([0.0])], [np.array([0, 0, 2]), np.array([2])]
    found = class_means(values, labels, 3)
    assert np.array_equal(found, [[0.5, np.nan, 1.0], [np.nan, np.nan, 0.0]], equal_nan=True)
    # Cells count alike: (0.5 + 1 + 0) / 3. Class 1 is in no episode.
    assert over_episodes(values, labels, 3).mean == pytest.approx(0.5)


def test_one_episode_varies_by_its_classes_and_pictures() -> None:
    values, labels = np.array([1.0, 0.0, 1.0]), np.array([0, 0, 2])
    assert over_episodes([values], [labels], 3) == by_pictures(values, labels, weigh="classes")

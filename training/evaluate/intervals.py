"""Intervals that count what varies: classes first, then episodes or pictures within (design section 6).

The usual 1.96 s / sqrt(n) over episodes describes the sampler of episodes, not the method: with 12 classes the classes decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

RESAMPLES = 2000

Weigh = Literal["classes", "pictures"]  # what counts alike in a mean


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def numbers(self) -> dict[str, float]:
        """As the result files hold it."""
        return {"mean": round(self.mean, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def interval_around(mean: float, resampled: Iterator[float]) -> Interval:
    """95 % of what resampling gives. NaN, where a resample had nothing to count, is left out."""
    found = np.fromiter(resampled, np.float64)
    counted = found[~np.isnan(found)]
    low, high = np.percentile(counted, [2.5, 97.5]) if len(counted) else (math.nan, math.nan)
    return Interval(mean, float(low), float(high))


def crossed_weights(episodes: int, classes: int, *, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """How often each class and each episode is drawn in each resample: weights instead of copies."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        rows = np.bincount(rng.integers(episodes, size=episodes), minlength=episodes)
        columns = np.bincount(rng.integers(classes, size=classes), minlength=classes)
        yield rows, columns


def two_level(values: np.ndarray, *, seed: int = 0) -> Interval:
    """Mean and 95 % interval of values (episodes, classes): classes resampled, then episodes. For a paired difference of two
    arms, give the difference of their values."""
    episodes, classes = values.shape
    weights = crossed_weights(episodes, classes, seed=seed)
    means = (float(rows @ values @ columns) / (episodes * classes) for rows, columns in weights)
    return interval_around(float(values.mean()), means)


def by_pictures(values: np.ndarray, labels: np.ndarray, *, weigh: Weigh, seed: int = 0) -> Interval:
    """Mean and 95 % interval of values of pictures (n,) of classes (n,): classes resampled, then pictures within each.

    Classes may have any numbers of pictures. For a paired difference of two arms, give the difference of their values.
    """

    def mean_of(positions: np.ndarray, drawn: np.ndarray) -> float:
        if weigh == "pictures":
            return float(values[positions].mean())
        return float((np.bincount(drawn, values[positions]) / np.bincount(drawn)).mean())

    mean = mean_of(np.arange(len(values)), np.unique(labels, return_inverse=True)[1])
    return interval_around(mean, resampled(labels, mean_of, seed=seed))


def resampled(labels: np.ndarray, statistic: Callable[[np.ndarray, np.ndarray], float], *, seed: int = 0) -> Iterator[float]:
    """A statistic of each resample of pictures of classes `labels` (n,).

    It is given positions of pictures, and beside each the draw of a class that it belongs to: a class drawn twice counts as two.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    starts = np.cumsum(counts) - counts
    for _ in range(RESAMPLES):
        classes = rng.integers(len(counts), size=len(counts))
        sizes = counts[classes]
        within = (rng.random(sizes.sum()) * sizes.repeat(sizes)).astype(np.int64)
        yield statistic(order[starts[classes].repeat(sizes) + within], np.arange(len(classes)).repeat(sizes))

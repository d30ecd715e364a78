"""Intervals that count what varies: classes first, then episodes or pictures within (design section 6).

The usual 1.96 s / sqrt(n) over episodes describes the sampler of episodes, not the method: with 12 classes the classes decide.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
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


@functools.lru_cache(maxsize=8)  # of 2,000 episodes a matrix has 16 MB
def crossed_matrices(episodes: int, classes: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`crossed_weights` of all resamples at once: (resamples, episodes), (resamples, classes)."""
    rows, columns = zip(*crossed_weights(episodes, classes, seed=seed), strict=True)
    return np.stack(rows).astype(np.float32), np.stack(columns).astype(np.float32)


def two_level(values: np.ndarray, *, seed: int = 0) -> Interval:
    """Mean and 95 % interval of values (episodes, classes): classes resampled, then episodes. For a paired difference of two
    arms, give the difference of their values. NaN, where a class is not in an episode, counts for nothing."""
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)
    rows, columns = crossed_matrices(*values.shape, seed=seed)
    totals = ((rows @ filled) * columns).sum(1)
    counts = ((rows @ present) * columns).sum(1)
    with np.errstate(invalid="ignore"):  # a resample may draw classes that none of its episodes has: NaN
        return interval_around(float(filled.sum() / present.sum()), iter(totals / counts))


def over_episodes(values: Sequence[np.ndarray], labels: Sequence[np.ndarray], classes: int, *, seed: int = 0) -> Interval:
    """Mean and 95 % interval of values of the pictures of each episode (n,), of classes `labels` (n,), classes alike.

    Over classes and episodes; where there is one episode only, over classes and the pictures within each.
    """
    if len(values) == 1:
        return by_pictures(values[0], labels[0], weigh="classes", seed=seed)
    means = class_means(values, labels, classes)
    return two_level(means[:, ~np.isnan(means).all(0)], seed=seed)


def class_means(values: Sequence[np.ndarray], labels: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """The mean value of each class's pictures in each episode (episodes, classes); NaN where a class has none."""
    found = np.full((len(values), classes), np.nan)
    for episode, (value, label) in enumerate(zip(values, labels, strict=True)):
        with np.errstate(invalid="ignore"):
            found[episode] = np.bincount(label, value, minlength=classes) / np.bincount(label, minlength=classes)
    return found


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

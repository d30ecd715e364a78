"""Intervals that count what varies: classes first, then episodes within (design section 6).

The usual 1.96 s / sqrt(n) over episodes describes the sampler of episodes, not the method: with 12 classes the classes decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def two_level(values: np.ndarray, *, seed: int = 0) -> Interval:
    """Mean and 95 % interval of values (episodes, classes): classes resampled, then episodes. For a paired difference of two
    arms, give the difference of their values."""
    rng = np.random.default_rng(seed)
    episodes, classes = values.shape
    means = np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        # Weights instead of copies: how often each row and column was drawn.
        rows = np.bincount(rng.integers(episodes, size=episodes), minlength=episodes)
        columns = np.bincount(rng.integers(classes, size=classes), minlength=classes)
        means[resample] = rows @ values @ columns / (episodes * classes)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))

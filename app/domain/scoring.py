"""How well answers fit what is true: precision and recall, a threshold for a false-accept rate, intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959964  # of a normal distribution, for a 95 % interval
JUST_ABOVE = 0.001  # more than the third decimal, in which similarities are shown


@dataclass(frozen=True, slots=True)
class Interval:
    """A share of counted things with its 95 % interval, all from 0 to 1."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What holds when only answers of at least this confidence are given."""

    confidence: float
    precision: float  # right answers of those given
    recall: float  # right answers of those that there could be


def interval_of(hits: int, total: int) -> Interval | None:
    """Wilson's interval, which holds for few things and for shares near 0 and 1. None of nothing."""
    if total == 0:
        return None
    share, spread = hits / total, Z_95**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def precision_recall(answers: Sequence[tuple[float, bool]], *, known: int) -> list[CurvePoint]:
    """`answers`: confidence and whether it is right, foreign things too (never right); `known`: things that have a right answer.

    Surest first. Equal confidences are one point, since no threshold tells them apart.
    """
    points: list[CurvePoint] = []
    right = 0
    for given, (confidence, is_right) in enumerate(sorted(answers, key=lambda one: -one[0]), start=1):
        right += is_right
        point = CurvePoint(confidence, right / given, right / known if known else 0.0)
        if points and points[-1].confidence == confidence:
            points.pop()
        points.append(point)
    return points


def precision_at(curve: Sequence[CurvePoint], *, recall: float) -> CurvePoint | None:
    """The most precise point that recalls as much; None where none does."""
    reached = [point for point in curve if point.recall >= recall]
    return max(reached, key=lambda point: point.precision, default=None)


def threshold_for(foreign: Sequence[float], *, false_accepts: float) -> float | None:
    """The lowest similarity that at most this share of foreign things reaches; None without foreign things."""
    if not foreign:
        return None
    falling = sorted(foreign, reverse=True)
    allowed = math.floor(false_accepts * len(falling))
    return min(1.0, falling[allowed] + JUST_ABOVE) if allowed < len(falling) else -1.0

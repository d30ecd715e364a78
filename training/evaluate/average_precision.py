"""How good a ranking of boxes is: matching with the ground truth, and the area under its precision-recall curve.

Ground truth is matched once, by the highest score first. Two ways to count a further box on a thing that is matched already: in
PASCAL VOC it is wrong; in the released evaluation of RepMet (CVPR 2019), whose figures pool all classes and all episodes in one
ranking, it counts for nothing, and so does a further box of one class on one thing of another class. The area is that of VOC from
2010 on: all points, precision made monotone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

Edges = tuple[float, float, float, float]  # left, top, right, bottom in pixels


class Verdict(IntEnum):
    WRONG = 0
    RIGHT = 1
    REPEATED = 2  # of a thing that a higher score has found already


@dataclass(frozen=True)
class Ranking:
    """Boxes of all photographs of all episodes, n of them, in any order, and the things that there were to find."""

    scores: np.ndarray  # (n,)
    labels: np.ndarray  # (n,) class
    episodes: np.ndarray  # (n,)
    verdicts: np.ndarray  # (n,) of Verdict
    truths: np.ndarray  # (episodes, classes) things there are

    def of_class(self, label: int) -> Ranking:
        """As if there were no other class."""
        kept = self.labels == label
        only = np.zeros(kept.sum(), np.int64)
        return Ranking(self.scores[kept], only, self.episodes[kept], self.verdicts[kept], self.truths[:, [label]])

    def without_repeats(self) -> Ranking:
        kept = self.verdicts != Verdict.REPEATED
        return Ranking(self.scores[kept], self.labels[kept], self.episodes[kept], self.verdicts[kept], self.truths)


def overlap(one: Edges, other: Edges) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    both = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other)) - shared
    return shared / both if both > 0 else 0.0


def matched(
    found: Sequence[tuple[int, Edges, float]], truths: Sequence[tuple[int, Edges]], *, least_overlap: float
) -> list[Verdict]:
    """Boxes found in one photograph, as class, edges and score, and the things in it -> a verdict on each box, in their order.

    A box is right on the thing of its class that it overlaps most, of those that no higher score has taken.
    """
    verdicts = [Verdict.WRONG] * len(found)
    taken: set[tuple[int, int]] = set()  # class of the boxes, number of the thing
    for position in sorted(range(len(found)), key=lambda p: -found[p][2]):
        label, edges, _ = found[position]
        overlaps = [(overlap(edges, there), number) for number, (_, there) in enumerate(truths)]
        hit = [number for share, number in sorted(overlaps, key=lambda o: -o[0]) if share >= least_overlap]
        own = [number for number in hit if truths[number][0] == label]
        free = [number for number in own or hit if (label, number) not in taken]
        if hit and not free:
            verdicts[position] = Verdict.REPEATED
        elif own:
            verdicts[position] = Verdict.RIGHT
        taken.update((label, number) for number in free[:1])
    return verdicts


def average_precision(ranking: Ranking, rows: np.ndarray, columns: np.ndarray) -> float:
    """Area under the curve; a repeated box is wrong. NaN where there is nothing to find.

    `rows` (episodes,) and `columns` (classes,): how often each counts, as in a resample. Boxes of equal score enter the curve
    together, so that their order does not matter.
    """
    recall, precision = curve(ranking, rows, columns)
    return float(np.diff(recall, prepend=0.0) @ precision) if rows @ ranking.truths @ columns else float("nan")


def precision_at_recall(ranking: Ranking, rows: np.ndarray, columns: np.ndarray, least: float) -> float:
    """The best precision where a share `least` of what there is has been found; NaN where it never is."""
    recall, precision = curve(ranking, rows, columns)
    reached = recall >= least - 1e-9
    return float(precision[reached][0]) if reached.any() else float("nan")


def curve(ranking: Ranking, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and monotone precision at each score, highest first; nothing where there is nothing to find."""
    wanted = float(rows @ ranking.truths @ columns)
    if not wanted or not len(ranking.scores):
        return np.zeros(0), np.zeros(0)
    order = np.argsort(-ranking.scores, kind="stable")
    weights = (rows[ranking.episodes] * columns[ranking.labels])[order]
    right = np.cumsum(weights * (ranking.verdicts[order] == Verdict.RIGHT))
    ends = np.flatnonzero(np.append(np.diff(ranking.scores[order]) != 0, True))
    precision = right[ends] / np.maximum(np.cumsum(weights)[ends], 1e-12)
    return right[ends] / wanted, np.maximum.accumulate(precision[::-1])[::-1]


def precision_and_recall(ranking: Ranking, rows: np.ndarray, columns: np.ndarray) -> tuple[float, float]:
    """Of all boxes in the ranking, whatever their scores; NaN where nothing was found, or was to be found."""
    weights = rows[ranking.episodes] * columns[ranking.labels]
    right = float(weights @ (ranking.verdicts == Verdict.RIGHT))
    found, wanted = float(weights.sum()), float(rows @ ranking.truths @ columns)
    return right / found if found else float("nan"), right / wanted if wanted else float("nan")

"""Episodes over cached features: drawn from a seed, the same for every arm, answered by linear classifiers all at once.

The list is a function of the file's class names, labels, marks of what may be shown and asked, and the seed; `digest` says which
one it was. Of one draw of `shown` pictures an episode of k shots takes the first k, so that shots are paired too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from training.features import FeatureSet

MOST_SHOWN = 10


@dataclass(frozen=True)
class FeatureEpisodes:
    """`shown` are positions among the pictures that may be shown, `asked` of all pictures, -1 where a class has no more."""

    classes: Tensor  # (e, ways)
    shown: Tensor  # (e, ways, most shots)
    asked: Tensor  # (e, ways, q)
    foreign: Tensor  # (e, ways): as many classes again that are not enrolled; none where there are too few
    foreign_asked: Tensor  # (e, ways, q)
    class_count: int

    def __len__(self) -> int:
        return len(self.classes)

    def part(self, rows: slice) -> FeatureEpisodes:
        return FeatureEpisodes(*(part[rows] for part in self._parts), self.class_count)

    def first(self, count: int) -> FeatureEpisodes:
        return self.part(slice(count))

    def of_shots(self, shots: int) -> FeatureEpisodes:
        """ValueError where fewer were drawn."""
        if self.shown.shape[2] < shots:
            raise ValueError(f"{self.shown.shape[2]} pictures of a class are shown, {shots} are wanted")
        return replace(self, shown=self.shown[:, :, :shots])

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in self._parts)).hexdigest()[:16]

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        return self.classes, self.shown, self.asked, self.foreign, self.foreign_asked


def draw(found: FeatureSet, *, ways: int, shots: int, asked: int, episodes: int, seed: int) -> FeatureEpisodes:
    """Classes without replacement in an episode, and in each pictures to show, and up to `asked` others to ask.

    Where pictures lie in a circle, those shown are neighbours and the ones on either side of them are not asked.
    """
    rng = np.random.default_rng(seed)
    drawers = [one for one in (Drawer(found, number) for number in range(len(found.class_names))) if one.has_enough(shots)]
    ways = min(ways, len(drawers))
    foreign = ways if len(drawers) >= 2 * ways else 0
    classes, shown, queries = [], [], []
    for _ in range(episodes):
        chosen = rng.permutation(len(drawers))[: ways + foreign]
        drawn = [drawers[number].draw(rng, shots, asked) for number in chosen]
        classes.append([drawers[number].number for number in chosen])
        shown.append([supports for supports, _ in drawn[:ways]])
        queries.append([others for _, others in drawn])
    all_classes, all_asked = torch.from_numpy(np.array(classes)), torch.from_numpy(np.array(queries))
    return FeatureEpisodes(
        all_classes[:, :ways], torch.from_numpy(np.array(shown)), all_asked[:, :ways],
        all_classes[:, ways:], all_asked[:, ways:], len(found.class_names),
    )  # fmt: skip


class Drawer:
    """Draws pictures of one class."""

    def __init__(self, found: FeatureSet, number: int) -> None:
        rows = np.flatnonzero(found.labels == number)
        self.number, self.in_circle = number, found.in_circle
        self.may_show, self.may_ask = rows[found.may_show[rows]], rows[found.may_ask[rows]]
        self.among_shown = np.cumsum(found.may_show) - 1  # (n,) position among those that may be shown

    def has_enough(self, shots: int) -> bool:
        if self.in_circle:
            return len(self.may_show) >= shots + 3
        either = np.intersect1d(self.may_show, self.may_ask)
        return len(self.may_show) >= shots and len(self.may_ask) > min(shots, len(either))

    def draw(self, rng: np.random.Generator, shots: int, asked: int) -> tuple[np.ndarray, np.ndarray]:
        """-> positions of pictures to show (shots,) and to ask (asked,), the latter filled with -1."""
        if self.in_circle:
            around = np.roll(self.may_show, -rng.integers(len(self.may_show)))
            shown, others = around[:shots], rng.permutation(around[shots + 1 : -1])
        else:
            shown = rng.permutation(self.may_show)[:shots]
            others = rng.permutation(np.setdiff1d(self.may_ask, shown))
        queries = np.full(asked, -1)
        queries[: len(others[:asked])] = others[:asked]
        return self.among_shown[shown], queries


def right_by_class(weights: Tensor, biases: Tensor, table: Tensor, episodes: FeatureEpisodes) -> np.ndarray:
    """Share of right answers of linear classifiers (e, ways, d), (e, ways) on asked pictures (n, d) -> (e, classes), NaN for
    classes that are not in an episode."""
    found = np.full((len(episodes), episodes.class_count), np.nan, np.float32)
    for rows, part in batches(episodes):
        asked = part.asked.flatten(1)  # (e, ways * q)
        scores = weights[rows] @ table[asked.clamp(min=0)].transpose(1, 2) + biases[rows, :, None]  # (e, ways, ways * q)
        truth = torch.arange(asked.shape[1]) // part.asked.shape[2]
        right = (scores.argmax(1) == truth).float().masked_fill(asked < 0, torch.nan)
        found[np.arange(rows.start, rows.stop)[:, None], part.classes] = right.view(part.asked.shape).nanmean(2)
    return found


def batches(episodes: FeatureEpisodes, size: int = 200) -> Iterator[tuple[slice, FeatureEpisodes]]:
    for start in range(0, len(episodes), size):
        rows = slice(start, min(start + size, len(episodes)))
        yield rows, episodes.part(rows)

"""What a detector's network says of a picture -> places where a thing may be, and how near each is to classes.

The network knows no class: it gives boxes, how likely each holds a thing, and an embedding of each. A class is known by its
representatives in that space (Karlinsky et al., CVPR 2019, section 3): its probability at a box is that of the strongest of
Gaussians around them. A few matrix products serve all classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from app.domain.values import FloatArray

MOST_REGIONS = 300  # of a view that are compared with each other
MOST_CLASSES = 5  # of a region: among thousands many are near it
SAME_BOX = 0.5  # overlap (IoU) from which two boxes are of one place
SAME_REGION = 0.7  # from which two boxes, whatever is in them, are one proposal


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Places in a picture where a thing may be, m of them."""

    boxes: FloatArray  # (m, 4) left, top, right, bottom in pixels; may reach outside
    objectness: FloatArray  # (m,) from 0 to 1
    embeddings: FloatArray  # (m, e) unit length

    def __post_init__(self) -> None:
        count = len(self.objectness)
        if self.boxes.shape != (count, 4) or self.embeddings.ndim != 2 or len(self.embeddings) != count:
            shapes = self.boxes.shape, self.objectness.shape, self.embeddings.shape
            raise ValueError(f"boxes (m, 4), objectness (m,) and embeddings (m, e) are of the same m, not {shapes}")

    def __len__(self) -> int:
        return len(self.objectness)

    def at(self, positions: NDArray[np.int64]) -> Regions:
        return Regions(self.boxes[positions], self.objectness[positions], self.embeddings[positions])

    def likeliest(self, most: int = MOST_REGIONS) -> Regions:
        """The `most` with the highest objectness, highest first; equals in their order."""
        return self.at(np.argsort(-self.objectness, kind="stable")[:most])

    def proposals(self, most: int, *, largest_overlap: float = SAME_REGION) -> Regions:
        """Likeliest first, each thing once, whatever it is."""
        likely = self.likeliest()
        return likely.at(kept_boxes(likely.boxes, likely.objectness, largest_overlap=largest_overlap, most=most))


@dataclass(frozen=True, eq=False)
class Known:
    """Representatives of all classes, by rank: the first of every class, the second of those that have two, and so on.

    So the nearest of each class is the largest of a few matrices, number by number. Along the rows of one matrix, class by class,
    it takes longer than the product that made it.
    """

    class_names: tuple[str, ...]  # those of most representatives first, so that the classes of every rank are the first ones
    ranks: tuple[FloatArray, ...]  # (classes that have so many, e) unit length

    @classmethod
    def of(cls, classes: Sequence[tuple[str, FloatArray]]) -> Known:
        """Names, each with its representatives (r, e), r >= 1. Of classes that have equally many the order is kept."""
        if not classes or not all(len(vectors) for _, vectors in classes):
            raise ValueError("a class is known by a representative or more, and there is a class or more")
        ordered = sorted(classes, key=lambda one: -len(one[1]))
        counts = np.array([len(vectors) for _, vectors in ordered])
        firsts = np.cumsum(counts) - counts  # row of each class
        vectors = np.concatenate([vectors for _, vectors in ordered], dtype=np.float32)  # (r of all, e)
        ranks = tuple(vectors[firsts[counts > rank] + rank] for rank in range(counts[0]))
        return cls(tuple(name for name, _ in ordered), ranks)

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.class_names)}

    def numbers_of(self, names: Iterable[str]) -> list[int]:
        """Of those of the names that are known, in `class_names`."""
        return [self._numbers[name] for name in names if name in self._numbers]


def similarities_to(known: Known, embeddings: FloatArray) -> FloatArray:
    """Cosine of each embedding (m, e) to the nearest representative of each class -> (m, classes)."""
    nearest = embeddings @ known.ranks[0].T  # (m, classes)
    for rank in known.ranks[1:]:
        reached = nearest[:, : len(rank)]
        np.maximum(reached, embeddings @ rank.T, out=reached)
    return np.asarray(nearest)


def probability_at(similarity: float, width: float) -> float:
    """exp(-d^2 / (2 width^2)), as d^2 = 2 - 2 cos of unit vectors: section 3."""
    return math.exp((similarity - 1) / (width * width))


def nearest_classes(similarities: FloatArray) -> list[NDArray[np.int64]]:
    """Of each region (m, classes) the columns of the `MOST_CLASSES` nearest, nearest first, but for those at -inf."""
    nearest = np.argpartition(-similarities, np.arange(min(MOST_CLASSES, similarities.shape[1])), axis=1)[:, :MOST_CLASSES]
    return [columns[row[columns] > -np.inf] for row, columns in zip(similarities, nearest, strict=True)]


def kept_boxes(boxes: FloatArray, scores: FloatArray, *, largest_overlap: float, most: int | None = None) -> NDArray[np.int64]:
    """Positions of the boxes (m, 4) that overlap none of a higher score by more, best first; equals in their order."""
    are_apart = overlaps(boxes, boxes) <= largest_overlap  # (m, m)
    free = np.ones(len(boxes), np.bool_)
    kept: list[int] = []
    for position in np.argsort(-scores, kind="stable").tolist():
        if len(kept) == most:
            break
        if free[position]:
            kept.append(position)
            free &= are_apart[position]
    return np.array(kept, dtype=np.int64)


def overlaps(one: FloatArray, other: FloatArray) -> FloatArray:
    """Intersection over union of boxes (a, 4) and (b, 4) -> (a, b)."""
    left, top, right, bottom = one.T[:, :, np.newaxis]  # (a, 1) each
    shared = _shared(left, right, other[:, 0], other[:, 2])  # width
    shared *= _shared(top, bottom, other[:, 1], other[:, 3])
    union = _areas(one)[:, np.newaxis] + _areas(other) - shared
    union += union == 0  # no area, no overlap
    return np.asarray(shared / union)


def _shared(low: FloatArray, high: FloatArray, other_low: FloatArray, other_high: FloatArray) -> FloatArray:
    """Length that is in both of two stretches, any shapes that fit each other. In place, as memory costs more than arithmetic."""
    length = np.minimum(high, other_high)
    length -= np.maximum(low, other_low)
    return np.asarray(np.maximum(length, 0, out=length))


def _areas(boxes: FloatArray) -> FloatArray:
    """(m, 4) -> (m,)"""
    return np.asarray(np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0))


@dataclass(frozen=True, slots=True)
class Fit:
    """How a picture lies in the square that a network takes: as large as it goes, in the middle."""

    width: int  # of the picture
    height: int
    side_px: int

    @property
    def scale(self) -> float:
        return self.side_px / max(self.width, self.height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in the square, a pixel at least."""
        return max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale))

    @property
    def corner(self) -> tuple[int, int]:
        """Left and top of the picture in the square."""
        width, height = self.size
        return (self.side_px - width) // 2, (self.side_px - height) // 2

    def to_square(self, boxes: FloatArray) -> FloatArray:
        """Boxes (m, 4) in pixels of the picture -> of the square."""
        return np.asarray(boxes * self._scales() + np.array(self.corner * 2), dtype=np.float32)

    def to_picture(self, boxes: FloatArray) -> FloatArray:
        """The inverse; clipped to the picture."""
        limits = np.array([self.width, self.height] * 2)
        return np.asarray(np.clip((boxes - np.array(self.corner * 2)) / self._scales(), 0, limits), dtype=np.float32)

    def _scales(self) -> FloatArray:
        width, height = self.size
        return np.array([width / self.width, height / self.height] * 2, dtype=np.float32)

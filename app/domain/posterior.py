"""What a detector's network says of a picture -> boxes of classes, by RepMet's posterior over representatives.

The network knows no class: it gives boxes, how likely each holds a thing, and an embedding of each. A class is known by its
representatives in that space (Karlinsky et al., CVPR 2019, section 3): its probability at a box is that of the strongest of
Gaussians around them, background's what the best class leaves. One matrix product serves all classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from app.domain.values import FloatArray

MOST_REGIONS = 300  # of a view that are compared with classes
MOST_CLASSES = 5  # of a region: among thousands many are near it, and one region must not take the place of all others
SAME_BOX = 0.5  # overlap (IoU) from which two boxes of one class are of one thing
SAME_REGION = 0.7  # from which two boxes, whatever is in them, are one proposal
OBJECTNESS_SHARE = 0.5  # exponent of objectness beside the class's probability


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
    """Representatives of all classes, and whose each is."""

    class_names: tuple[str, ...]
    representatives: FloatArray  # (r, e) unit length, those of a class beside each other, in the order of the names
    starts: NDArray[np.int64]  # (classes,) the first of each

    @classmethod
    def of(cls, classes: Sequence[tuple[str, FloatArray]]) -> Known:
        """Names, each with its representatives (r, e), r >= 1."""
        counts = [len(representatives) for _, representatives in classes]
        if not classes or 0 in counts:
            raise ValueError("a class is known by a representative or more, and there is a class or more")
        starts = np.cumsum([0, *counts[:-1]], dtype=np.int64)
        vectors = np.concatenate([vectors for _, vectors in classes], dtype=np.float32)
        return cls(tuple(name for name, _ in classes), vectors, starts)

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.class_names)}

    def numbers_of(self, names: Iterable[str]) -> list[int]:
        """Of those of the names that are known, in `class_names`."""
        return [self._numbers[name] for name in names if name in self._numbers]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Boxes of classes, best first."""

    class_numbers: NDArray[np.int64]  # (s,) columns of the similarities
    regions: NDArray[np.int64]  # (s,) where each stands in the regions
    similarities: FloatArray  # (s,) cosine to the nearest representative
    scores: FloatArray  # (s,) from 0 to 1: of the class and of there being a thing


def similarities_to(known: Known, embeddings: FloatArray) -> FloatArray:
    """Cosine of each embedding (m, e) to the nearest representative of each class -> (m, classes)."""
    cosines = embeddings @ known.representatives.T  # (m, r)
    return np.asarray(np.maximum.reduceat(cosines, known.starts, axis=1))


def probabilities_of(similarities: FloatArray, width: float) -> FloatArray:
    """max_j exp(-d_j^2 / (2 width^2)), as d^2 = 2 - 2 cos of unit vectors: section 3, of any shape."""
    return np.asarray(np.exp((similarities - 1) / (width * width)))


def probability_at(similarity: float, width: float) -> float:
    """The same of one similarity."""
    return math.exp((similarity - 1) / (width * width))


def background_of(probabilities: FloatArray) -> FloatArray:
    """Probabilities (m, classes) -> that of background (m,): what the best class leaves."""
    return np.asarray(1 - probabilities.max(axis=1))


def see(regions: Regions, similarities: FloatArray, *, width: float, least: float = 0.0, most: int = 100) -> Seen:
    """The `most` best boxes of classes whose score is above `least`; of one class each thing once.

    `similarities` (m, classes) are those of each region, -inf to a class that is not asked about. `width` is the standard
    deviation of the Gaussians, as the network was trained with.
    """
    nearest = _nearest_classes(similarities)  # (m, some classes)
    cosines = np.take_along_axis(similarities, nearest, axis=1)
    scores = probabilities_of(cosines, width) * regions.objectness[:, np.newaxis] ** OBJECTNESS_SHARE
    rows, columns = np.nonzero(scores > least)
    numbers = nearest[rows, columns]
    # Boxes of different classes are laid far apart, so that one pass looks at each class alone.
    reach = float(np.abs(regions.boxes).max(initial=0.0)) * 2 + 1
    apart = regions.boxes[rows] + (numbers * reach)[:, np.newaxis]
    kept = kept_boxes(apart, scores[rows, columns], largest_overlap=SAME_BOX, most=most)
    rows, columns = rows[kept], columns[kept]
    return Seen(nearest[rows, columns], rows, cosines[rows, columns], scores[rows, columns])


def nearest_classes(similarities: FloatArray) -> list[NDArray[np.int64]]:
    """Of each region (m, classes) the columns of the `MOST_CLASSES` nearest, nearest first, but for those at -inf."""
    found = []
    for of_region, columns in zip(similarities, _nearest_classes(similarities), strict=True):
        columns = columns[np.argsort(-of_region[columns], kind="stable")]
        found.append(columns[of_region[columns] > -np.inf])
    return found


def _nearest_classes(similarities: FloatArray) -> NDArray[np.int64]:
    """(m, classes) -> (m, `MOST_CLASSES`, or all if there are fewer), in the order of the classes."""
    if similarities.shape[1] <= MOST_CLASSES:
        return np.broadcast_to(np.arange(similarities.shape[1]), similarities.shape)
    return np.sort(np.argpartition(-similarities, MOST_CLASSES - 1, axis=1)[:, :MOST_CLASSES], axis=1)


def kept_boxes(boxes: FloatArray, scores: FloatArray, *, largest_overlap: float, most: int | None = None) -> NDArray[np.int64]:
    """Positions of the boxes (m, 4) that overlap none of a higher score by more, best first; equals in their order."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and (most is None or len(kept) < most):
        best, others = order[0], order[1:]
        kept.append(int(best))
        order = others[overlaps(boxes[best][np.newaxis], boxes[others])[0] <= largest_overlap]
    return np.array(kept, dtype=np.int64)


def overlaps(one: FloatArray, other: FloatArray) -> FloatArray:
    """Intersection over union of boxes (a, 4) and (b, 4) -> (a, b)."""
    low = np.maximum(one[:, np.newaxis, :2], other[np.newaxis, :, :2])
    high = np.minimum(one[:, np.newaxis, 2:], other[np.newaxis, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, np.newaxis] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


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

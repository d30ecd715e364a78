"""The points of all examples of a gallery, and the vote of a picture's points over them. Immutable, as the gallery is.

The examples lie in a few parts, each with an index of its own, the largest first. A change adds a small part and marks what it
removed, so that it costs what it changed; small parts are merged when they are made, large ones in the background. A point of
a picture votes for the examples of the points it is nearest to, by how much nearer they are than the last of its neighbours: a
point that fits many things counts next to nothing, without any list of words that are too common.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.domain.changes import (
    Change,
    ClassConfigured,
    ClassRefitted,
    ClassRemoved,
    ClassRenamed,
    ClassRestored,
    Committed,
    ExampleRemoved,
    ExamplesAdded,
    Snapshot,
)
from app.domain.values import ClassModel, ClassState, Example, FloatArray, Points
from app.domain.verification import LENGTH_SQUARED

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

NEIGHBOURS = 12  # of a point: among a million points the true one is seldom further down
PROBES = 8  # lists of the index looked through for each point: docs/experiments.md
MERGED_AT_ONCE = 32  # examples that a change may lay out again: 10,000 points, some milliseconds
GROWTH = 2  # a part has this many times the examples of all that come after it together, or it is merged with them
EXAMPLES_OF_A_CLASS = 2  # proposed by a vote: the best, and one more view of the thing


class PointIndex(Protocol):
    """Finds the nearest points of one part."""

    def search(
        self, descriptors: NDArray[np.uint8], probes: IntArray, top: int, allowed: Mask | None
    ) -> tuple[FloatArray, IntArray]:
        """Descriptors (q, 128) -> inner products and rows, both (q, top), best first; row -1 where there are fewer.

        Only points whose word is among a descriptor's `probes` (q, p) are found, and only rows with True in `allowed` (n,);
        None allows all.
        """
        ...


MakePointIndex = Callable[[Sequence[Points]], PointIndex]  # of the points of one or more examples, in their order


class NumpyPointIndex:
    """By one matrix product: the oracle of the others."""

    def __init__(self, points: Sequence[Points]) -> None:
        self._rows = np.concatenate([each.descriptors for each in points]).astype(np.float32)
        self._words = np.concatenate([each.words for each in points])

    def search(
        self, descriptors: NDArray[np.uint8], probes: IntArray, top: int, allowed: Mask | None
    ) -> tuple[FloatArray, IntArray]:
        products = descriptors.astype(np.float32) @ self._rows.T  # exact: sums of products of bytes stay under 2**24
        products[~(probes[:, :, None] == self._words).any(axis=1)] = -np.inf
        if allowed is not None:
            products[:, ~allowed] = -np.inf
        products = np.pad(products, ((0, 0), (0, max(0, top - len(self._rows)))), constant_values=-np.inf)
        rows = np.argsort(-products, axis=1, kind="stable")[:, :top]
        best = np.take_along_axis(products, rows, axis=1)
        return best, np.where(np.isneginf(best), -1, rows)


class CodeBook:
    """The words of a model set: centroids of descriptors. Where a point lies in an index is decided by its nearest word."""

    def __init__(self, words: NDArray[np.uint8]) -> None:
        """`words` (w, 128)."""
        self._words = words.astype(np.float32)
        squares = np.square(self._words).sum(axis=1)  # (w,)
        self._half_squares = 0.5 * squares
        # A centroid is shorter than what it is the centre of.
        self._stretch = (LENGTH_SQUARED / np.maximum(squares, 1)) ** 0.5

    def word_of(self, descriptors: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """The nearest word of each descriptor (n, 128), by Euclidean distance."""
        return np.asarray((self._products(descriptors) - self._half_squares).argmax(axis=1), np.uint16)

    def nearest(self, descriptors: NDArray[np.uint8], count: int) -> tuple[IntArray, FloatArray]:
        """The `count` nearest words of each descriptor, and the inner products with them were they as long as it: (n, count).

        Fewer where there are fewer words.
        """
        products = self._products(descriptors)
        # |w|^2 / 2 - w.d is least for the nearest. All of it is exact in float32, whatever the order of sums.
        distances = self._half_squares - products
        count = min(count, distances.shape[1])
        words = np.argpartition(distances, count - 1, axis=1)[:, :count]
        return words, np.take_along_axis(products, words, axis=1) * self._stretch[words]

    def _products(self, descriptors: NDArray[np.uint8]) -> FloatArray:
        return np.asarray(descriptors.astype(np.float32) @ self._words.T)  # (n, w)


@dataclass(frozen=True, slots=True)
class Printed:
    """An example with points, and the class that it stands for."""

    class_name: str
    example: Example


@dataclass(frozen=True, eq=False)
class Part:
    """Examples that were laid out together; later changes only take from `alive`."""

    printed: tuple[Printed, ...]
    positions: Mapping[str, Sequence[int]]  # in `printed`, by class
    owners: IntArray  # (rows,) position in `printed` of each row of the index
    index: PointIndex
    alive: Mask  # (len(printed),)

    @classmethod
    def of(cls, printed: Sequence[Printed], make_index: MakePointIndex) -> Part:
        points = [one.example.points for one in printed]
        positions: dict[str, list[int]] = {}
        for position, one in enumerate(printed):
            positions.setdefault(one.class_name, []).append(position)
        owners = np.repeat(np.arange(len(points)), [len(each) for each in points])
        return cls(tuple(printed), positions, owners, make_index(points), np.ones(len(points), np.bool_))

    @property
    def size(self) -> int:
        return int(np.count_nonzero(self.alive))

    def living(self, class_name: str | None = None) -> list[Printed]:
        positions = range(len(self.printed)) if class_name is None else self.positions.get(class_name, ())
        return [self.printed[position] for position in positions if self.alive[position]]

    def without(self, class_name: str, example_id: str | None = None) -> Part:
        """Less one example of a class, or all of them."""
        gone = [
            position
            for position in self.positions.get(class_name, ())
            if example_id is None or self.printed[position].example.id == example_id
        ]
        if not gone:
            return self
        alive = self.alive.copy()
        alive[gone] = False
        return replace(self, alive=alive)

    def allowed(self, among: frozenset[str] | None) -> Mask:
        """(len(printed),) examples that may be found."""
        if among is None:
            return self.alive
        chosen = np.zeros(len(self.printed), np.bool_)
        chosen[[position for name in among for position in self.positions.get(name, ())]] = True
        return np.asarray(chosen & self.alive)


@dataclass(frozen=True, slots=True)
class Vote:
    """An example that the points of a picture speak for."""

    printed: Printed
    weight: float  # of the points for this example
    share: float  # of the votes of all points, those for its class; 0 to 1


@dataclass(frozen=True, eq=False)
class Prints:
    """One version of the points of a collection. Made by `from_snapshot`, and from then on by `fold`."""

    provenance: str  # `Provenance.points` of the points in it; others are left out, as they cannot be compared
    code_book: CodeBook
    make_index: MakePointIndex
    parts: tuple[Part, ...] = ()

    def from_snapshot(self, snapshot: Snapshot) -> Prints:
        """With these classes and no others."""
        return replace(self, parts=self._laid_out(_printed_of(snapshot.classes, self.provenance)))

    def fold(self, *changes: Committed) -> Prints:
        """After these changes. What they mean for a class as a whole, `changes.fold_change` says."""
        prints = self
        for committed in changes:
            prints = prints._folded(committed.change)
        return prints

    def _folded(self, change: Change) -> Prints:
        name = change.class_name
        match change:
            case ExamplesAdded():
                return self._with(self._comparable(name, change.examples, change.model))
            case ExampleRemoved():
                return self._without(name, change.example_id)
            case ClassRefitted():
                return self._without(name)._with(self._comparable(name, change.examples, change.model))
            case ClassRestored():
                return self._with(self._comparable(name, change.examples, change.model) if change.model else [])
            case ClassRenamed():
                renamed = [Printed(change.new_name, one.example) for part in self.parts for one in part.living(name)]
                return self._without(name)._with(renamed)
            case ClassRemoved():
                return self._without(name)
            case ClassConfigured():
                return self

    def _comparable(self, name: str, examples: Iterable[Example], model: ClassModel) -> list[Printed]:
        if model.provenance.points != self.provenance:
            return []
        return [Printed(name, example) for example in examples if len(example.points)]

    def _without(self, class_name: str, example_id: str | None = None) -> Prints:
        parts = (part.without(class_name, example_id) for part in self.parts)
        return replace(self, parts=tuple(part for part in parts if part.size))

    def _with(self, printed: list[Printed]) -> Prints:
        if not printed:
            return self
        parts = (*self.parts, Part.of(printed, self.make_index))
        # What is large waits for the background; until then the small parts after it are kept few.
        small = next(place for place in range(len(parts) + 1) if sum(part.size for part in parts[place:]) <= MERGED_AT_ONCE)
        return replace(self, parts=parts)._merged(small + _unsettled(parts[small:]))

    @property
    def needs_compaction(self) -> bool:
        return _unsettled(self.parts) < len(self.parts) - 1

    def compacted(self) -> Prints:
        """The same examples in fewer parts. Takes time in proportion to those that are laid out again."""
        return self._merged(_unsettled(self.parts))

    def _merged(self, start: int) -> Prints:
        if start >= len(self.parts) - 1:
            return self
        living = [one for part in self.parts[start:] for one in part.living()]
        return replace(self, parts=self.parts[:start] + self._laid_out(living))

    def _laid_out(self, printed: Sequence[Printed]) -> tuple[Part, ...]:
        return (Part.of(printed, self.make_index),) if printed else ()

    def vote(self, points: Points, top: int, among: frozenset[str] | None = None) -> list[Vote]:
        """The `top` examples that the points of a picture speak for most, two of a class at most; only classes in `among`."""
        allowed = [part.allowed(among) for part in self.parts]
        if not len(points) or not any(mask.any() for mask in allowed):
            return []
        products, owners = self._neighbours(points, allowed)
        voted, owners = np.unique(owners, return_inverse=True)
        printed = self._printed_at(voted.tolist())
        classes = _numbered([one.class_name if one else None for one in printed])
        by_class = np.bincount(classes[owners].ravel(), weights_of(products, classes[owners]).ravel())
        by_example = np.bincount(owners.ravel(), weights_of(products, owners).ravel())
        total = max(float(by_class.sum()), 1e-9)
        votes = [
            Vote(one, weight, float(by_class[number]) / total)
            for one, number, weight in zip(printed, classes.tolist(), by_example.tolist(), strict=True)
            if one is not None and weight > 0
        ]
        return _few_of_each_class(votes, top)

    def _printed_at(self, owners: Sequence[int]) -> list[Printed | None]:
        """Examples as they are counted through all parts; None past the last."""
        firsts = [0, *np.cumsum([len(part.printed) for part in self.parts]).tolist()]
        found: list[Printed | None] = []
        for owner in owners:
            part = bisect_right(firsts, owner) - 1
            found.append(self.parts[part].printed[owner - firsts[part]] if part < len(self.parts) else None)
        return found

    def _neighbours(self, points: Points, allowed: Sequence[Mask]) -> tuple[FloatArray, IntArray]:
        """The nearest points of all parts: inner products and the examples they belong to, both (q, NEIGHBOURS), best first.

        Examples are counted through all parts. The nearest words stand among them as points of nobody, so that in a gallery of
        a few classes what is near to none of them speaks for none of them.
        """
        words, nearness = self.code_book.nearest(points.descriptors, PROBES)
        products, owners, first = [], [], 0
        for part, mask in zip(self.parts, allowed, strict=True):
            if mask.any():
                rows_allowed = None if mask.all() else mask[part.owners]
                found, rows = part.index.search(points.descriptors, words, NEIGHBOURS, rows_allowed)
                products.append(np.where(rows >= 0, found, 0))
                owners.append(first + part.owners[rows])
            first += len(part.printed)
        products.append(nearness)
        owners.append(np.broadcast_to(first + np.arange(words.shape[1]), words.shape))
        product, owner = np.concatenate(products, axis=1), np.concatenate(owners, axis=1)
        best = np.argsort(-product, axis=1, kind="stable")[:, :NEIGHBOURS]
        return np.take_along_axis(product, best, axis=1), np.take_along_axis(owner, best, axis=1)


def weights_of(products: FloatArray, owners: IntArray) -> NDArray[np.float64]:
    """What each neighbour adds to its owner, (q, k): the square of how much nearer it is than the last one, and nothing where a
    nearer neighbour of the same point belongs to the same owner already."""
    similarities = products.astype(np.float64) / LENGTH_SQUARED
    last = similarities[:, -1:]
    weights = np.clip((similarities - last) / np.maximum(1 - last, 1e-6), 0, 1) ** 2
    repeated = np.tril(owners[:, :, None] == owners[:, None, :], -1).any(axis=2)
    return np.where(repeated, 0.0, weights)


def _numbered(names: Iterable[str | None]) -> IntArray:
    """The same number for the same name, and one of its own for each None."""
    numbers: dict[str | int, int] = {}
    return np.array([numbers.setdefault(-place if name is None else name, len(numbers)) for place, name in enumerate(names)])


def _few_of_each_class(votes: Iterable[Vote], top: int) -> list[Vote]:
    kept: list[Vote] = []
    counts: Counter[str] = Counter()
    for vote in sorted(votes, key=lambda vote: (-vote.weight, vote.printed.class_name, vote.printed.example.id)):
        counts[vote.printed.class_name] += 1
        if counts[vote.printed.class_name] <= EXAMPLES_OF_A_CLASS:
            kept.append(vote)
    return kept[:top]


def _printed_of(classes: Iterable[ClassState], provenance: str) -> list[Printed]:
    return [
        Printed(state.name, example)
        for state in classes
        if state.model is not None and state.model.provenance.points == provenance
        for example in state.examples
        if len(example.points)
    ]


def _unsettled(parts: Sequence[Part]) -> int:
    """Position of the first part that is not `GROWTH` times as large as all that come after it; the last one always is."""
    after, first = 0, max(0, len(parts) - 1)
    for position in range(len(parts) - 1, -1, -1):
        size = parts[position].size
        if size < GROWTH * after:
            first = position
        after += size
    return first

"""All class models of one collection, laid out to be searched: immutable, so that a request sees one version from start to end.

A gallery is a large frozen block, a small tail of the classes changed since the block was made, and a mask over the rows of the
block that are no longer true. A change makes the next gallery by copying the tail and the mask, never the block, so that it
costs the same among ten classes and among ten thousand. `compacted` merges the tail into a new block, in the background.

The block may be searched by any index (FAISS in the service), the tail is searched here. An index only proposes classes: the
similarities that leave this module come from `similarity_of`, so that they do not depend on where a class happens to lie, and
answers after a restart are equal bit by bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import merge
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from app.domain.changes import Committed, Snapshot, fold_change
from app.domain.posterior import Known, similarities_to
from app.domain.values import ClassState, FloatArray

Mask = NDArray[np.bool_]
Search = Callable[[FloatArray, int, Mask | None], tuple[FloatArray, NDArray[np.int64]]]  # `search` of any index

# Entries of the tail that make a merge worthwhile. A class gone from the block has one too, so this bounds dead rows as well.
COMPACT_AT = 256
# Two similarities nearer than this may come out of an index in either order. Half precision errs by 2**-11 of a product of unit
# vectors, adding it up in single precision by d * 2**-24, less than 2**-14; and two similarities may err in opposite directions.
ROUNDING = 2 * (2**-11 + 2**-14)
DECIMALS = 6  # of a similarity; far above the error of double precision, far below what a person compares


def similarity_of(query: FloatArray, vectors: FloatArray) -> float:
    """Highest similarity of a query (d,) to any of the vectors (r, d), all of unit length."""
    return similarities_of(query, [vectors])[0]


def similarities_of(query: FloatArray, classes: Sequence[FloatArray]) -> list[float]:
    """`similarity_of` for each of one or more classes, together: for a hundred of them in an eighth of the time.

    Products of two float32 are exact in float64, and numpy adds up a row in an order that only its length decides, unlike a BLAS.
    """
    vectors = np.ascontiguousarray(np.concatenate(classes, dtype=np.float64))  # (n, d), the numbers of a row side by side
    sims = (vectors * query.astype(np.float64)).sum(axis=1)  # (n,)
    first = np.cumsum([0, *map(len, classes[:-1])])  # row of each class
    return [round(sim, DECIMALS) for sim in np.maximum.reduceat(sims, first).tolist()]


class NumpyIndex:
    """Exact search over rows (n, d) by one matrix product: for the tail, and the oracle of every other index."""

    def __init__(self, rows: FloatArray) -> None:
        self._rows = rows

    def search(self, queries: FloatArray, top: int, allowed: Mask | None) -> tuple[FloatArray, NDArray[np.int64]]:
        similarities = queries @ self._rows.T  # (q, n)
        if allowed is not None:
            similarities[:, ~allowed] = -np.inf
        missing = max(0, top - len(self._rows))
        similarities = np.pad(similarities, ((0, 0), (0, missing)), constant_values=-np.inf)
        rows = np.argsort(-similarities, axis=1, kind="stable")[:, :top]
        best = np.take_along_axis(similarities, rows, axis=1)
        return best, np.where(np.isneginf(best), -1, rows)


class Block:
    """Classes in the order of their names, their representatives in consecutive rows.

    Only class models made by `networks` have rows, so that vectors of two model sets never meet in one index. `known` are those
    that `detector` has seen examples of too, in its space; None when there is no such class.
    """

    def __init__(self, classes: Iterable[ClassState], networks: str, detector: str) -> None:
        """`classes` come sorted by name, each name once."""
        self.classes: dict[str, ClassState] = {state.name: state for state in classes}
        self.names = tuple(self.classes)
        self._searchable = _searchable(self.classes.values(), networks)
        self.known = _known(self._searchable, detector)
        counts = [len(vectors) for _, vectors in self._searchable]
        self._most_rows = max(counts, default=0)  # of one class
        self._owners = np.repeat(np.arange(len(counts)), counts)  # (n,) position in _searchable of the class of each row
        ends = np.cumsum(counts, dtype=np.int64).tolist()
        self._rows = {
            state.name: slice(end - count, end) for (state, _), count, end in zip(self._searchable, counts, ends, strict=True)
        }

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self._owners)

    def representatives(self) -> FloatArray:
        """All rows (n, d) as one matrix, made anew: an index keeps its own copy, so the block keeps none."""
        if not self._searchable:
            return np.empty((0, 0), np.float32)
        return np.concatenate([vectors for _, vectors in self._searchable])

    @cached_property
    def search(self) -> Search:
        return NumpyIndex(self.representatives()).search

    def mask_of(self, names: Iterable[str]) -> Mask:
        """(n,) true on the rows of these classes; a name without rows counts for nothing."""
        mask = np.zeros(self.size, np.bool_)
        for name in names:
            mask[self._rows.get(name, slice(0))] = True
        return mask

    def nearest(self, query: FloatArray, top: int, allowed: Mask, search: Search) -> list[ClassState]:
        """The `top` classes nearest to a query (d,), together with all that rounding could have put behind the last of them."""
        reachable = int(np.count_nonzero(allowed))
        mask = None if reachable == self.size else allowed
        wanted = min(top * self._most_rows, reachable)  # rows enough for `top` classes, however they are spread
        while wanted:
            similarities, rows = (found[0] for found in search(query[np.newaxis], wanted, mask))
            owners, first = np.unique(self._owners[rows], return_index=True)
            best = similarities[first]  # of each class found
            line = np.sort(best)[-min(top, len(best))] - ROUNDING
            if wanted == reachable or similarities[-1] < line:
                return [self._searchable[owner][0] for owner in owners[best >= line]]
            wanted = min(4 * wanted, reachable)  # a crowd of near equals: look further down
        return []


def _searchable(classes: Iterable[ClassState], networks: str) -> list[tuple[ClassState, FloatArray]]:
    """Classes with their representatives, of those that `networks` made."""
    return [
        (state, state.model.representatives)
        for state in classes
        if state.model is not None and state.model.provenance.networks == networks
    ]


def _known(searchable: Iterable[tuple[ClassState, FloatArray]], detector: str) -> Known | None:
    """Classes in the space of a detector, of those that it has seen examples of."""
    seen = [(state.name, regions) for state, _ in searchable if (regions := _regions_of(state, detector)) is not None]
    return Known.of(seen) if seen else None


def _regions_of(state: ClassState, detector: str) -> FloatArray | None:
    """Representatives (r, e) in the space of a detector, of unit length; None when it has seen no example of the class."""
    if state.model is None or not _is_known(state, detector):
        return None
    regions = state.model.regions.astype(np.float32)
    return np.asarray(regions / np.linalg.norm(regions, axis=1, keepdims=True))


def _is_known(state: ClassState, detector: str) -> bool:
    if not detector or state.model is None:
        return False
    return state.model.provenance.detector == detector and len(state.model.regions) > 0


@dataclass(frozen=True, eq=False)
class Gallery:
    """One version of a collection. Made by `empty` or `from_snapshot`, and from then on by `fold`."""

    version: int
    networks: str  # SHA-256 of the networks whose vectors are searched; classes of others are listed but never answer
    detector: str  # and of the detector in whose space things are looked for in scenes; empty: there is none
    block: Block
    tail: Mapping[str, ClassState | None]  # classes changed since the block was made; None: removed
    valid: Mask  # (n,) rows of the block that still hold

    @classmethod
    def empty(cls, networks: str, detector: str = "") -> Gallery:
        return cls.from_snapshot(Snapshot(0, ()), networks, detector)

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot, networks: str, detector: str = "") -> Gallery:
        block = Block(snapshot.classes, networks, detector)
        return cls(snapshot.version, networks, detector, block, {}, np.ones(block.size, np.bool_))

    def __len__(self) -> int:
        added = sum((state is not None) - (name in self.block.classes) for name, state in self.tail.items())
        return len(self.block.classes) + added

    def get(self, name: str) -> ClassState | None:
        return self.tail[name] if name in self.tail else self.block.classes.get(name)

    def __getitem__(self, name: str) -> ClassState:
        """KeyError for a class that is not there."""
        state = self.get(name)
        if state is None:
            raise KeyError(name)
        return state

    def names(self, after: str = "", limit: int | None = None) -> list[str]:
        """Names in order, the first `limit` past `after`; costs the length of the answer and of the tail."""
        frozen = self.block.names
        following = (frozen[position] for position in range(bisect_right(frozen, after), len(frozen)))
        unchanged = (name for name in following if name not in self.tail)
        changed = sorted(name for name, state in self.tail.items() if state is not None and name > after)
        return list(islice(merge(unchanged, changed), limit))

    def fold(self, *changes: Committed) -> Gallery:
        """The gallery after these changes, which must continue its version without a gap."""
        version, tail, stale = self.version, dict(self.tail), []
        for committed in changes:
            if committed.version != version + 1:
                raise ValueError(f"change {committed.version} does not follow version {version}")
            version, name = committed.version, committed.change.class_name
            state = fold_change(tail[name] if name in tail else self.block.classes.get(name), committed)
            tail[name] = None
            if state is not None:
                tail[state.name] = state  # another name after a rename
            stale.append(name)
        return replace(self, version=version, tail=tail, valid=self.valid & ~self.block.mask_of(stale))

    @property
    def needs_compaction(self) -> bool:
        return len(self.tail) >= COMPACT_AT

    def compacted(self) -> Gallery:
        """The same classes in one new block. Takes time in proportion to all of them."""
        return Gallery.from_snapshot(self.snapshot(), self.networks, self.detector)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.version, tuple(state for name in self.names() if (state := self.get(name)) is not None))

    def best_classes(
        self, query: FloatArray, top: int, among: frozenset[str] | None = None, search: Search | None = None
    ) -> list[tuple[ClassState, float]]:
        """The `top` classes most similar to a query (d,), best first, equals by name; fewer where there are fewer.

        The similarity of a class is the highest over its representatives. `among` limits the search to these names. `search`
        is that of an index made of `block.representatives()`; without one, numpy does it.
        """
        valid = self.valid if among is None else self.valid & self.block.mask_of(among)
        recent = self._tail_block.mask_of(self.tail if among is None else among)
        shortlist = [
            *self.block.nearest(query, top, valid, search or self.block.search),
            *self._tail_block.nearest(query, top, recent, self._tail_block.search),
        ]
        if not shortlist:
            return []
        sims = similarities_of(query, [state.model.representatives for state in shortlist if state.model is not None])
        return sorted(zip(shortlist, sims, strict=True), key=lambda pair: (-pair[1], pair[0].name))[:top]

    def similarities_to(self, query: FloatArray, names: Iterable[str]) -> list[tuple[ClassState, float]]:
        """Of these classes to a query (d,), by name; less those that never answer."""
        states = [self[name] for name in sorted(names)]
        found = _searchable(states, self.networks)
        if not found:
            return []
        sims = similarities_of(query, [vectors for _, vectors in found])
        return [(state, sim) for (state, _), sim in zip(found, sims, strict=True)]

    @property
    def knows_regions(self) -> bool:
        """Whether there is a class, or was when the block was made, that the detector can find in a scene. Costs little."""
        return self.block.known is not None or any(
            state is not None and _is_known(state, self.detector) for state in self.tail.values()
        )

    def region_similarities(
        self, embeddings: FloatArray, among: frozenset[str] | None = None
    ) -> tuple[tuple[str, ...], FloatArray]:
        """Regions of a scene (m, e) -> classes that the detector knows, and similarities (m, classes) to each.

        A few products for the block and for the tail, however many classes there are. -inf for a class that the tail has anew,
        or that is not `among` those asked about. They propose classes; similarities that decide come from `similarities_at`.
        """
        names, parts = [], []
        for block, gone in ((self.block, self.tail), (self._tail_block, ())):
            if (known := block.known) is not None:
                similarities = similarities_to(known, embeddings)
                similarities[:, ~_asked(known, gone, among)] = -np.inf
                names.append(known.class_names)
                parts.append(similarities)
        if not parts:
            return (), np.empty((len(embeddings), 0), np.float32)
        return tuple(chain(*names)), np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def similarities_at(self, embedding: FloatArray, names: Iterable[str]) -> dict[str, float]:
        """Of a region (e,) to those of these classes that the detector knows."""
        states = [self[name] for name in names]
        known = {state.name: regions for state in states if (regions := _regions_of(state, self.detector)) is not None}
        return dict(zip(known, similarities_of(embedding, list(known.values())), strict=True)) if known else {}

    @cached_property
    def _tail_block(self) -> Block:
        # Laid out at the first search, not at each fold: a follower that catches up folds many and searches none.
        changed = sorted((state for state in self.tail.values() if state is not None), key=lambda state: state.name)
        return Block(changed, self.networks, self.detector)


def _asked(known: Known, gone: Iterable[str], among: frozenset[str] | None) -> Mask:
    """(classes,) those that may be found."""
    asked = np.full(len(known.class_names), among is None)
    asked[known.numbers_of(among or ())] = True
    asked[known.numbers_of(gone)] = False
    return asked

"""Keeps the gallery up with the store: the store's changes -> the next gallery -> swap. The only place that swaps.

A request takes `current` once and answers from it alone. Readers never wait: taking the reference needs no lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock

from app.domain.changes import Committed, Position
from app.domain.gallery import Gallery
from app.domain.prints import Prints
from app.domain.values import ClassState, FloatArray
from app.errors import LogTrimmed
from app.service.ports import Index, Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """A gallery, the index made of its block, the points of its examples: all of one version, so they are swapped together."""

    gallery: Gallery
    index: Index
    prints: Prints
    epoch: int = 0  # of the log that the gallery is folded from

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.gallery.version)

    def fold(self, *changes: Committed) -> Served:
        return Served(self.gallery.fold(*changes), self.index, self.prints.fold(*changes), self.epoch)

    @property
    def needs_compaction(self) -> bool:
        return self.gallery.needs_compaction or self.prints.needs_compaction

    def best_classes(self, query: FloatArray, top: int, among: frozenset[str] | None = None) -> list[tuple[ClassState, float]]:
        return self.gallery.best_classes(query, top, among, self.index.search)


class Galleries:
    """The one reference to what is served now, and what moves it on.

    `make_index` is given all representatives of a block (n, d), n may be 0. `in_background` runs a job later on another thread,
    such as an executor's `submit`. `networks` are those whose vectors are searched: `Provenance.networks` of the model set.
    `prints` are those of no class yet. `detector` is the one in whose space things are looked for: `Provenance.detector`.
    """

    def __init__(
        self,
        store: Store,
        *,
        make_index: Callable[[FloatArray], Index],
        networks: str,
        prints: Prints,
        detector: str = "",
        in_background: Callable[[Callable[[], None]], object],
    ) -> None:
        self._store = store
        self._make_index = make_index
        self._in_background = in_background
        self._advancing = Lock()  # held while the reference moves: two movers could otherwise go back to an older version
        self._compacting = False
        self._behind = False  # something is committed that could not be followed, and nobody is trying again
        empty = Gallery.empty(networks, detector)
        self._current = Served(empty, make_index(empty.block.representatives()), prints)

    @property
    def current(self) -> Served:
        if self._behind:
            self._behind = False
            self._in_background(self._catch_up)
        return self._current

    def start(self) -> Served:
        """Reads the store whole."""
        with self._advancing:
            self._current = self._reread()
            return self._current

    def advance(self) -> Served:
        """Follows the store to its end. What was committed before the call is in what comes back, and in `current`."""
        return self._move(self._followed)

    def check_store(self) -> None:
        """StoreTooWeak while what is acknowledged could be lost."""
        self._store.check()

    def keep_snapshot(self) -> None:
        """Offers the store what is served, for faster starts. In the background, since it may take as long as a start."""
        self._in_background(self._keep_snapshot)

    def _keep_snapshot(self) -> None:
        served = self._current
        try:
            self._store.keep_snapshot(served.gallery.version, lambda: replace(served.gallery.snapshot(), epoch=served.epoch))
        except Exception:
            logger.exception("a snapshot for faster starts could not be kept")  # the next one will do

    def take(self, committed: Committed) -> None:
        """Serves what this process has just committed. Never fails: it is durable, and its caller must not hear otherwise.

        Where others have committed in between and the store cannot be followed, the next look at `current` has it tried again.
        """

        def taken(served: Served) -> Served:
            if committed.version != served.gallery.version + 1:
                return self._followed(served)
            return served.fold(committed)

        try:
            self._move(taken)
        except Exception:
            logger.exception("change %d is committed and not served yet", committed.version)
            self._behind = True

    def _move(self, next_of: Callable[[Served], Served]) -> Served:
        with self._advancing:
            served = self._current = next_of(self._current)
            due = served.needs_compaction and not self._compacting
            self._compacting = self._compacting or due
        if due:
            self._in_background(self._compact)
        return served

    def _catch_up(self) -> None:
        try:
            self.advance()
        except Exception:
            logger.exception("the store could not be followed")
            self._behind = True

    def _serve(self, gallery: Gallery, prints: Prints, epoch: int) -> Served:
        return Served(gallery, self._make_index(gallery.block.representatives()), prints, epoch)

    def _reread(self) -> Served:
        snapshot, before = self._store.snapshot(), self._current
        gallery = Gallery.from_snapshot(snapshot, before.gallery.networks, before.gallery.detector)
        return self._serve(gallery, before.prints.from_snapshot(snapshot), snapshot.epoch)

    def _followed(self, served: Served) -> Served:
        try:
            while changes := self._store.follow(served.gallery.version, epoch=served.epoch):
                served = served.fold(*changes)
        except LogTrimmed:
            return self._reread()
        return served

    def _compacted(self, served: Served) -> Served:
        prints = served.prints.compacted()
        if served.gallery.needs_compaction:
            return self._serve(served.gallery.compacted(), prints, served.epoch)
        return Served(served.gallery, served.index, prints, served.epoch)

    def _compact(self) -> None:
        # The long part runs without the lock; what is committed meanwhile is folded onto the new block before it is served.
        try:
            compacted = self._compacted(self._current)
            with self._advancing:
                self._current = self._followed(compacted)  # or read whole, if the log was replaced meanwhile
        except Exception:
            # Nobody waits for this thread. The old block still answers, and the next commit tries again.
            logger.exception("compaction of the gallery failed")
        finally:
            self._compacting = False

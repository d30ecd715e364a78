"""Keeps a collection up with a store that others write to: a look at the log every few milliseconds, on a thread of its own.

While the store is away, what is served stays as it was. How long that has been, requests can ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread

from app.errors import FirstsightError, StoreTooWeak, StoreUnavailable
from app.logs import logger
from app.service.follow import Galleries

log = logger(__name__)

STALE_AFTER_S = 1.0  # without a look that went well; in a second every replica has seen what another has committed
CHECK_EVERY_S = 2.0  # between looks at what the store is set to, which somebody may change while it runs
OFFER_EVERY_S = 5.0  # between offers of a snapshot, of which the store takes few


class Replica:
    def __init__(self, galleries: Galleries, *, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._galleries = galleries
        self._every_s = every_s
        self._clock = clock
        self._looked_at = clock()  # when the last look began that went well
        self._check_at = self._offer_at = clock()
        self._refused: str | None = None
        self._away = False
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="replica", daemon=True)

    @property
    def stale_s(self) -> int | None:
        """Whole seconds for which nothing was heard of the store; None when it was lately."""
        silent_s = self._clock() - self._looked_at
        return int(silent_s) if silent_s >= STALE_AFTER_S else None

    @property
    def refused(self) -> str | None:
        """Why the store may not be written to, though it answers; None when it may."""
        return self._refused

    def start(self) -> None:
        self._looked_at = self._clock()
        self._thread.start()

    def look(self) -> None:
        """Follows the store to its end. Never fails: there is another look."""
        began = self._clock()
        try:
            self._galleries.advance()
            self._check()
            self._offer_snapshot()
        except FirstsightError as error:
            self._tell(error)
            return
        self._looked_at = began
        if self._away:
            log.info("store is back")
        self._away = False

    def close(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.look()
            except Exception:
                log.exception("the store could not be followed")

    def _check(self) -> None:
        if self._clock() < self._check_at:
            return
        self._check_at = self._clock() + CHECK_EVERY_S
        try:
            self._galleries.check_store()
        except StoreTooWeak as error:
            if self._refused != error.detail:
                log.error("store is too weak to be written to", detail=error.detail)
            self._refused = error.detail
            return
        if self._refused:
            log.info("store may be written to again")
        self._refused = None

    def _offer_snapshot(self) -> None:
        if self._clock() >= self._offer_at:
            self._offer_at = self._clock() + OFFER_EVERY_S
            self._galleries.keep_snapshot()

    def _tell(self, error: FirstsightError) -> None:
        """Once an outage, or the log would fill with it."""
        if not self._away:
            level = log.warning if isinstance(error, StoreUnavailable) else log.error
            level("store cannot be followed", detail=error.detail)
        self._away = True

"""Whether the service can answer and be written to, and what it waits for if not."""

from __future__ import annotations

from collections.abc import Callable

from app import metrics


class Readiness:
    def __init__(self) -> None:
        self._starting_for: str | None = "the start"
        self._refused: Callable[[], str | None] = lambda: None
        metrics.watch_readiness(lambda: self.waiting_for is None)

    @property
    def starting_for(self) -> str | None:
        """What the start waits for; None when it is over, and requests are answered."""
        return self._starting_for

    @property
    def waiting_for(self) -> str | None:
        """None when the service is ready."""
        return self._starting_for or self._refused()

    def wait_for(self, what: str) -> None:
        self._starting_for = what

    def is_ready(self, *, unless: Callable[[], str | None] = lambda: None) -> None:
        """The start is over; from now on `unless` says what makes it unready, if anything does."""
        self._starting_for = None
        self._refused = unless

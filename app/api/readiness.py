"""Whether the service can answer, and what it waits for if not."""

from __future__ import annotations

from app import metrics


class Readiness:
    def __init__(self) -> None:
        self._waiting_for: str | None = "the start"

    @property
    def waiting_for(self) -> str | None:
        """None when the service is ready."""
        return self._waiting_for

    def wait_for(self, what: str) -> None:
        self._waiting_for = what
        metrics.set_ready(False)

    def is_ready(self) -> None:
        self._waiting_for = None
        metrics.set_ready(True)

"""A line for every write, done or refused: when, who, from where, what, and what came of it.

It goes to the log, which names no class, and with it to a file, where there is one, for those who may know.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from app.api.auth import Key
from app.api.idempotency import Write
from app.errors import InvalidSettings, LimitReached
from app.logs import logger

log = logger(__name__)


class Audit:
    def __init__(self, file: Path | None = None) -> None:
        """InvalidSettings when nothing can be written to the file."""
        self._file = file
        if file is not None:
            try:
                _append(file, b"")
            except OSError as error:
                raise InvalidSettings([f"FIRSTSIGHT_AUDIT_FILE={file} cannot be written: {error.strerror}"]) from None

    def note(self, scope: Mapping[str, Any], *, request_id: str, status: int | None) -> None:
        """For every request when it is over, of which most are no writes. `status` is None when the client has left."""
        state = scope.get("state", {})
        outcome = _outcome(state, status)
        if outcome is None:
            return
        key: Key | None = state.get("key")
        line = {
            "request_id": request_id,
            "key": key.id if key else None,
            "collection": key.collection if key else None,
            "address": scope["client"][0] if scope.get("client") else None,
            "operation": scope["route"].name,
            "outcome": outcome,
            "status": status,
            "version": state.get("version"),
        }
        log.info("write", **line)
        if self._file is not None:
            parameters = scope["path_params"]
            # As it was sent: what was refused may be no class name at all.
            named = {"class": unquote(parameters["name"], errors="replace"), "example": parameters.get("id")}
            record = {"timestamp": datetime.now(UTC).isoformat(), **line, **named}
            try:
                _append(self._file, json.dumps(record, ensure_ascii=False).encode() + b"\n")
            except OSError as error:  # what is committed is committed; the line is in the log
                log.error("audit file cannot be written", detail=str(error))


def _outcome(state: Mapping[str, Any], status: int | None) -> str | None:
    """None for what is no write, stored nothing, or was put off: what is refused for want of room or time is in the metrics."""
    write: Write | None = state.get("write")
    if status is None:
        return "unanswered" if write and write.stored else None  # committed, perhaps, and the client did not stay to hear of it
    if not state.get("writes") or isinstance(state.get("error"), LimitReached):
        return None
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "failed"
    if status >= HTTPStatus.BAD_REQUEST:
        return "refused"
    if state.get("replayed"):
        return "replayed"
    return "done" if write and write.stored else None


def _append(file: Path, data: bytes) -> None:
    """In one piece, and opened each time, so that whoever rotates the file need not tell us."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)

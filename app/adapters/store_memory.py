"""The store that keeps everything in this process and nothing on disk: for tests, and for trying the service out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock

from app.domain.changes import (
    RECEIPTS_KEPT_S,
    Change,
    ClassRemoved,
    ClassRenamed,
    Committed,
    ExampleRemoved,
    Receipt,
    Snapshot,
    fold_expected,
)
from app.domain.values import ClassState
from app.errors import KeyInProgress, LogTrimmed, NameTaken


class MemoryStore:
    def __init__(self, *, keep_changes: int = 10_000, epoch: int = 0, now: Callable[[], float] = time.time) -> None:
        """Followers may fall `keep_changes` behind before they must read a snapshot. What was forgotten with
        the last process had an earlier `epoch`. `now` in seconds since 1970."""
        self._now = now
        self._epoch = epoch
        self._receipts: dict[str, tuple[float, Receipt]] = {}  # by key, oldest first, with the time at which it goes
        self._lock = Lock()
        self._version = 0
        self._classes: dict[str, ClassState] = {}
        self._crops: dict[str, dict[str, bytes]] = {}  # by class, then by example
        self._log: deque[Committed] = deque(maxlen=keep_changes)  # by count alone: its arrays are those of the classes

    def check(self) -> None:
        pass  # that it forgets is what it is for

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes], receipt: Receipt | None = None) -> int:
        with self._lock:
            if receipt is not None and self._receipt_of(receipt.key):
                raise KeyInProgress
            committed = Committed(self._version + 1, change)
            state = fold_expected(self._classes.get(change.class_name), committed, expected=expected)
            if isinstance(change, ClassRenamed) and change.new_name != change.class_name and change.new_name in self._classes:
                raise NameTaken(change.new_name)
            self._replace(change.class_name, state)
            self._keep_crops(change, crops)
            self._log.append(committed)
            self._version = committed.version
            if receipt is not None:
                until = self._now() + RECEIPTS_KEPT_S
                self._receipts[receipt.key] = (until, replace(receipt, version=committed.version))
            return committed.version

    def snapshot(self) -> Snapshot:
        with self._lock:
            return Snapshot(self._version, tuple(self._classes[name] for name in sorted(self._classes)), self._epoch)

    def follow(self, after: int, *, epoch: int | None = None, limit: int = 1000) -> Sequence[Committed]:
        with self._lock:
            missed = self._version - after
            if missed > len(self._log) or epoch not in (None, self._epoch):
                raise LogTrimmed(f"The log reaches back {len(self._log)} changes, not {missed}.", limit=self._log.maxlen)
            first = len(self._log) - missed
            return [self._log[position] for position in range(first, min(first + limit, len(self._log)))]

    def read_crop(self, class_name: str, example_id: str) -> bytes | None:
        with self._lock:
            return self._crops.get(class_name, {}).get(example_id)

    def keep_snapshot(self, version: int, take: Callable[[], Snapshot]) -> None:
        pass

    def begin(self, key: str, *, holder: str, lease_s: float) -> Receipt | None:
        return self.find_receipt(key)  # no other process has this store

    def end(self, key: str, *, holder: str) -> None:
        pass

    def find_receipt(self, key: str) -> Receipt | None:
        with self._lock:
            return self._receipt_of(key)

    def close(self) -> None:
        pass

    def _receipt_of(self, key: str) -> Receipt | None:
        while self._receipts and (oldest := next(iter(self._receipts))) and self._receipts[oldest][0] <= self._now():
            del self._receipts[oldest]
        return self._receipts[key][1] if key in self._receipts else None

    def _replace(self, name: str, state: ClassState | None) -> None:
        self._classes.pop(name, None)
        if state is not None:
            self._classes[state.name] = state

    def _keep_crops(self, change: Change, crops: Mapping[str, bytes]) -> None:
        kept = {**self._crops.pop(change.class_name, {}), **crops}
        match change:
            case ClassRemoved():
                return
            case ExampleRemoved():
                kept.pop(change.example_id, None)
        self._crops[change.new_name if isinstance(change, ClassRenamed) else change.class_name] = kept

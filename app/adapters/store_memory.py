"""The store that keeps everything in this process and nothing on disk: for tests, and for trying the service out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

from app.domain.changes import Change, ClassRemoved, ClassRenamed, Committed, ExampleRemoved, Snapshot, fold_expected
from app.domain.values import ClassState
from app.errors import LogTrimmed, NameTaken


class MemoryStore:
    def __init__(self, *, keep_changes: int = 10_000) -> None:
        """Followers may fall `keep_changes` behind before they must read a snapshot."""
        self._lock = Lock()
        self._version = 0
        self._classes: dict[str, ClassState] = {}
        self._crops: dict[str, dict[str, bytes]] = {}  # by class, then by example
        self._log: deque[Committed] = deque(maxlen=keep_changes)  # by count alone: its arrays are those of the classes

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes]) -> int:
        with self._lock:
            committed = Committed(self._version + 1, change)
            state = fold_expected(self._classes.get(change.class_name), committed, expected=expected)
            if isinstance(change, ClassRenamed) and change.new_name != change.class_name and change.new_name in self._classes:
                raise NameTaken(change.new_name)
            self._replace(change.class_name, state)
            self._keep_crops(change, crops)
            self._log.append(committed)
            self._version = committed.version
            return committed.version

    def snapshot(self) -> Snapshot:
        with self._lock:
            return Snapshot(self._version, tuple(self._classes[name] for name in sorted(self._classes)))

    def follow(self, after: int, *, epoch: int | None = None, limit: int = 1000) -> Sequence[Committed]:
        with self._lock:
            missed = self._version - after
            if missed > len(self._log) or epoch not in (None, 0):
                raise LogTrimmed(f"The log reaches back {len(self._log)} changes, not {missed}.", limit=self._log.maxlen)
            first = len(self._log) - missed
            return [self._log[position] for position in range(first, min(first + limit, len(self._log)))]

    def read_crop(self, class_name: str, example_id: str) -> bytes | None:
        with self._lock:
            return self._crops.get(class_name, {}).get(example_id)

    def keep_snapshot(self, version: int, take: Callable[[], Snapshot]) -> None:
        pass

    def close(self) -> None:
        pass

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

"""The store on one machine: a SQLite file, with nothing to install or run beside the service.

A commit is one transaction, and on the disk before it returns: in WAL mode, `synchronous=FULL` flushes the log at every commit.
NORMAL is faster, and forgets acknowledged commits when the power goes.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock

from app.adapters.records import decode_change, decode_class, encode_change, encode_class
from app.domain.changes import Change, ClassRenamed, Committed, ExampleRemoved, Snapshot, fold_expected
from app.domain.values import ClassState
from app.errors import IncompatibleStore, LogTrimmed, NameTaken, StoreUnavailable

SCHEMA_VERSION = 1  # kept in the file as SQLite's user_version
SCHEMA = """
    CREATE TABLE classes (
        id INTEGER PRIMARY KEY,  -- what crops refer to, so that a rename moves no picture
        name TEXT NOT NULL UNIQUE,
        record BLOB NOT NULL
    );
    CREATE TABLE crops (
        class_id INTEGER NOT NULL REFERENCES classes (id) ON DELETE CASCADE,
        example_id TEXT NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (class_id, example_id)
    );
    CREATE TABLE changes (version INTEGER PRIMARY KEY, record BLOB NOT NULL);
"""


class SqliteStore:
    def __init__(self, path: Path, *, keep_changes: int = 10_000, busy_timeout_s: float = 2.0) -> None:
        """Opens the file, or makes it and its folders. Followers may fall `keep_changes` behind before they must read a snapshot.

        `busy_timeout_s` is how long another program, such as a backup, may hold SQLite's own lock before a call fails. Raises
        StoreUnavailable when the file cannot be used or another process has it, IncompatibleStore when it is not of this format.
        """
        self._path = path
        self._keep_changes = keep_changes
        self._lock = Lock()  # over the one connection, so that all reads under it are of one version
        with self._faults_named(), ExitStack() as opened:
            _make_folder(path.parent)
            opened.callback(os.close, _claim(path))
            self._connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
            opened.callback(self._connection.close)
            self._prepare()
            self._opened = opened.pop_all()

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes]) -> int:
        with self._transaction():
            committed = Committed(self._last_version() + 1, change)
            state = fold_expected(self._find(change.class_name), committed, expected=expected)
            if isinstance(change, ClassRenamed) and change.new_name != change.class_name and self._find(change.new_name):
                raise NameTaken(change.new_name)
            self._replace(change.class_name, state)
            self._keep_crops(change, crops)
            self._append(committed)
        return committed.version

    def snapshot(self) -> Snapshot:
        with self._reading():
            version = self._last_version()
            records = self._connection.execute("SELECT record FROM classes ORDER BY name").fetchall()
        return Snapshot(version, tuple(decode_class(record) for (record,) in records))

    def follow(self, after: int, *, limit: int = 1000) -> Sequence[Committed]:
        with self._reading():
            query = "SELECT version, record FROM changes WHERE version > ? ORDER BY version LIMIT ?"
            rows = self._connection.execute(query, (after, limit)).fetchall()
        if rows and rows[0][0] != after + 1:
            raise LogTrimmed(f"The log begins at change {rows[0][0]}, after {after} it has a gap.", limit=self._keep_changes)
        return [Committed(version, decode_change(record)) for version, record in rows]

    def read_crop(self, class_name: str, example_id: str) -> bytes | None:
        with self._reading():
            query = "SELECT data FROM crops JOIN classes ON id = class_id WHERE name = ? AND example_id = ?"
            row = self._connection.execute(query, (class_name, example_id)).fetchone()
        return None if row is None else bytes(row[0])

    def close(self) -> None:
        with self._reading():
            self._opened.close()

    def _prepare(self) -> None:
        (found,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if found > SCHEMA_VERSION:
            raise IncompatibleStore(f"{self._path} has schema {found}; this version knows schemas up to {SCHEMA_VERSION}.")
        if found == 0 and tables:
            raise IncompatibleStore(f"{self._path} is a database of another program.")
        (journal,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if journal != "wal":  # SQLite raises nothing: it goes on with what the file, or its file system, allows
            raise StoreUnavailable(
                f"The store {self._path} can have no write-ahead log, its journal is {journal!r}: name a file on a local disk."
            )
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if not tables:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def _last_version(self) -> int:
        (version,) = self._connection.execute("SELECT ifnull(max(version), 0) FROM changes").fetchone()
        return int(version)

    def _find(self, name: str) -> ClassState | None:
        row = self._connection.execute("SELECT record FROM classes WHERE name = ?", (name,)).fetchone()
        return None if row is None else decode_class(row[0])

    def _replace(self, name: str, state: ClassState | None) -> None:
        if state is None:
            self._connection.execute("DELETE FROM classes WHERE name = ?", (name,))  # and its crops, by the foreign key
            return
        update = "UPDATE classes SET name = ?, record = ? WHERE name = ?"
        if not self._connection.execute(update, (state.name, encode_class(state), name)).rowcount:
            self._connection.execute("INSERT INTO classes (name, record) VALUES (?, ?)", (state.name, encode_class(state)))

    def _keep_crops(self, change: Change, crops: Mapping[str, bytes]) -> None:
        if isinstance(change, ExampleRemoved):
            delete = "DELETE FROM crops WHERE class_id = (SELECT id FROM classes WHERE name = ?) AND example_id = ?"
            self._connection.execute(delete, (change.class_name, change.example_id))
        insert = "INSERT OR REPLACE INTO crops SELECT id, ?, ? FROM classes WHERE name = ?"
        self._connection.executemany(insert, [(example_id, data, change.class_name) for example_id, data in crops.items()])

    def _append(self, committed: Committed) -> None:
        self._connection.execute("INSERT INTO changes VALUES (?, ?)", (committed.version, encode_change(committed.change)))
        self._connection.execute("DELETE FROM changes WHERE version <= ?", (committed.version - self._keep_changes,))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, self._faults_named():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing: whatever is raised inside leaves the file as it was."""
        with self._lock, self._faults_named():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has ended it by itself after some faults
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as fault:
            raise StoreUnavailable(f"The store {self._path} cannot be used: {fault}.") from fault


def _make_folder(folder: Path) -> None:
    """Makes a folder with its parents, each flushed to the disk: a file lives no longer than its folder's entry."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _claim(path: Path) -> int:
    """A descriptor of the lock file beside `path`; while it is open, this process is the only one with the store.

    The lock is the kernel's, so that it ends with the process, however that ends. SQLite's own exclusive mode would shut out
    readers as well, and with them the backup of a running service. The lock is not on the database file itself, because closing
    a second descriptor of that would silently drop SQLite's locks on it.
    """
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreUnavailable(f"The store {path} is in use by another process: stop that first, or name another file.") from None
    return descriptor

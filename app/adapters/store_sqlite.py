"""The store on one machine: a SQLite file, with nothing to install or run beside the service.

A commit is one transaction, and on the disk before it returns: in WAL mode, `synchronous=FULL` flushes the log at every commit.
NORMAL is faster, and forgets acknowledged commits when the power goes.

A commit costs what changed, however many examples its class has: they have a row each, and only those rows are touched that the
change is about. Nor are the others read.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import Lock

from app.adapters.records import (
    decode_change,
    decode_class,
    decode_example,
    decode_receipt,
    encode_change,
    encode_class,
    encode_example,
    encode_receipt,
)
from app.domain.changes import (
    RECEIPTS_KEPT_S,
    Change,
    ClassRefitted,
    ClassRenamed,
    Committed,
    ExampleRemoved,
    Receipt,
    Snapshot,
    fold_expected,
)
from app.domain.values import ClassState
from app.errors import IncompatibleStore, KeyInProgress, LogTrimmed, NameTaken, StoreUnavailable

SCHEMA_VERSION = 3  # kept in the file as SQLite's user_version
SCHEMA = {
    "classes": """
        id INTEGER PRIMARY KEY,  -- what examples and crops refer to, so that a rename moves neither
        name TEXT NOT NULL UNIQUE,
        record BLOB NOT NULL  -- all of the class but its examples
    """,
    "examples": """
        class_id INTEGER NOT NULL REFERENCES classes (id) ON DELETE CASCADE,
        example_id TEXT NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (class_id, example_id)
    """,
    "crops": """
        class_id INTEGER NOT NULL REFERENCES classes (id) ON DELETE CASCADE,
        example_id TEXT NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (class_id, example_id)
    """,
    "changes": """
        version INTEGER PRIMARY KEY,
        written INTEGER NOT NULL,  -- bytes of all records up to and with this one, those that are trimmed too
        record BLOB NOT NULL
    """,
    "receipts": """
        key TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        until INTEGER NOT NULL,  -- seconds since 1970, after which it may go
        record BLOB NOT NULL
    """,
    "log": """
        epoch INTEGER NOT NULL  -- one row; see `Position`
    """,
}
SINCE_3 = ("receipts", "log")
# Keeps the newest change, whatever its size: versions count on from it.
TRIM = """
    DELETE FROM changes WHERE version < max(
        (SELECT max(version) FROM changes) + 1 - :keep_changes,
        (SELECT version FROM changes WHERE written + :keep_bytes > (SELECT written FROM changes ORDER BY version DESC LIMIT 1)
         ORDER BY version LIMIT 1)
    )
"""
COPY_FROM_1 = """
    INSERT INTO changes SELECT version, written, record FROM changes_of_1
    JOIN (SELECT version, sum(length(record)) OVER (ORDER BY version) AS written FROM changes_of_1) USING (version)
    WHERE written + :keep_bytes > (SELECT sum(length(record)) FROM changes_of_1)
"""


class SqliteStore:
    def __init__(
        self,
        path: Path,
        *,
        keep_changes: int = 10_000,
        keep_bytes: int = 64 * 2**20,
        busy_timeout_s: float = 2.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Opens the file, or makes it and its folders, or brings one of an older schema up to this one.

        Followers may fall `keep_changes` behind, or `keep_bytes` of changes, before they must read a snapshot.
        `busy_timeout_s` is how long another program, such as a backup, may hold SQLite's own lock before a call fails. `now` in
        seconds since 1970. Raises StoreUnavailable when the file cannot be used or another process has it, IncompatibleStore
        when it is not of this format.
        """
        self._path = path
        self._now = now
        self._kept = {"keep_changes": keep_changes, "keep_bytes": keep_bytes}
        self._lock = Lock()  # over the one connection, so that all reads under it are of one version
        with self._faults_named(), ExitStack() as opened:
            _make_folder(path.parent)
            opened.callback(os.close, _claim(path))
            self._connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
            opened.callback(self._connection.close)
            self._prepare()
            (self._epoch,) = self._connection.execute("SELECT epoch FROM log").fetchone()
            self._opened = opened.pop_all()

    def check(self) -> None:
        pass  # its settings are its own

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes], receipt: Receipt | None = None) -> int:
        with self._transaction():
            if receipt is not None and self._receipt_of(receipt.key):
                raise KeyInProgress
            committed = Committed(self._last_version() + 1, change)
            # Folded without the examples it has, the class comes back with those to write: the ones that the change brings.
            state = fold_expected(self._find(change.class_name), committed, expected=expected)
            if isinstance(change, ClassRenamed) and change.new_name != change.class_name and self._find(change.new_name):
                raise NameTaken(change.new_name)
            self._forget_examples(change)
            self._replace(change.class_name, state)
            self._keep_crops(change.class_name, crops)
            self._append(committed)
            if receipt is not None:
                self._keep_receipt(receipt, committed.version)
        return committed.version

    def snapshot(self) -> Snapshot:
        with self._reading():
            version = self._last_version()
            classes = self._connection.execute("SELECT id, record FROM classes ORDER BY name").fetchall()
            query = "SELECT class_id, record FROM examples ORDER BY class_id, example_id"
            examples = self._connection.execute(query).fetchall()
        by_class = {class_id: [record for _, record in rows] for class_id, rows in groupby(examples, key=itemgetter(0))}
        return Snapshot(version, tuple(_decode(record, by_class.get(class_id, ())) for class_id, record in classes), self._epoch)

    def follow(self, after: int, *, epoch: int | None = None, limit: int = 1000) -> Sequence[Committed]:
        with self._reading():
            query = "SELECT version, record FROM changes WHERE version > ? ORDER BY version LIMIT ?"
            rows = self._connection.execute(query, (after, limit)).fetchall()
        if epoch not in (None, self._epoch):
            raise LogTrimmed(f"The log is of epoch {self._epoch}, not {epoch}.")
        if rows and rows[0][0] != after + 1:
            raise LogTrimmed(f"The log begins at change {rows[0][0]}, after {after} it has a gap.")
        return [Committed(version, decode_change(record)) for version, record in rows]

    def read_crop(self, class_name: str, example_id: str) -> bytes | None:
        with self._reading():
            query = "SELECT data FROM crops JOIN classes ON id = class_id WHERE name = ? AND example_id = ?"
            row = self._connection.execute(query, (class_name, example_id)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_snapshot(self, version: int, take: Callable[[], Snapshot]) -> None:
        pass  # a file is read whole in one piece, and nobody else waits

    def begin(self, key: str, *, holder: str, lease_s: float) -> Receipt | None:
        return self.find_receipt(key)  # no other process has this store

    def end(self, key: str, *, holder: str) -> None:
        pass

    def find_receipt(self, key: str) -> Receipt | None:
        with self._reading():
            return self._receipt_of(key)

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
        if not tables or found < SCHEMA_VERSION:  # else opening writes nothing, and waits for nobody's lock
            with self._transaction():
                self._upgrade(found if tables else None)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _make_tables(self, *names: str) -> None:
        for name in names:
            self._connection.execute(f"CREATE TABLE {name} ({SCHEMA[name]})")

    def _upgrade(self, found: int | None) -> None:
        """From the schema that was found; None: from nothing."""
        if found == 1:
            self._upgrade_from_1()
        self._make_tables(*(SINCE_3 if found else SCHEMA))
        self._connection.execute("INSERT INTO log VALUES (?)", (int(self._now() * 1000),))

    def _upgrade_from_1(self) -> None:
        """In schema 1 the record of a class had its examples in it, and the log did not count its bytes."""
        self._connection.execute("ALTER TABLE changes RENAME TO changes_of_1")
        self._make_tables("examples", "changes")
        self._connection.execute(COPY_FROM_1, self._kept)
        self._connection.execute("DROP TABLE changes_of_1")  # before examples are written, so that they go where it was
        for (name,) in self._connection.execute("SELECT name FROM classes ORDER BY id").fetchall():
            self._replace(name, self._find(name))

    def _last_version(self) -> int:
        (version,) = self._connection.execute("SELECT ifnull(max(version), 0) FROM changes").fetchone()
        return int(version)

    def _find(self, name: str) -> ClassState | None:
        """The class, without the examples that have rows of their own."""
        row = self._connection.execute("SELECT record FROM classes WHERE name = ?", (name,)).fetchone()
        return None if row is None else decode_class(row[0])

    def _forget_examples(self, change: Change) -> None:
        match change:
            case ExampleRemoved():
                example = (change.class_name, change.example_id)
                delete = "DELETE FROM examples WHERE class_id = (SELECT id FROM classes WHERE name = ?) AND example_id = ?"
                self._connection.execute(delete, example)
                delete = "DELETE FROM crops WHERE class_id = (SELECT id FROM classes WHERE name = ?) AND example_id = ?"
                self._connection.execute(delete, example)
            case ClassRefitted():  # its crops stay
                delete = "DELETE FROM examples WHERE class_id = (SELECT id FROM classes WHERE name = ?)"
                self._connection.execute(delete, (change.class_name,))

    def _replace(self, name: str, state: ClassState | None) -> None:
        """Writes the class in the place of the one of that name, and the examples in `state` beside those that it has."""
        if state is None:
            self._connection.execute("DELETE FROM classes WHERE name = ?", (name,))  # examples and crops too, by the foreign keys
            return
        record = encode_class(replace(state, examples=()))
        update = "UPDATE classes SET name = ?, record = ? WHERE name = ?"
        if not self._connection.execute(update, (state.name, record, name)).rowcount:
            self._connection.execute("INSERT INTO classes (name, record) VALUES (?, ?)", (state.name, record))
        insert = "INSERT INTO examples SELECT id, ?, ? FROM classes WHERE name = ?"
        rows = ((example.id, encode_example(example), state.name) for example in state.examples)  # one record in memory at a time
        self._connection.executemany(insert, rows)

    def _keep_crops(self, class_name: str, crops: Mapping[str, bytes]) -> None:
        insert = "INSERT OR REPLACE INTO crops SELECT id, ?, ? FROM classes WHERE name = ?"
        self._connection.executemany(insert, [(example_id, data, class_name) for example_id, data in crops.items()])

    def _receipt_of(self, key: str) -> Receipt | None:
        query = "SELECT record, version FROM receipts WHERE key = ? AND until > ?"
        row = self._connection.execute(query, (key, self._now())).fetchone()
        return None if row is None else decode_receipt(key, *row)

    def _keep_receipt(self, receipt: Receipt, version: int) -> None:
        self._connection.execute("DELETE FROM receipts WHERE until <= ?", (self._now(),))
        row = (receipt.key, version, self._now() + RECEIPTS_KEPT_S, encode_receipt(receipt))
        self._connection.execute("INSERT INTO receipts VALUES (?, ?, ?, ?)", row)

    def _append(self, committed: Committed) -> None:
        record = encode_change(committed.change)
        insert = "INSERT INTO changes SELECT ?, ? + ifnull((SELECT written FROM changes WHERE version = ?), 0), ?"
        self._connection.execute(insert, (committed.version, len(record), committed.version - 1, record))
        self._connection.execute(TRIM, self._kept)

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


def copy_file(source: Path, target: Path, *, now: Callable[[], float] | None = None) -> None:
    """Copies a store as it is at one moment, while it is in use too, to a file that appears whole or not at all.

    With `now` the copy begins an epoch of its own, as a restored store does. StoreUnavailable when either cannot be used.
    """
    if not source.is_file():
        raise StoreUnavailable(f"There is no store {source}.")
    beside = target.with_name(target.name + ".part")
    try:
        with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(beside)) as written:
            read.backup(written)
            (verdict,) = written.execute("PRAGMA quick_check").fetchone()
            if verdict != "ok":
                raise StoreUnavailable(f"The store {source} is damaged: {verdict}.")
            if now is not None:
                with written:
                    written.execute("UPDATE log SET epoch = max(epoch + 1, ?)", (int(now() * 1000),))
            written.execute("PRAGMA journal_mode = DELETE")  # so that the file is all there is
        _flush(beside)
        beside.replace(target)
    except (sqlite3.Error, OSError) as fault:
        raise StoreUnavailable(f"The store {source} cannot be copied to {target}: {fault}.") from fault
    finally:
        beside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _decode(record: bytes, examples: Sequence[bytes]) -> ClassState:
    return replace(decode_class(record), examples=tuple(map(decode_example, examples)))


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

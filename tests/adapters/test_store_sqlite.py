from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.adapters.store_sqlite import SqliteStore
from app.domain.changes import ClassRemoved, Snapshot
from app.errors import IncompatibleStore, StoreUnavailable
from tests.values import added, plain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "deep" / "firstsight.db"  # the folders do not exist yet


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path, busy_timeout_s=0)) as store:
        yield store


def test_what_was_committed_is_there_when_it_is_opened_again(path: Path, store: SqliteStore) -> None:
    store.commit(added("acme"), expected=0, crops={"e0": b"crop"})
    store.commit(added("gone"), expected=0, crops={})
    store.commit(ClassRemoved("gone"), expected=2, crops={})
    before = plain(store.snapshot()), plain(list(store.follow(0)))
    store.close()
    with closing(SqliteStore(path)) as again:
        assert (plain(again.snapshot()), plain(list(again.follow(0)))) == before
        assert again.read_crop("acme", "e0") == b"crop"


def test_every_commit_is_flushed_to_the_disk(store: SqliteStore) -> None:
    # Nothing short of cutting the power shows it from outside. 2 is FULL.
    (synchronous,) = store._connection.execute("PRAGMA synchronous").fetchone()
    (journal,) = store._connection.execute("PRAGMA journal_mode").fetchone()
    assert (synchronous, journal) == (2, "wal")


def test_a_store_that_can_have_no_write_ahead_log_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where the lock file goes
    with pytest.raises(StoreUnavailable, match="its journal is 'memory'"):
        SqliteStore(Path(":memory:"))


def test_a_commit_that_fails_half_way_leaves_nothing_behind(store: SqliteStore) -> None:
    unwritable: Any = object()  # crops are written after the class
    with pytest.raises(StoreUnavailable):
        store.commit(added("acme"), expected=0, crops={"e0": b"crop", "e1": unwritable})
    assert store.snapshot() == Snapshot(0, ())
    assert store.commit(added("b"), expected=0, crops={}) == 1


def test_a_second_owner_is_refused_until_the_first_has_closed(path: Path, store: SqliteStore) -> None:
    with pytest.raises(StoreUnavailable, match="in use by another process"):
        SqliteStore(path)
    store.close()
    SqliteStore(path).close()


def test_it_can_be_backed_up_while_it_is_in_use(path: Path, store: SqliteStore, tmp_path: Path) -> None:
    store.commit(added("acme"), expected=0, crops={"e0": b"crop"})
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        source.backup(copy)
    with closing(SqliteStore(tmp_path / "copy.db")) as restored:
        assert plain(restored.snapshot()) == plain(store.snapshot())
        assert restored.read_crop("acme", "e0") == b"crop"


def test_while_another_program_writes_it_is_unavailable_and_then_works_again(path: Path, store: SqliteStore) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.commit(added("acme"), expected=0, crops={})
    assert store.commit(added("acme"), expected=0, crops={}) == 1


def test_a_closed_store_is_unavailable(store: SqliteStore) -> None:
    store.close()
    with pytest.raises(StoreUnavailable):
        store.commit(added("acme"), expected=0, crops={})


def test_a_file_of_a_newer_schema_is_refused(path: Path, store: SqliteStore) -> None:
    store.close()
    _change(path, "PRAGMA user_version = 2")
    with pytest.raises(IncompatibleStore, match="schema 2"):
        SqliteStore(path)


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    _change(path, "CREATE TABLE theirs (a)")
    before = path.read_bytes()
    with pytest.raises(IncompatibleStore, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database\n" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        SqliteStore(path)


def test_a_refused_file_is_not_kept_claimed(path: Path, store: SqliteStore) -> None:
    store.close()
    _change(path, "PRAGMA user_version = 2")
    for _ in range(2):
        with pytest.raises(IncompatibleStore):
            SqliteStore(path)


def test_a_folder_that_cannot_be_made_is_a_fault_that_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match=r"file/firstsight\.db"):
        SqliteStore(tmp_path / "file" / "firstsight.db")


def test_a_damaged_record_is_a_fault_and_not_a_wrong_answer(path: Path, store: SqliteStore) -> None:
    store.commit(added("acme"), expected=0, crops={})
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        (record,) = connection.execute("SELECT record FROM classes").fetchone()
        connection.execute("UPDATE classes SET record = ?", (record[:-1] + b"\x55",))
    with closing(SqliteStore(path)) as again, pytest.raises(StoreUnavailable, match="damaged"):
        again.snapshot()


def _change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)

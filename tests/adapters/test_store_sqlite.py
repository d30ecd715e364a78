from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.adapters.records import encode_change, encode_class
from app.adapters.store_sqlite import SqliteStore
from app.domain.changes import ClassConfigured, ClassRemoved, ClassRenamed, ExamplesAdded, Receipt, Snapshot
from app.domain.values import ClassState
from app.errors import IncompatibleStore, LogTrimmed, StoreUnavailable
from tests.adapters.old_stores import (
    EXAMPLE_1,
    EXAMPLE_OF_1,
    MODEL_1,
    MODEL_OF_1,
    record_of_format_1,
    write_store_of_schema_1,
)
from tests.values import added, example_of, model_of, plain

# A store of schema 1: a class and its change in records of format 1, then one with points in records of format 2.
ACME = ClassState("acme", 1, (EXAMPLE_OF_1,), MODEL_OF_1, None, {"shop": 3})
OTHER = ClassState("other", 2, (example_of("e0", points=20), example_of("e1", points=3)), model_of((1, 0)), 0.5)
FIELDS_1 = {"class": "acme", "examples": [EXAMPLE_1], "model": MODEL_1}
CLASSES_1 = {
    "other": encode_class(OTHER),
    "acme": record_of_format_1(FIELDS_1 | {"version": 1, "user_threshold": None, "metadata": {"shop": 3}}),
}
CHANGES = (ExamplesAdded("acme", (EXAMPLE_OF_1,), MODEL_OF_1), ExamplesAdded("other", OTHER.examples, model_of((1, 0))))
CHANGES_1 = (record_of_format_1(FIELDS_1 | {"kind": "examples_added"}), encode_change(CHANGES[1]))


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
    assert store.snapshot().classes == ()
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


@pytest.mark.parametrize("examples", [1, 200])
def test_a_commit_writes_what_changed_however_large_the_class_is(path: Path, store: SqliteStore, examples: int) -> None:
    there = tuple(example_of(f"e{number}", points=20) for number in range(examples))
    store.commit(ExamplesAdded("acme", there, model_of((1, 0))), expected=0, crops={})
    written = []
    for version, change in enumerate(
        (
            ExamplesAdded("acme", (example_of("late", points=20),), model_of((1, 0))),
            ClassConfigured("acme", 0.5, {}),
            ClassRenamed("acme", "other", None, {}),
        ),
        start=1,
    ):
        before = _wal_bytes(path)
        store.commit(change, expected=version, crops={})
        written.append(_wal_bytes(path) - before)
    assert 0 < max(written) < 64 * 1024  # whole pages of some tables and their indexes; 200 examples are 600 kB


def test_the_log_keeps_no_more_bytes_than_it_is_told(tmp_path: Path) -> None:
    changes = [ExamplesAdded(name, (example_of("e0", points=100),), model_of((1, 0))) for name in "abcde"]
    size = len(encode_change(changes[0]))
    with closing(SqliteStore(tmp_path / "firstsight.db", keep_bytes=3 * size)) as store:
        for change in changes:
            store.commit(change, expected=0, crops={})
        assert plain([each.change for each in store.follow(2)]) == plain(changes[2:])
        with pytest.raises(LogTrimmed):
            store.follow(1)
        assert [state.name for state in store.snapshot().classes] == list("abcde")


def test_the_newest_change_is_kept_whatever_its_size(tmp_path: Path) -> None:
    path = tmp_path / "firstsight.db"
    for version in (1, 2, 3):  # opened anew each time: what the log has written is counted in the file
        with closing(SqliteStore(path, keep_bytes=1)) as store:
            assert store.commit(added(f"class {version}"), expected=0, crops={}) == version
            assert [each.version for each in store.follow(version - 1)] == [version]


def test_opening_waits_for_no_other_program(path: Path, store: SqliteStore) -> None:
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        SqliteStore(path, busy_timeout_s=0).close()


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
    _change(path, "PRAGMA user_version = 4")
    with pytest.raises(IncompatibleStore, match="schema 4"):
        SqliteStore(path)


def test_a_store_of_schema_1_is_opened_with_all_it_has(tmp_path: Path) -> None:
    path = tmp_path / "firstsight.db"
    write_store_of_schema_1(path, CLASSES_1, CHANGES_1)
    for _ in range(2):  # the second time, it is of this schema
        with closing(SqliteStore(path)) as store:
            assert plain(store.snapshot()) == plain(Snapshot(2, (ACME, OTHER), store.snapshot().epoch))
            assert plain([each.change for each in store.follow(0)]) == plain(CHANGES)
            assert [store.read_crop(name, "e0") for name in CLASSES_1] == [b"crop of other", b"crop of acme"]


def test_a_store_of_schema_1_is_written_on(tmp_path: Path) -> None:
    path = tmp_path / "firstsight.db"
    write_store_of_schema_1(path, CLASSES_1, CHANGES_1)
    with closing(SqliteStore(path)) as store:
        late = ExamplesAdded("other", (example_of("late"),), model_of((0, 1)))
        assert store.commit(late, expected=2, crops={}) == 3
        assert store.commit(ClassRemoved("acme"), expected=1, crops={}) == 4
        (state,) = store.snapshot().classes
        assert plain(state.examples) == plain((*OTHER.examples, *late.examples))


def test_the_log_of_a_store_of_schema_1_is_trimmed_too(tmp_path: Path) -> None:
    path = tmp_path / "firstsight.db"
    write_store_of_schema_1(path, CLASSES_1, CHANGES_1)
    with closing(SqliteStore(path, keep_bytes=len(CHANGES_1[1]))) as store:
        assert [each.version for each in store.follow(1)] == [2]
        with pytest.raises(LogTrimmed):
            store.follow(0)


def test_a_store_of_schema_1_that_cannot_be_read_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "firstsight.db"
    write_store_of_schema_1(path, CLASSES_1 | {"acme": CLASSES_1["acme"][:-1] + b"\x55"}, CHANGES_1)
    with pytest.raises(StoreUnavailable, match="damaged"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT record FROM changes ORDER BY version").fetchall() == [(each,) for each in CHANGES_1]
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'examples'").fetchone() == (0,)


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
    _change(path, "PRAGMA user_version = 4")
    for _ in range(2):
        with pytest.raises(IncompatibleStore):
            SqliteStore(path)


def test_a_folder_that_cannot_be_made_is_a_fault_that_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match=r"file/firstsight\.db"):
        SqliteStore(tmp_path / "file" / "firstsight.db")


@pytest.mark.parametrize("table", ["classes", "examples"])
def test_a_damaged_record_is_a_fault_and_not_a_wrong_answer(path: Path, store: SqliteStore, table: str) -> None:
    store.commit(added("acme"), expected=0, crops={})
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        (record,) = connection.execute(f"SELECT record FROM {table}").fetchone()
        connection.execute(f"UPDATE {table} SET record = ?", (record[:-1] + b"\x55",))
    with closing(SqliteStore(path)) as again, pytest.raises(StoreUnavailable, match="damaged"):
        again.snapshot()


def _wal_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def _change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_a_store_of_schema_2_is_opened_and_keeps_receipts_from_then_on(path: Path, store: SqliteStore) -> None:
    store.commit(added("acme"), expected=0, crops={})
    store.close()
    _change(path, "DROP TABLE receipts")  # what schema 3 has brought, and nothing else
    _change(path, "DROP TABLE log")
    _change(path, "PRAGMA user_version = 2")
    receipt = Receipt("key", "fingerprint", {})
    with closing(SqliteStore(path)) as upgraded:
        assert [state.name for state in upgraded.snapshot().classes] == ["acme"]
        upgraded.commit(added("other"), expected=0, crops={}, receipt=receipt)
        assert upgraded.find_receipt("key") == replace(receipt, version=2)


def test_a_receipt_is_gone_after_a_day(tmp_path: Path) -> None:
    now = 1000.0
    with closing(SqliteStore(tmp_path / "timed.db", now=lambda: now)) as timed:
        timed.commit(added("acme"), expected=0, crops={}, receipt=Receipt("key", "fingerprint", {}))
        now += 24 * 3600 - 1
        assert timed.find_receipt("key")
        now += 1
        assert timed.find_receipt("key") is None
        assert timed.commit(added("other"), expected=0, crops={}, receipt=Receipt("key", "fingerprint", {})) == 2


def test_its_epoch_stays_when_it_is_opened_again(path: Path, store: SqliteStore) -> None:
    epoch = store.snapshot().epoch
    store.close()
    with closing(SqliteStore(path, now=lambda: 0.0)) as again:
        assert again.snapshot().epoch == epoch > 0

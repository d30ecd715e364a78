"""A disk that takes no more: each write that a commit makes is refused in turn, in whole or in part."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.adapters.records import encode_change, encode_class
from app.adapters.store_sqlite import SqliteStore
from app.domain.changes import Snapshot
from app.errors import StoreUnavailable
from tests.adapters.old_stores import write_store_of_schema_1
from tests.values import added, class_of, plain, random_units

CROP = bytes(range(256)) * 64  # 16 KiB: several pages
STEP_BYTES = 1500  # less than a page, so that some writes come out short


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process can grow past `size` bytes; Python ignores the signal, so that the write itself fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_enrolment_that_meets_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "firstsight.db"
    with closing(SqliteStore(path)) as store:
        store.commit(added("there", *random_units(2, 64)), expected=0, crops={"e0": CROP})
        before = plain(store.snapshot())
        refused = 0
        limit = (tmp_path / "firstsight.db-wal").stat().st_size
        while True:
            try:
                with files_end_at(limit):
                    store.commit(added("new", *random_units(2, 64)), expected=0, crops={"e0": CROP, "e1": CROP})
                break
            except StoreUnavailable:
                refused, limit = refused + 1, limit + STEP_BYTES
                assert plain(store.snapshot()) == before
                assert store.read_crop("new", "e0") is None
                assert store.read_crop("there", "e0") == CROP
        assert refused * STEP_BYTES > 2 * len(CROP)  # the commit has so much to write, and was refused all along it
        assert store.read_crop("new", "e1") == CROP
        after = plain(store.snapshot())
    with closing(SqliteStore(path)) as store:
        assert plain(store.snapshot()) == after
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_full_disk_does_not_end_reading(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "firstsight.db")) as store:
        store.commit(added("there"), expected=0, crops={"e0": CROP})
        with files_end_at(0):
            assert store.read_crop("there", "e0") == CROP
            assert [each.version for each in store.follow(0)] == [1]


def test_a_store_that_cannot_be_made_stops_no_later_start(tmp_path: Path) -> None:
    path, limit = tmp_path / "firstsight.db", 0
    while True:
        try:
            with files_end_at(limit):
                SqliteStore(path).close()
            break
        except StoreUnavailable:
            limit += STEP_BYTES
    assert limit > 20_000  # more than five pages of schema, each refused before
    with closing(SqliteStore(path)) as store:
        assert store.commit(added("acme"), expected=0, crops={}) == 1


def test_a_full_disk_in_an_upgrade_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    path, vectors = tmp_path / "firstsight.db", random_units(10, 128)
    state, change = class_of("acme", *vectors), added("acme", *vectors)
    write_store_of_schema_1(path, {"acme": encode_class(state)}, [encode_change(change)])
    before, refused, limit = path.read_bytes(), 0, path.stat().st_size
    while True:
        try:
            with files_end_at(limit):
                SqliteStore(path).close()
            break
        except StoreUnavailable:
            refused, limit = refused + 1, limit + STEP_BYTES
            assert path.read_bytes() == before
    assert refused > 5
    with closing(SqliteStore(path)) as store:
        assert plain(store.snapshot()) == plain(Snapshot(1, (state,), store.snapshot().epoch))

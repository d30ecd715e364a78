"""The drill: a backup under writers, restored elsewhere, opened twice; who follows the store reads it whole again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from threading import Event

import pytest
from typer.testing import CliRunner

from app.adapters.store_memory import MemoryStore
from app.adapters.store_redis import RedisStore
from app.adapters.store_sqlite import SqliteStore
from app.backup import back_up, restore
from app.cli import app
from app.domain.changes import ClassConfigured, ClassRemoved, ClassRenamed, ExampleRemoved
from app.domain.gallery import NumpyIndex
from app.errors import BackupRefused, StoreUnavailable
from app.main import open_store
from app.service.backup import copy_collection
from app.service.follow import Galleries
from app.service.ports import Store
from tests.fakes import model_set_for_tests, prints_for_tests
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.values import NETWORKS, added, plain, random_units

CROP = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


KINDS = ("sqlite", pytest.param("redis", marks=needs_redis))


@pytest.fixture
def address_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str], tuple[str, str]]:
    """Kind of store and a name -> address and collection of an empty one."""

    def address(kind: str, name: str) -> tuple[str, str]:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{name}.db", "default"
        return request.getfixturevalue("server").address, f"{name}-{tmp_path.name.replace('_', '-')}"[:60]

    return address


def content(store: Store) -> object:
    """Classes without their versions, which a store counts for itself, and all crops."""
    classes = store.snapshot().classes
    crops = {(state.name, each.id): store.read_crop(state.name, each.id) for state in classes for each in state.examples}
    return [{**plain(state), "version": 0} for state in classes], crops


def fill(store: Store) -> None:
    store.commit(added("acme", *random_units(3, 64)), expected=0, crops={"e0": CROP, "e1": CROP[:7]})
    store.commit(ClassConfigured("acme", 0.7, {"a": [1]}), expected=1, crops={})
    store.commit(added("empty"), expected=0, crops={})
    store.commit(ExampleRemoved("empty", "e0", None), expected=3, crops={})
    store.commit(added("gone"), expected=0, crops={})
    store.commit(ClassRemoved("gone"), expected=5, crops={})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("into", KINDS)
def test_a_store_is_restored_as_it_was_into_either_kind_and_opens_twice(
    address_of: Callable[[str, str], tuple[str, str]], tmp_path: Path, kind: str, into: str
) -> None:
    (source, collection), (target, other) = (address_of(which, name) for which, name in ((kind, "from"), (into, "to")))
    with closing(open_store(source, collection)) as store:
        fill(store)
        expected, epoch = content(store), store.snapshot().epoch
        back_up(source, collection, tmp_path / "backup.db")  # while it is in use
    restore(tmp_path / "backup.db", target, other, replace=False)

    for _ in range(2):
        with closing(open_store(target, other)) as restored:
            assert content(restored) == expected
            assert restored.snapshot().epoch > epoch
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup.db"]  # nothing half done is left


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_under_writers_has_all_that_was_acknowledged_before_it_began(
    address_of: Callable[[str, str], tuple[str, str]], tmp_path: Path, kind: str
) -> None:
    address, collection = address_of(kind, "busy")
    enough, stop, told = Event(), Event(), list[str]()

    def enrol(store: Store) -> None:
        for number in count():
            if stop.is_set():
                return
            store.commit(added(f"{number}"), expected=0, crops={"e0": CROP})
            told.append(f"{number}")
            if number == 20:
                enough.set()

    with closing(open_store(address, collection)) as store, ThreadPoolExecutor(1) as writer:
        writing = writer.submit(enrol, store)
        enough.wait()
        before = set(told)
        try:
            back_up(address, collection, tmp_path / "backup.db")
        finally:
            stop.set()
        writing.result()
    with closing(SqliteStore(tmp_path / "backup.db")) as backup:
        names = {state.name for state in backup.snapshot().classes}
        assert before <= names <= set(told)
        assert all(backup.read_crop(name, "e0") == CROP for name in names)


@needs_redis
def test_replicas_of_a_restored_store_read_it_whole_again(server: RedisServer, tmp_path: Path) -> None:
    with closing(RedisStore(server.address, collection="drill")) as store:
        fill(store)
        back_up(server.address, "drill", tmp_path / "backup.db")
        prints = prints_for_tests(model_set_for_tests())
        replica = Galleries(store, make_index=NumpyIndex, networks=NETWORKS, prints=prints, in_background=lambda job: job())
        before = replica.start()
        for expected in range(7):
            store.commit(added(f"after {expected}"), expected=0, crops={})
        replica.advance()

        restore(tmp_path / "backup.db", server.address, "drill", replace=True)
        after = replica.advance()

        assert after.gallery.names() == before.gallery.names() == ["acme", "empty"]
        assert after.position > before.position


@pytest.mark.parametrize("kind", KINDS)
def test_classes_that_are_there_are_replaced_only_when_that_is_said(
    address_of: Callable[[str, str], tuple[str, str]], tmp_path: Path, kind: str
) -> None:
    address, collection = address_of(kind, "kept")
    with closing(open_store(address, collection)) as store:
        store.commit(added("acme"), expected=0, crops={})
        back_up(address, collection, tmp_path / "backup.db")
        store.commit(added("later"), expected=0, crops={})
    with pytest.raises(BackupRefused, match="classes"):
        restore(tmp_path / "backup.db", address, collection, replace=False)
    restore(tmp_path / "backup.db", address, collection, replace=True)
    with closing(open_store(address, collection)) as store:
        assert [state.name for state in store.snapshot().classes] == ["acme"]


def test_a_store_that_a_service_has_open_is_not_restored(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/here.db"
    with closing(open_store(address)):
        back_up(address, "default", tmp_path / "backup.db")
        with pytest.raises(StoreUnavailable, match="in use"):
            restore(tmp_path / "backup.db", address, "default", replace=True)


def test_a_damaged_backup_replaces_nothing(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/here.db"
    (tmp_path / "backup.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    with closing(open_store(address)) as store:
        store.commit(added("acme"), expected=0, crops={})
    with pytest.raises(StoreUnavailable):
        restore(tmp_path / "backup.db", address, "default", replace=True)
    with closing(open_store(address)) as store:
        assert len(store.snapshot().classes) == 1


class Restless(MemoryStore):
    """A store in which a class is renamed whenever one of its crops is read, so that the copy comes too late for it."""

    def __init__(self, renames: int) -> None:
        super().__init__()
        self.renames = renames

    def read_crop(self, class_name: str, example_id: str) -> bytes | None:
        if self.renames:
            self.renames -= 1
            state = next(state for state in self.snapshot().classes if state.name.startswith("acme"))
            self.commit(ClassRenamed(state.name, f"acme {self.renames}", None, {}), expected=state.version, crops={})
        return super().read_crop(class_name, example_id)


def test_what_loses_its_crops_during_a_copy_is_copied_again() -> None:
    source, target = Restless(renames=3), MemoryStore()
    source.commit(added("acme", (1, 0), (0, 1)), expected=0, crops={"e0": CROP, "e1": CROP})
    copy_collection(source, target)
    assert content(target) == content(source)
    assert [state.name for state in target.snapshot().classes] == ["acme 0"]


def test_where_no_crops_are_kept_none_are_waited_for() -> None:
    source, target = MemoryStore(), MemoryStore()
    source.commit(added("acme"), expected=0, crops={})
    copy_collection(source, target)
    assert content(target) == content(source)


def test_writers_that_never_rest_are_named() -> None:
    source = Restless(renames=1000)
    source.commit(added("acme"), expected=0, crops={"e0": CROP})
    with pytest.raises(BackupRefused, match="stop the writers"):
        copy_collection(source, MemoryStore())


def test_the_command_backs_up_and_restores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSIGHT_STORE", f"sqlite:///{tmp_path}/here.db")
    with closing(open_store(f"sqlite:///{tmp_path}/here.db")) as store:
        fill(store)
        expected = content(store)
    run = CliRunner().invoke

    assert run(app, ["backup", str(tmp_path / "backup.db")]).exit_code == 0
    refused = run(app, ["backup", str(tmp_path / "backup.db")])
    assert (refused.exit_code, "there already" in refused.output) == (1, True)
    monkeypatch.setenv("FIRSTSIGHT_STORE", f"sqlite:///{tmp_path}/there.db")
    assert run(app, ["restore", str(tmp_path / "backup.db")]).exit_code == 0
    assert run(app, ["restore", str(tmp_path / "missing.db")]).exit_code == 1
    with closing(open_store(f"sqlite:///{tmp_path}/there.db")) as restored:
        assert content(restored) == expected

"""What only the Redis store has: an epoch, packs, rules for the server under it. The rest is in tests/contracts/test_store.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from threading import Event

import pytest
from redis.crc import key_slot

from app.adapters import store_redis
from app.adapters.records import encode_change
from app.adapters.redis_server import DURABLE
from app.adapters.store_redis import RedisStore
from app.domain.changes import ClassRemoved, ClassRenamed, Receipt
from app.domain.gallery import Gallery
from app.errors import IncompatibleStore, KeyInProgress, LogTrimmed, StoreAway, StoreTooWeak, VersionConflict
from demo.server import free_port
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.values import NETWORKS, added, plain

pytestmark = needs_redis

Open = Callable[..., RedisStore]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.client.flushall()
    return running


@pytest.fixture
def open_store(server: RedisServer) -> Iterator[Open]:
    """Each call is another replica on the same collection."""
    with ExitStack() as opened:
        yield lambda **options: opened.enter_context(closing(RedisStore(server.address, **options)))


def enrol(store: RedisStore, *names: str) -> None:
    for name in names:
        store.commit(added(name), expected=0, crops={"e0": b"crop"})


@pytest.mark.parametrize(
    ("name", "weak"),
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
    ],
)
def test_a_redis_that_could_forget_is_refused_unless_that_is_wanted(server: RedisServer, name: str, weak: str) -> None:
    server.client.config_set(name, weak)
    try:
        with pytest.raises(StoreAway, match=f"{name} is {weak}, not {DURABLE[name][0]}"):
            RedisStore(server.address)
        RedisStore(server.address, may_be_weak=True).close()
    finally:
        server.client.config_set(name, DURABLE[name][0])


def test_a_redis_that_was_weakened_gets_no_commit_once_that_is_seen_and_gets_them_again_when_mended(
    server: RedisServer, open_store: Open
) -> None:
    store = open_store()
    server.client.config_set("appendfsync", "no")
    try:
        with pytest.raises(StoreTooWeak, match="appendfsync is no, not always"):
            store.check()
        with pytest.raises(StoreTooWeak):
            enrol(store, "a")
        assert store.snapshot().version == 0
    finally:
        server.client.config_set("appendfsync", "always")
    enrol(store, "a")
    store.check()


def test_another_server_is_looked_at_before_its_first_commit(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server, closing(RedisStore(server.address)) as store:
        enrol(store, "a")
        server.kill()
        server.start()
        enrol(store, "b")
        server.kill()
        server.start(maxmemory_policy="allkeys-lru")
        with pytest.raises(StoreTooWeak, match="maxmemory-policy is allkeys-lru"):
            enrol(store, "c")
        assert len(store.snapshot().classes) == 2


def test_a_redis_that_does_not_tell_its_settings_is_refused(server: RedisServer) -> None:
    server.client.acl_setuser("shy", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"], commands=["-config"])
    address = server.address.replace("//", "//shy:secret@")
    with pytest.raises(StoreAway, match="cannot be read"):
        RedisStore(address)
    RedisStore(address, may_be_weak=True).close()


def test_a_redis_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StoreAway) as away:
        RedisStore(f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert "127.0.0.1" in away.value.detail
    assert "secret" not in away.value.detail


def test_a_newer_layout_is_refused(server: RedisServer, open_store: Open) -> None:
    open_store()
    server.client.hset("firstsight:{default}:meta", "layout", 99)
    with pytest.raises(IncompatibleStore, match="99"):
        open_store()


def test_all_keys_of_a_collection_are_in_one_slot(server: RedisServer, open_store: Open) -> None:
    store = open_store(pack_every=1)
    enrol(store, "a", "b")
    store.keep_snapshot(2, store.snapshot)
    keys = server.all_keys()
    assert len(keys) >= 10
    assert len({key_slot(key) for key in keys}) == 1


def test_what_one_replica_commits_another_follows(open_store: Open) -> None:
    writer, reader = open_store(), open_store()
    enrol(writer, "acme")
    assert [each.change.class_name for each in reader.follow(0)] == ["acme"]
    with pytest.raises(VersionConflict):
        enrol(reader, "acme")


def test_a_removed_class_leaves_no_key(server: RedisServer, open_store: Open) -> None:
    store = open_store()
    enrol(store, "acme")
    store.commit(ClassRenamed("acme", "other", None, {}), expected=1, crops={})
    store.commit(ClassRemoved("other"), expected=2, crops={})
    left = {key.rpartition(b":")[2] for key in server.all_keys()}
    assert left == {b"meta", b"log"}


def test_the_log_is_bounded_by_its_bytes_too(open_store: Open) -> None:
    store = open_store(keep_bytes=2 * len(encode_change(added("a"))))
    enrol(store, *"abcdef")
    with pytest.raises(LogTrimmed):
        store.follow(2)
    assert [each.version for each in store.follow(4)] == [5, 6]


def test_a_start_reads_the_pack_and_the_log_since(server: RedisServer, open_store: Open) -> None:
    store = open_store(pack_every=3)
    enrol(store, "a", "b", "c")
    store.keep_snapshot(3, store.snapshot)
    enrol(store, "d")
    expected = plain(store.snapshot())
    for key in server.client.keys("*:examples:*"):  # only the pack can know them now
        server.client.delete(key)
    assert plain(open_store().snapshot()) == expected


def test_a_pack_is_written_when_the_last_one_has_fallen_behind(server: RedisServer, open_store: Open) -> None:
    store, taken = open_store(pack_every=3), []
    for version in range(1, 8):
        enrol(store, f"{version}")
        store.keep_snapshot(version, lambda: taken.append(store.snapshot()) or taken[-1])
    assert [snapshot.version for snapshot in taken] == [3, 6]
    other = open_store(pack_every=3)
    other.snapshot()
    other.keep_snapshot(7, lambda: pytest.fail("another replica has just written one"))
    lasting = [key for key in server.client.keys("*:pack:*") if server.client.ttl(key) == -1]
    assert [key.count(b"-6-") for key in lasting] == [1]  # the older one goes by itself


@pytest.mark.parametrize("damage", [b"", b"\x10\0\0\0not sixteen", None])
def test_a_pack_that_is_damaged_or_gone_costs_nothing_but_time(
    server: RedisServer, open_store: Open, damage: bytes | None
) -> None:
    store = open_store(pack_every=1)
    enrol(store, "a", "b")
    store.keep_snapshot(2, store.snapshot)
    (piece,) = server.client.keys("*:pack:*:0")
    server.client.set(piece, damage) if damage is not None else server.client.delete(piece)
    assert [state.name for state in open_store().snapshot().classes] == ["a", "b"]


def test_a_log_that_was_trimmed_past_the_pack_is_made_up_for_by_the_records(open_store: Open) -> None:
    store = open_store(pack_every=1, keep_changes=2)
    enrol(store, "a")
    store.keep_snapshot(1, store.snapshot)
    enrol(store, "b", "c", "d", "e")
    assert len(open_store().snapshot().classes) == 5


def copy_of(server: RedisServer) -> dict[bytes, bytes]:
    return {key: server.client.dump(key) for key in server.all_keys()}


def restore(server: RedisServer, copy: dict[bytes, bytes]) -> None:
    server.client.flushall()
    for key, value in copy.items():
        server.client.restore(key, 0, value)


@pytest.mark.parametrize("since", [(), ("x",), ("x", "y"), ("x", "y", "z")])  # behind, level with and past what was seen
def test_an_older_copy_in_its_place_is_noticed_and_read_whole_by_all(
    server: RedisServer, open_store: Open, since: tuple[str, ...]
) -> None:
    replicas = open_store(), open_store()
    enrol(replicas[0], "a")
    copy = copy_of(server)
    enrol(replicas[0], "b", "c")
    epoch = replicas[0].snapshot().epoch
    assert len(replicas[1].follow(0, epoch=epoch)) == 3
    restore(server, copy)
    enrol(open_store(), *since)

    for replica in replicas:
        with pytest.raises(LogTrimmed):
            replica.follow(3, epoch=epoch)
        snapshot = replica.snapshot()
        assert [state.name for state in snapshot.classes] == ["a", *since]
        assert snapshot.epoch > epoch
        assert list(replica.follow(snapshot.version, epoch=snapshot.epoch)) == []


def test_an_emptied_redis_is_noticed(server: RedisServer, open_store: Open) -> None:
    store = open_store()
    enrol(store, "a")
    epoch = store.snapshot().epoch
    server.client.flushall()
    with pytest.raises(LogTrimmed):
        store.follow(1, epoch=epoch)
    assert store.snapshot().classes == ()
    enrol(store, "b")
    assert store.snapshot().epoch > epoch or store.snapshot().version == 1


def test_a_connection_that_died_unused_fails_no_call(server: RedisServer, open_store: Open) -> None:
    store = open_store()
    enrol(store, "a")
    server.client.client_kill_filter(_type="normal", skipme=True)
    enrol(store, "b")
    server.client.client_kill_filter(_type="normal", skipme=True)
    assert len(store.snapshot().classes) == 2


def test_it_works_on_a_cluster(tmp_path: Path) -> None:
    with redis_server(tmp_path / "node", "--cluster-enabled", "yes") as node:
        node.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        while node.client.cluster("INFO")["cluster_state"] != "ok":
            pass
        with closing(RedisStore(node.address.replace("redis://", "redis+cluster://").removesuffix("/0"), pack_every=1)) as store:
            _assert_works(store)


def test_it_finds_its_master_through_sentinels(server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "sentinel.conf").write_text(f"sentinel monitor pictures 127.0.0.1 {server.port} 1\n")
    with (
        redis_server(tmp_path, config=tmp_path / "sentinel.conf") as sentinel,
        closing(RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/pictures/0", pack_every=1)) as store,
    ):
        _assert_works(store)


def _assert_works(store: RedisStore) -> None:
    enrol(store, "a", "b")
    store.commit(ClassRemoved("a"), expected=1, crops={})
    store.keep_snapshot(3, store.snapshot)
    assert [state.name for state in store.snapshot().classes] == ["b"]
    assert len(store.follow(0)) == 3
    assert store.read_crop("b", "e0") == b"crop"


def test_a_receipt_goes_by_itself_after_a_day(server: RedisServer, open_store: Open) -> None:
    open_store().commit(added("acme"), expected=0, crops={}, receipt=Receipt("key", "fingerprint", {}))
    (key,) = server.client.keys("*:receipt:key")
    assert 24 * 3600 - 60 < server.client.ttl(key) <= 24 * 3600


def test_a_receipt_that_comes_between_look_and_commit_is_seen_by_the_commit(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, receipt = open_store(), Receipt("key", "fingerprint", {})
    store.commit(added("acme"), expected=0, crops={}, receipt=receipt)
    monkeypatch.setattr(store, "find_receipt", lambda key: None)
    with pytest.raises(KeyInProgress):
        store.commit(added("other"), expected=0, crops={}, receipt=receipt)


def test_a_class_that_changes_between_look_and_commit_is_a_conflict_in_the_commit(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = open_store(), open_store()
    enrol(quick, "acme")
    head = slow._head_of("acme")
    quick.commit(added("acme", ids="quick"), expected=1, crops={})
    before = plain(quick.snapshot())
    monkeypatch.setattr(slow, "_head_of", lambda class_name: head)  # what it had read before the other was quicker
    with pytest.raises(VersionConflict) as conflict:
        slow.commit(added("acme", ids="slow"), expected=1, crops={})
    assert (conflict.value.expected, conflict.value.found) == (1, 2)
    assert plain(quick.snapshot()) == before


def test_a_write_is_at_work_with_one_holder_until_it_is_ended(open_store: Open) -> None:
    one, other = open_store(), open_store()

    def begin(store: RedisStore, holder: str) -> bool:
        try:
            return store.begin("key", holder=holder, lease_s=60) is None
        except KeyInProgress:
            return False

    assert [begin(one, "one"), begin(other, "other"), begin(one, "one")] == [True, False, True]
    other.end("key", holder="other")  # who has nothing to let go of
    assert not begin(other, "other")
    one.end("key", holder="one")
    assert begin(other, "other")


def test_of_those_who_begin_a_write_at_once_one_holds_it(open_store: Open) -> None:
    stores = [open_store() for _ in range(8)]

    def begin(number: int) -> bool:
        try:
            return stores[number].begin("key", holder=f"{number}", lease_s=60) is None
        except KeyInProgress:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(begin, range(8))).count(True) == 1


def test_the_write_of_a_replica_that_died_can_be_begun_by_another_after_a_while(server: RedisServer, open_store: Open) -> None:
    dead, living = open_store(), open_store()
    dead.begin("key", holder="dead", lease_s=0.05)
    while server.client.keys("*:receipt:*"):
        pass
    assert living.begin("key", holder="living", lease_s=60) is None
    assert 59_000 < server.client.pttl(server.client.keys("*:receipt:*")[0]) <= 60_000


def test_a_receipt_outlasts_the_lease_of_whoever_wrote_it(server: RedisServer, open_store: Open) -> None:
    store, receipt = open_store(), Receipt("key", "fingerprint", {})
    store.begin("key", holder="one", lease_s=3)
    store.commit(added("acme"), expected=0, crops={}, receipt=receipt)
    store.begin("key", holder="one", lease_s=3)  # as a lease is renewed
    assert server.client.ttl("firstsight:{default}:receipt:key") > 24 * 3600 - 60


def test_a_snapshot_that_is_read_while_others_write_is_of_one_version(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_redis, "CLASSES_AT_ONCE", 2)
    reader, writer, stop = open_store(), open_store(), Event()
    enrol(writer, *"abcdefghij")

    def write() -> None:
        for number in count():
            if stop.is_set():
                return
            old, new = "abcdefghij"[number % 10], f"{number}"
            writer.commit(ClassRenamed(old, new, None, {}), expected=version_of(writer, old), crops={})
            writer.commit(added(new, ids=f"{number}-"), expected=version_of(writer, new), crops={})
            writer.commit(ClassRemoved(new), expected=version_of(writer, new), crops={})
            writer.commit(added(old), expected=0, crops={})

    with ThreadPoolExecutor(1) as writers:
        writing = writers.submit(write)
        snapshots = [reader.snapshot() for _ in range(30)]
        stop.set()
        writing.result()

    log = writer.follow(0, limit=100_000)
    assert snapshots[-1].version > snapshots[0].version
    for snapshot in snapshots:
        folded = Gallery.empty(NETWORKS).fold(*log[: snapshot.version]).snapshot()
        assert plain(folded.classes) == plain(snapshot.classes)


def version_of(store: RedisStore, name: str) -> int:
    state = store._head_of(name).state
    assert state is not None
    return state.version

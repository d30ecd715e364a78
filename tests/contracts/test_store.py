"""What every store promises. A new store joins by a line in STORES and a case in `open_store`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from app.adapters.store_memory import MemoryStore
from app.adapters.store_redis import RedisStore
from app.adapters.store_sqlite import SqliteStore
from app.domain.changes import (
    Change,
    ClassConfigured,
    ClassRefitted,
    ClassRemoved,
    ClassRenamed,
    ExampleRemoved,
    ExamplesAdded,
    Receipt,
    Snapshot,
)
from app.domain.gallery import Gallery
from app.errors import KeyInProgress, LogTrimmed, NameTaken, VersionConflict
from app.service.ports import Store
from tests.histories import Expecting, committed, histories
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.values import NETWORKS, added, class_of, example_of, model_of, plain, random_units

OpenStore = Callable[..., Store]

STORES = ("memory", "sqlite", pytest.param("redis", marks=needs_redis))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens a new, empty store; the test's end closes it."""
    numbers = count()

    def opened_store(**options: Any) -> Store:
        match request.param:
            case "memory":
                return MemoryStore(**options)
            case "sqlite":
                return SqliteStore(tmp_path / str(next(numbers)) / "firstsight.db", **options)
        redis: RedisServer = request.getfixturevalue("server")
        return RedisStore(redis.address, collection=f"{tmp_path.name} {next(numbers)}", **options)

    with ExitStack() as opened:
        yield lambda **options: opened.enter_context(closing(opened_store(**options)))


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


def commit(store: Store, change: Change, *, expected: int = 0, **crops: bytes) -> int:
    return store.commit(change, expected=expected, crops=crops)


def test_a_new_store_is_at_version_0_and_empty(store: Store) -> None:
    assert store.snapshot() == Snapshot(0, (), store.snapshot().epoch)
    assert list(store.follow(0)) == []


def test_what_is_committed_is_in_the_snapshot(store: Store) -> None:
    version = commit(store, added("acme", (1, 0), (0, 1)))
    assert plain(store.snapshot().classes) == plain((class_of("acme", (1, 0), (0, 1), version=version),))
    assert store.snapshot().version == version


def test_versions_count_all_changes_of_the_collection_without_a_gap(store: Store) -> None:
    assert [commit(store, added("a")), commit(store, added("b")), commit(store, ClassRemoved("a"), expected=1)] == [1, 2, 3]


def test_second_enrolment_appends(store: Store) -> None:
    version = commit(store, added("acme", ids="first"))
    commit(store, added("acme", ids="second"), expected=version)
    (state,) = store.snapshot().classes
    assert [example.id for example in state.examples] == ["first0", "second0"]


def test_vectors_come_back_bit_by_bit(store: Store) -> None:
    change = added("acme", *random_units(3, 128))
    commit(store, change)
    (state,) = store.snapshot().classes
    (followed,) = store.follow(0)
    assert plain(state.model) == plain(change.model)
    assert plain(followed.change) == plain(change)


def test_points_come_back_bit_by_bit_with_the_examples_of_any_later_change(store: Store) -> None:
    examples = (example_of("e0", points=7), example_of("e1"))
    commit(store, ExamplesAdded("acme", examples, model_of((1, 0))))
    commit(store, added("acme", ids="late"), expected=1)
    (state,) = store.snapshot().classes
    assert plain(state.examples[:2]) == plain(examples)


def test_the_snapshot_is_sorted_by_name(store: Store) -> None:
    for name in ("é", "z", "acme", "Acme", "日本", "a/b", "\U0001f600", "it's; DROP TABLE classes", "\uffff"):
        commit(store, added(name))
    names = [state.name for state in store.snapshot().classes]
    assert names == sorted(names)
    assert len(names) == 9


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_change_made_on_another_version_is_refused_whole(store: Store, expected: int) -> None:
    commit(store, added("acme"), e0=b"crop")
    commit(store, ClassConfigured("acme", 0.5, {}), expected=1)
    before = plain(store.snapshot())
    with pytest.raises(VersionConflict) as conflict:
        commit(store, added("acme", ids="late"), expected=expected, late0=b"late")
    assert (conflict.value.expected, conflict.value.found) == (expected, 2)
    assert plain(store.snapshot()) == before
    assert len(store.follow(0)) == 2
    assert store.read_crop("acme", "late0") is None


def test_a_class_that_is_gone_is_at_version_0(store: Store) -> None:
    commit(store, added("acme"))
    commit(store, ClassRemoved("acme"), expected=1)
    with pytest.raises(VersionConflict) as conflict:
        commit(store, added("acme"), expected=1)
    assert conflict.value.found == 0


def test_a_user_s_threshold_and_metadata_are_kept(store: Store) -> None:
    metadata = {"shop": 3, "où": ["Zürich", None, {"deep": 1.5}], "": True}
    commit(store, added("acme"))
    commit(store, ClassConfigured("acme", 0.1 + 0.2, metadata), expected=1)
    (state,) = store.snapshot().classes
    assert (state.user_threshold, state.metadata) == (0.1 + 0.2, metadata)


def test_a_rename_takes_examples_and_crops_along(store: Store) -> None:
    commit(store, added("acme", (1, 0), (0, 1)), e0=b"crop")
    commit(store, ClassRenamed("acme", "other", None, {}), expected=1)
    assert plain(store.snapshot().classes) == plain((class_of("other", (1, 0), (0, 1), version=2),))
    assert (store.read_crop("acme", "e0"), store.read_crop("other", "e0")) == (None, b"crop")


def test_a_rename_to_a_taken_name_is_refused_whole(store: Store) -> None:
    commit(store, added("acme"), e0=b"crop of acme")
    commit(store, added("other"), e0=b"crop of other")
    before = plain(store.snapshot())
    with pytest.raises(NameTaken):
        commit(store, ClassRenamed("acme", "other", None, {}), expected=1)
    assert plain(store.snapshot()) == before
    assert (store.read_crop("acme", "e0"), store.read_crop("other", "e0")) == (b"crop of acme", b"crop of other")


def test_a_class_can_be_renamed_to_its_own_name(store: Store) -> None:
    commit(store, added("acme"), e0=b"crop")
    commit(store, ClassRenamed("acme", "acme", 0.5, {}), expected=1)
    (state,) = store.snapshot().classes
    assert (state.name, state.version, store.read_crop("acme", "e0")) == ("acme", 2, b"crop")


def test_a_removed_class_leaves_no_example_and_no_crop_to_the_next_of_its_name(store: Store) -> None:
    commit(store, added("acme", (1, 0), (0, 1)), e0=b"crop")
    commit(store, ClassRemoved("acme"), expected=1)
    commit(store, added("acme"))
    assert plain(store.snapshot().classes) == plain((class_of("acme", version=3),))
    assert store.read_crop("acme", "e0") is None


def test_a_removed_example_takes_its_crop_along(store: Store) -> None:
    commit(store, added("acme", (1, 0), (0, 1)), e0=b"first", e1=b"second")
    commit(store, ExampleRemoved("acme", "e0", model_of((0, 1))), expected=1)
    assert (store.read_crop("acme", "e0"), store.read_crop("acme", "e1")) == (None, b"second")


def test_a_removed_example_can_be_added_again(store: Store) -> None:
    commit(store, added("acme", (1, 0), (0, 1)), e0=b"first")
    commit(store, ExampleRemoved("acme", "e0", model_of((0, 1))), expected=1)
    commit(store, ExamplesAdded("acme", (example_of("e0", (3, 4)),), model_of((1, 0), (0, 1))), expected=2, e0=b"again")
    (state,) = store.snapshot().classes
    assert plain(state.examples) == plain((example_of("e0", (3, 4)), example_of("e1", (0, 1))))
    assert store.read_crop("acme", "e0") == b"again"


def test_examples_are_in_the_order_of_their_ids_however_they_came(store: Store) -> None:
    ids = ("é", "b", "\U0001f600", "B", "10", "9", "\uffff", "ba")
    for expected, example_id in enumerate(ids):
        commit(store, ExamplesAdded("acme", (example_of(example_id),), model_of((1, 0))), expected=expected)
    (state,) = store.snapshot().classes
    assert [example.id for example in state.examples] == sorted(ids)


def test_a_class_without_examples_is_kept(store: Store) -> None:
    commit(store, added("acme"))
    commit(store, ExampleRemoved("acme", "e0", None), expected=1)
    (state,) = store.snapshot().classes
    assert (state.examples, state.model) == ((), None)


def test_refitting_leaves_the_examples_that_it_brings_and_no_other(store: Store) -> None:
    commit(store, added("acme", (1, 0), (0, 1), (1, 1)))
    commit(store, added("other"))
    refitted = (example_of("e0", (3, 4)), example_of("e2", (4, 3), points=2))
    commit(store, ClassRefitted("acme", refitted, model_of((0, 1))), expected=1)
    acme, other = store.snapshot().classes
    assert plain(acme.examples) == plain(refitted)
    assert plain(other) == plain(class_of("other", version=2))


def test_refitting_keeps_the_crops(store: Store) -> None:
    commit(store, added("acme"), e0=b"crop")
    commit(store, ClassRefitted("acme", (example_of("e0", (0, 1)),), model_of((0, 1))), expected=1)
    assert store.read_crop("acme", "e0") == b"crop"


def test_a_follower_reads_on_from_where_it_is(store: Store) -> None:
    for name in "abcde":
        commit(store, added(name))
    assert [(each.version, each.change.class_name) for each in store.follow(2, limit=2)] == [(3, "c"), (4, "d")]
    assert list(store.follow(5)) == []


def test_a_follower_that_fell_behind_the_log_is_told(open_store: OpenStore) -> None:
    store = open_store(keep_changes=3)
    for name in "abcde":
        commit(store, added(name))
    assert [each.version for each in store.follow(2)] == [3, 4, 5]
    with pytest.raises(LogTrimmed):
        store.follow(1)


def test_a_trimmed_log_still_counts_on(open_store: OpenStore) -> None:
    store = open_store(keep_changes=1)
    assert [commit(store, added(name)) for name in "abc"] == [1, 2, 3]
    assert (store.snapshot().version, len(store.snapshot().classes)) == (3, 3)


def test_commits_from_many_threads_each_get_a_version_of_their_own(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        versions = list(threads.map(lambda number: commit(store, added(f"{number}")), range(40)))
    assert sorted(versions) == list(range(1, 41))
    assert [each.version for each in store.follow(0)] == list(range(1, 41))


def test_of_writers_that_started_from_one_version_one_wins(store: Store) -> None:
    def enrol(number: int) -> bool:
        try:
            return bool(commit(store, added("acme", ids=f"{number}-"), expected=1))
        except VersionConflict:
            return False

    commit(store, added("acme"))
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(enrol, range(8)))
    assert won.count(True) == 1
    assert len(store.snapshot().classes[0].examples) == 2


RECEIPT = Receipt("key", "fingerprint", {"class": "acme", "où": [1, None]})


def test_a_receipt_is_kept_with_the_change_and_knows_its_version(store: Store) -> None:
    commit(store, added("other"))
    assert store.find_receipt("key") is None
    version = store.commit(added("acme"), expected=0, crops={}, receipt=RECEIPT)
    assert store.find_receipt("key") == replace(RECEIPT, version=version)
    assert store.find_receipt("other key") is None


def test_of_one_receipt_there_is_one_change(store: Store) -> None:
    store.commit(added("acme"), expected=0, crops={}, receipt=RECEIPT)
    before = plain(store.snapshot())
    for change, expected in ((added("acme", ids="more"), 1), (added("other"), 0)):
        with pytest.raises(KeyInProgress):
            store.commit(change, expected=expected, crops={}, receipt=RECEIPT)
    assert plain(store.snapshot()) == before


def test_a_change_that_is_refused_leaves_no_receipt(store: Store) -> None:
    with pytest.raises(VersionConflict):
        store.commit(added("acme"), expected=7, crops={}, receipt=RECEIPT)
    assert store.find_receipt("key") is None


def test_of_writers_with_one_receipt_one_commits(store: Store) -> None:
    def enrol(number: int) -> bool:
        try:
            return bool(store.commit(added(f"{number}"), expected=0, crops={}, receipt=RECEIPT))
        except KeyInProgress:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(enrol, range(8))).count(True) == 1
    assert store.snapshot().version == 1


@given(histories())
# Every example opens a store of its own, and opening a file takes its time.
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_snapshot_is_the_fold_of_the_log(open_store: OpenStore, history: list[Expecting]) -> None:
    store = open_store()
    for each in history:
        commit(store, each.change, expected=each.expected)

    snapshot, log = store.snapshot(), list(store.follow(0))

    assert plain(log) == plain(committed(history))
    folded = Gallery.empty(NETWORKS).fold(*committed(history)).snapshot()
    assert plain(replace(snapshot, epoch=0)) == plain(folded)


def test_the_log_of_another_epoch_is_not_followed(store: Store) -> None:
    commit(store, added("acme"))
    epoch = store.snapshot().epoch
    assert [each.version for each in store.follow(0, epoch=epoch)] == [1]
    with pytest.raises(LogTrimmed):
        store.follow(0, epoch=epoch + 1)


def test_a_write_that_was_committed_is_told_to_whoever_begins_it(store: Store) -> None:
    begin = partial(store.begin, "key", lease_s=60)
    assert begin(holder="one") is None
    version = store.commit(added("acme"), expected=0, crops={}, receipt=RECEIPT)
    store.end("key", holder="one")
    assert begin(holder="one") == begin(holder="other") == store.find_receipt("key") == replace(RECEIPT, version=version)

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest

from app.adapters.index_faiss import FaissIndex
from app.adapters.store_memory import MemoryStore
from app.domain.changes import ClassRemoved, Committed
from app.domain.gallery import COMPACT_AT, NumpyIndex
from app.domain.prints import Prints
from app.domain.values import FloatArray
from app.errors import StoreUnavailable
from app.service.follow import Galleries, Served
from app.service.ports import Index
from tests.fakes import model_set_for_tests, prints_for_tests
from tests.values import NETWORKS, added, plain, random_units

PRINTS: Prints = prints_for_tests(model_set_for_tests())


class Background(list[Callable[[], None]]):
    """Jobs that wait until the test runs them."""

    def run(self) -> None:
        while self:
            self.pop(0)()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def background() -> Background:
    return Background()


@pytest.fixture
def galleries(store: MemoryStore, background: Background) -> Galleries:
    return galleries_of(store, background)


def galleries_of(store: MemoryStore, background: Background, make_index: Callable[[FloatArray], Index] = NumpyIndex) -> Galleries:
    return Galleries(store, make_index=make_index, networks=NETWORKS, prints=PRINTS, in_background=background.append)


def enrol(store: MemoryStore, *names: str) -> None:
    for name in names:
        store.commit(added(name), expected=0, crops={})


def many(prefix: str = "") -> list[str]:
    return [f"{prefix}{number}" for number in range(COMPACT_AT)]


def test_what_was_committed_is_served_from_the_next_advance_on(store: MemoryStore, galleries: Galleries) -> None:
    enrol(store, "acme", "b")
    served = galleries.advance()
    assert served is galleries.current
    assert (served.gallery.version, served.gallery.names()) == (2, ["acme", "b"])


def test_a_request_keeps_the_version_that_it_took(store: MemoryStore, galleries: Galleries) -> None:
    enrol(store, "acme")
    taken = galleries.advance()
    store.commit(ClassRemoved("acme"), expected=1, crops={})
    galleries.advance()
    assert [state.name for state, _ in taken.best_classes(random_units(1, 2)[0], 5)] == ["acme"]
    assert galleries.current.best_classes(random_units(1, 2)[0], 5) == []


def test_a_start_reads_what_is_there(store: MemoryStore, galleries: Galleries) -> None:
    enrol(store, "acme", "b")
    assert galleries.start().gallery.names() == ["acme", "b"]
    assert galleries.current.gallery.version == 2


def test_answers_after_a_restart_are_equal_bit_by_bit(store: MemoryStore, background: Background) -> None:
    before = galleries_of(store, background, FaissIndex)
    vectors = random_units(2 * COMPACT_AT, 48)
    for number, vector in enumerate(vectors):
        store.commit(added(f"{number}", vector, vectors[number - 1]), expected=0, crops={})
        before.advance()
        if number % 100 == 7:
            background.run()

    after = galleries_of(store, background, FaissIndex)
    after.start()

    assert before.current.gallery.tail  # or this would compare two equal layouts
    assert not after.current.gallery.tail
    for query in random_units(50, 48, seed=1):
        assert _answers(before.current, query) == _answers(after.current, query)


def test_a_follower_that_fell_behind_the_log_reads_a_snapshot(background: Background) -> None:
    store = MemoryStore(keep_changes=2)
    galleries = galleries_of(store, background)
    enrol(store, "a", "b", "c", "d")
    assert galleries.advance().gallery.names() == ["a", "b", "c", "d"]


def test_the_tail_is_merged_in_the_background(store: MemoryStore, galleries: Galleries, background: Background) -> None:
    enrol(store, *many())
    before = galleries.advance()
    assert len(before.gallery.tail) == COMPACT_AT  # not yet: the commit does not wait for it

    background.run()

    after = galleries.current
    assert (after.gallery.tail, after.gallery.block.size) == ({}, COMPACT_AT)
    assert plain(after.gallery.snapshot()) == plain(before.gallery.snapshot())
    assert after.index is not before.index


def test_only_one_merge_is_under_way(store: MemoryStore, galleries: Galleries, background: Background) -> None:
    enrol(store, *many())
    galleries.advance()
    enrol(store, "more")
    galleries.advance()
    assert len(background) == 1


def test_the_next_full_tail_is_merged_too(store: MemoryStore, galleries: Galleries, background: Background) -> None:
    for prefix in "ab":
        enrol(store, *many(prefix))
        galleries.advance()
        background.run()
    assert (galleries.current.gallery.tail, len(galleries.current.gallery)) == ({}, 2 * COMPACT_AT)


@pytest.mark.parametrize("keep_changes", [10_000, 1])
def test_what_is_committed_during_a_merge_is_served_after_it(background: Background, keep_changes: int) -> None:
    store = MemoryStore(keep_changes=keep_changes)

    def commit_meanwhile(representatives: FloatArray) -> Index:
        if len(representatives) == COMPACT_AT:
            enrol(store, "meanwhile", "and again")
            galleries.advance()
        return NumpyIndex(representatives)

    galleries = galleries_of(store, background, commit_meanwhile)
    for name in many():
        enrol(store, name)
        galleries.advance()
    background.run()

    gallery = galleries.current.gallery
    assert gallery.version == COMPACT_AT + 2
    assert gallery.names() == sorted([*many(), "meanwhile", "and again"])


def test_a_merge_that_fails_is_tried_again_with_the_next_commit(store: MemoryStore, background: Background) -> None:
    faults = [MemoryError()]

    def make_index(representatives: FloatArray) -> Index:
        if len(representatives) and faults:
            raise faults.pop()
        return NumpyIndex(representatives)

    galleries = galleries_of(store, background, make_index)
    enrol(store, *many())
    galleries.advance()
    background.run()
    assert len(galleries.current.gallery.tail) == COMPACT_AT  # serves on as it was

    enrol(store, "next")
    galleries.advance()
    background.run()
    assert (galleries.current.gallery.tail, len(galleries.current.gallery)) == ({}, COMPACT_AT + 1)


def test_while_the_store_is_away_the_last_gallery_serves_on(store: MemoryStore, galleries: Galleries) -> None:
    enrol(store, "acme")
    served = galleries.advance()
    store.follow = _away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        galleries.advance()
    assert galleries.current is served


def test_what_this_process_has_committed_is_served_without_asking_the_store(store: MemoryStore, galleries: Galleries) -> None:
    store.follow = _away  # type: ignore[method-assign]
    change = added("acme")
    galleries.take(Committed(store.commit(change, expected=0, crops={}), change))
    assert galleries.current.gallery.names() == ["acme"]
    assert plain(galleries.current.gallery.snapshot()) == plain(store.snapshot())


def test_a_look_has_what_could_not_be_followed_tried_until_it_can(
    store: MemoryStore, galleries: Galleries, background: Background
) -> None:
    follow, store.follow = store.follow, _away  # type: ignore[method-assign]
    enrol(store, "theirs")
    change = added("ours")
    galleries.take(Committed(store.commit(change, expected=0, crops={}), change))
    for _ in range(2):
        assert galleries.current.gallery.names() == []
        assert len(background) == 1
        background.run()

    store.follow = follow  # type: ignore[method-assign]
    assert galleries.current.gallery.names() == []
    background.run()
    assert galleries.current.gallery.names() == ["ours", "theirs"]
    assert len(background) == 0


def test_what_this_process_commits_is_merged_too(store: MemoryStore, galleries: Galleries, background: Background) -> None:
    for name in many():
        change = added(name)
        galleries.take(Committed(store.commit(change, expected=0, crops={}), change))
    background.run()
    assert (galleries.current.gallery.tail, len(galleries.current.gallery)) == ({}, COMPACT_AT)


def test_a_change_makes_no_new_index(store: MemoryStore, galleries: Galleries) -> None:
    before = galleries.current
    enrol(store, "acme")
    assert galleries.advance().index is before.index


def test_a_slow_follower_does_not_undo_what_a_quick_one_served(background: Background) -> None:
    class SlowStore(MemoryStore):
        def follow(self, after: int, *, limit: int = 1000) -> Sequence[Committed]:
            found = super().follow(after, limit=limit)
            if not quick.ident:
                enrol(self, "acme")
                quick.start()
                quick.join(0.05)  # it has to wait; without the lock it would be through by now
            return found

    store = SlowStore()
    galleries = galleries_of(store, background)
    quick = Thread(target=galleries.advance)
    galleries.advance()
    quick.join()
    assert galleries.current.gallery.version == 1


def test_many_writers_never_move_it_backwards(store: MemoryStore, galleries: Galleries) -> None:
    def commit_and_look(number: int) -> bool:
        version = store.commit(added(f"{number}"), expected=0, crops={})
        returned = galleries.advance().gallery.version
        return version <= returned <= galleries.current.gallery.version

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(commit_and_look, range(200)))
    assert galleries.current.gallery.version == 200


def _answers(served: Served, query: FloatArray) -> list[tuple[str, int, float]]:
    return [(state.name, state.version, similarity) for state, similarity in served.best_classes(query, 5)]


def _away(after: int) -> None:
    raise StoreUnavailable("away")

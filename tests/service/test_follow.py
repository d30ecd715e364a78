from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.adapters.index_faiss import FaissIndex
from app.adapters.store_memory import MemoryStore
from app.domain import prints
from app.domain.changes import ClassRemoved, Committed, ExamplesAdded
from app.domain.gallery import COMPACT_AT, NumpyIndex
from app.domain.prints import MERGED_AT_ONCE, MakePointIndex, NumpyPointIndex, PointIndex, Prints
from app.domain.values import FloatArray, Points
from app.errors import StoreUnavailable
from app.service.follow import Galleries, Served
from app.service.ports import Index
from tests.fakes import model_set_for_tests, prints_for_tests
from tests.histories import Expecting, histories
from tests.values import NETWORKS, added, plain, random_units, root_sift

PRINTS: Prints = prints_for_tests(model_set_for_tests(points="points"))  # as in `model_of`


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


def galleries_of(
    store: MemoryStore,
    background: Background,
    make_index: Callable[[FloatArray], Index] = NumpyIndex,
    make_point_index: MakePointIndex = NumpyPointIndex,
) -> Galleries:
    of_none = replace(PRINTS, make_index=make_point_index)
    return Galleries(store, make_index=make_index, networks=NETWORKS, prints=of_none, in_background=background.append)


def enrol(store: MemoryStore, *names: str) -> None:
    for name in names:
        store.commit(added(name), expected=0, crops={})


def with_print(class_name: str, examples: int = 1) -> ExamplesAdded:
    """Examples with three points each, which nobody else has."""
    change = added(class_name, *[(1, 0)] * examples)
    printed = (replace(each, points=points_of(f"{class_name} {each.id}")) for each in change.examples)
    return replace(change, examples=tuple(printed))


def points_of(text: str) -> Points:
    descriptors = root_sift(3, seed=zlib.crc32(text.encode()))
    return Points(np.zeros((3, 4), np.uint16), descriptors, PRINTS.code_book.word_of(descriptors))


def enrol_print(store: MemoryStore, *names: str) -> None:
    for name in names:
        store.commit(with_print(name), expected=0, crops={})


def enrol_so_that_a_merge_is_due(store: MemoryStore) -> None:
    """Two parts, of which the first is not twice as large as the second, and together too large for a change to merge them."""
    for name, examples in (("large", MERGED_AT_ONCE), ("small", MERGED_AT_ONCE - 1)):
        store.commit(with_print(name, examples), expected=0, crops={})


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
        def follow(self, after: int, *, epoch: int | None = None, limit: int = 1000) -> Sequence[Committed]:
            found = super().follow(after, epoch=epoch, limit=limit)
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


# Prints and gallery are of one version


@given(histories(), st.sets(st.integers(0, 20)))
@settings(max_examples=25, deadline=None)
def test_prints_are_those_of_the_gallery_after_any_change(history: list[Expecting], merged_after: set[int]) -> None:
    store, background = MemoryStore(), Background()
    galleries = galleries_of(store, background)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prints, "MERGED_AT_ONCE", 2)
        for number, each in enumerate(history):
            store.commit(each.change, expected=each.expected, crops={})
            served = galleries.advance()
            assert _printed(served) == _enrolled(served)
            if number in merged_after:
                background.run()
                assert _printed(galleries.current) == _enrolled(galleries.current)


def test_print_is_voted_for_from_the_next_advance_on_and_no_longer_than_it_is_enrolled(
    store: MemoryStore, galleries: Galleries
) -> None:
    enrol_print(store, "acme", "b")
    taken = galleries.advance()
    store.commit(ClassRemoved("acme"), expected=1, crops={})
    assert (_voted(taken, "acme"), _voted(galleries.advance(), "acme")) == (["acme"], [])
    assert _voted(galleries.current, "b") == ["b"]


def test_votes_after_a_restart_are_equal(store: MemoryStore, background: Background) -> None:
    before = galleries_of(store, background)
    for number in range(3 * MERGED_AT_ONCE):
        enrol_print(store, f"{number}")
        before.advance()
        if number == 2 * MERGED_AT_ONCE:
            background.run()

    after = galleries_of(store, Background())
    after.start()

    assert len(before.current.prints.parts) > len(after.current.prints.parts) == 1
    for name in ("0", "40", "95"):
        asked = points_of(f"{name} e0")
        one, other = (served.prints.vote(asked, 5) for served in (before.current, after.current))
        assert [(vote.printed.class_name, vote.weight) for vote in one] == [
            (vote.printed.class_name, vote.weight) for vote in other
        ]
        assert one[0].printed.class_name == name


def test_parts_are_merged_in_the_background(store: MemoryStore, galleries: Galleries, background: Background) -> None:
    enrol_so_that_a_merge_is_due(store)
    before = galleries.advance()
    assert (len(before.prints.parts), len(background)) == (2, 1)  # the commit does not wait for it

    background.run()

    after = galleries.current
    assert len(after.prints.parts) == 1
    assert _printed(after) == _printed(before) == _enrolled(after)
    assert after.index is before.index  # of the gallery, for which nothing was due


def test_print_that_is_committed_during_a_merge_is_kept(store: MemoryStore, background: Background) -> None:
    def commit_meanwhile(points: Sequence[Points]) -> PointIndex:
        if len(points) > MERGED_AT_ONCE:
            enrol_print(store, "meanwhile")
            store.commit(ClassRemoved("small"), expected=2, crops={})
            galleries.advance()
        return NumpyPointIndex(points)

    galleries = galleries_of(store, background, make_point_index=commit_meanwhile)
    enrol_so_that_a_merge_is_due(store)
    galleries.advance()
    background.run()

    served = galleries.current
    assert (served.gallery.version, served.gallery.names()) == (4, ["large", "meanwhile"])
    assert _printed(served) == _enrolled(served)
    assert [_voted(served, name) for name in ("large", "meanwhile", "small")] == [["large"], ["meanwhile"], []]


def test_a_merge_of_parts_that_fails_is_tried_again_with_the_next_commit(store: MemoryStore, background: Background) -> None:
    faults = [MemoryError()]

    def make_index(points: Sequence[Points]) -> PointIndex:
        if len(points) > MERGED_AT_ONCE and faults:
            raise faults.pop()
        return NumpyPointIndex(points)

    galleries = galleries_of(store, background, make_point_index=make_index)
    enrol_so_that_a_merge_is_due(store)
    galleries.advance()
    background.run()
    assert _voted(galleries.current, "small") == ["small"]  # serves on as it was

    enrol_print(store, "next")
    galleries.advance()
    background.run()
    assert len(galleries.current.prints.parts) == 1
    assert _voted(galleries.current, "next") == ["next"]


def test_a_follower_that_fell_behind_the_log_reads_print_from_a_snapshot(background: Background) -> None:
    store = MemoryStore(keep_changes=2)
    galleries = galleries_of(store, background)
    enrol_print(store, "a", "b", "c", "d")
    store.commit(ClassRemoved("b"), expected=2, crops={})
    served = galleries.advance()
    assert _printed(served) == _enrolled(served) == [("a", "e0"), ("c", "e0"), ("d", "e0")]


def test_whoever_looks_while_others_commit_and_merge_finds_gallery_and_prints_of_one_version(store: MemoryStore) -> None:
    with ThreadPoolExecutor(1) as background, ThreadPoolExecutor(4) as writers:
        galleries = Galleries(store, make_index=NumpyIndex, networks=NETWORKS, prints=PRINTS, in_background=background.submit)

        def commit_and_look(number: int) -> bool:
            change = with_print(f"{number}")
            galleries.take(Committed(store.commit(change, expected=0, crops={}), change))
            served = galleries.current
            return _printed(served) == _enrolled(served) and (f"{number}", "e0") in _printed(served)

        assert all(writers.map(commit_and_look, range(150)))
    assert len(_printed(galleries.current)) == 150


def _printed(served: Served) -> list[tuple[str, str]]:
    return sorted((one.class_name, one.example.id) for part in served.prints.parts for one in part.living())


def _enrolled(served: Served) -> list[tuple[str, str]]:
    """Examples with points in the gallery."""
    states = [state for name in served.gallery.names() if (state := served.gallery.get(name))]
    return sorted((state.name, example.id) for state in states for example in state.examples if len(example.points))


def _voted(served: Served, class_name: str) -> list[str]:
    """Classes that have all the points of the first example of this one."""
    votes = served.prints.vote(points_of(f"{class_name} e0"), 5)
    return [vote.printed.class_name for vote in votes if vote.weight > 2.9]


def _answers(served: Served, query: FloatArray) -> list[tuple[str, int, float]]:
    return [(state.name, state.version, similarity) for state, similarity in served.best_classes(query, 5)]


def _away(after: int, *, epoch: int) -> None:
    raise StoreUnavailable("away")

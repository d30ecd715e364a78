"""What every index of points promises: to find exactly what a matrix product finds. A new one joins by a line in INDEXES."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from app.adapters.index_faiss import FaissPointIndex
from app.domain.changes import Snapshot
from app.domain.prints import CodeBook, NumpyPointIndex, PointIndex, Prints
from app.domain.values import Points
from tests.contracts.test_index import TASKS, threads_started_by
from tests.values import class_of, example_of, root_sift

WORDS = 16
CODE_BOOK = CodeBook(root_sift(WORDS, seed=1))
POOL = root_sift(150)  # of which the rows are drawn, so that many are equal
MakePointIndex = Callable[[Sequence[Points]], PointIndex]

INDEXES: dict[str, MakePointIndex] = {"numpy": NumpyPointIndex, "faiss": lambda points: FaissPointIndex(points, WORDS)}


@pytest.fixture(params=INDEXES)
def make_index(request: pytest.FixtureRequest) -> MakePointIndex:
    return INDEXES[request.param]


def points_of(descriptors: NDArray[np.uint8]) -> Points:
    return Points(np.zeros((len(descriptors), 4), np.uint16), descriptors, CODE_BOOK.word_of(descriptors))


# Of four examples, one of them without a point.
POINTS = [points_of(POOL[np.random.default_rng(count).integers(0, len(POOL), count)]) for count in (200, 1, 0, 99)]
ROWS, OWN_WORDS = (np.concatenate([getattr(points, name) for points in POINTS]) for name in ("descriptors", "words"))
QUERIES = np.concatenate([POOL[:5], root_sift(6, seed=3)])
EVERYWHERE = np.tile(np.arange(WORDS), (len(QUERIES), 1))


def reachable(probes: NDArray[np.int64], allowed: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """(q, n) rows that each query may find."""
    in_lists = np.array([[word in row for word in OWN_WORDS] for row in probes.tolist()])
    return in_lists if allowed is None else in_lists & allowed


def assert_finds(index: PointIndex, probes: NDArray[np.int64], top: int, allowed: NDArray[np.bool_] | None = None) -> None:
    """The best of what is reachable, exactly; equals in any order."""
    products, rows = index.search(QUERIES, probes, top, allowed)
    assert products.shape == rows.shape == (len(QUERIES), top)
    every = QUERIES.astype(np.int64) @ ROWS.T.astype(np.int64)
    for query, may in enumerate(reachable(probes, allowed)):
        found = rows[query][rows[query] >= 0]
        assert len(set(found.tolist())) == len(found) == min(top, may.sum())
        assert (rows[query][len(found) :] == -1).all()
        assert may[found].all()
        assert products[query][: len(found)].tolist() == every[query][found].tolist()
        assert products[query][: len(found)].tolist() == sorted(every[query][may].tolist(), reverse=True)[:top]


@pytest.mark.parametrize("top", [1, 12, 40])
def test_it_finds_the_nearest_of_all_rows_exactly(make_index: MakePointIndex, top: int) -> None:
    assert_finds(make_index(POINTS), EVERYWHERE, top)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_only_points_of_probed_words_are_found(make_index: MakePointIndex, count: int) -> None:
    probes, _ = CODE_BOOK.nearest(QUERIES, count)
    assert not reachable(probes).all()
    assert_finds(make_index(POINTS), probes, 12)


def test_each_query_has_probes_of_its_own(make_index: MakePointIndex) -> None:
    words = np.random.default_rng(0).permuted(EVERYWHERE, axis=1)[:, :2]
    assert_finds(make_index(POINTS), words, 12)


@pytest.mark.parametrize("step", [2, 7])
def test_only_allowed_rows_are_found(make_index: MakePointIndex, step: int) -> None:
    assert_finds(make_index(POINTS), EVERYWHERE, 12, np.arange(len(ROWS)) % step == 1)


def test_allowed_and_probed_limit_together(make_index: MakePointIndex) -> None:
    probes, _ = CODE_BOOK.nearest(QUERIES, 4)
    assert_finds(make_index(POINTS), probes, 12, np.arange(len(ROWS)) % 2 == 0)


def test_where_there_are_fewer_rows_the_rest_is_minus_one(make_index: MakePointIndex) -> None:
    allowed = np.zeros(len(ROWS), np.bool_)
    allowed[[3, 250]] = True
    assert_finds(make_index(POINTS), EVERYWHERE, 5, allowed)
    assert_finds(make_index(POINTS), EVERYWHERE, 5, np.zeros(len(ROWS), np.bool_))
    assert_finds(make_index(POINTS), EVERYWHERE, len(ROWS) + 5)


def test_a_word_without_points_finds_nothing(make_index: MakePointIndex) -> None:
    lonely = replace(POINTS[0], words=np.full(len(POINTS[0]), 3, np.uint16))
    _, rows = make_index([lonely]).search(QUERIES, np.full((len(QUERIES), 1), 4), 3, None)
    assert (rows == -1).all()


def test_an_answer_does_not_depend_on_what_else_is_asked(make_index: MakePointIndex) -> None:
    index = make_index(POINTS)
    together, _ = index.search(QUERIES, EVERYWHERE, 12, None)
    for query, products in enumerate(together):
        alone, _ = index.search(QUERIES[query : query + 1], EVERYWHERE[:1], 12, None)
        assert alone[0].tolist() == products.tolist()


def test_it_can_be_asked_from_several_threads_at_once(make_index: MakePointIndex) -> None:
    index, allowed = make_index(POINTS), np.arange(len(ROWS)) % 3 == 0
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(assert_finds, index, EVERYWHERE, 12, limit) for limit in (None, allowed) * 8]
        for one in asked:
            one.result()


def test_points_may_change_hands_after_they_are_laid_out(make_index: MakePointIndex) -> None:
    points = [replace(each, descriptors=each.descriptors.copy(), words=each.words.copy()) for each in POINTS]
    index = make_index(points)
    for each in points:
        each.descriptors[:], each.words[:] = 0, 0
    assert_finds(index, EVERYWHERE, 12)


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts threads as Linux shows them")
def test_making_and_searching_start_no_threads(make_index: MakePointIndex) -> None:
    assert threads_started_by(lambda: make_index(POINTS)) <= 0
    index = make_index(POINTS)
    assert threads_started_by(lambda: index.search(QUERIES, EVERYWHERE, 12, None)) <= 0


def test_votes_through_it_are_those_through_numpy(make_index: MakePointIndex) -> None:
    states = [
        replace(
            class_of(f"{number:02}"), examples=(replace(example_of("e"), points=points_of(POOL[5 * number : 5 * number + 9])),)
        )
        for number in range(30)
    ]
    through, beside = (
        Prints("points", CODE_BOOK, make).from_snapshot(Snapshot(1, tuple(states))) for make in (make_index, NumpyPointIndex)
    )
    for among in (None, frozenset({"03", "04", "29"})):
        assert _votes(through, among) == _votes(beside, among) != []


def _votes(prints: Prints, among: frozenset[str] | None) -> list[tuple[str, float, float]]:
    return [(vote.printed.class_name, vote.weight, vote.share) for vote in prints.vote(points_of(QUERIES), 20, among)]

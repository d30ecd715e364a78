"""What every index promises: to find what the numpy oracle finds, but for its own rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from app.adapters.index_faiss import FaissIndex
from app.domain.changes import Committed, Snapshot
from app.domain.gallery import ROUNDING, Gallery, NumpyIndex
from app.domain.values import FloatArray
from app.service.ports import Index
from tests.values import NETWORKS, added, class_of, random_units

DIM = 24
ROWS = random_units(500, DIM)
ERROR = ROUNDING / 2  # of one similarity
TASKS = Path("/proc/self/task")

MakeIndex = Callable[[FloatArray], Index]


@pytest.fixture(params=[NumpyIndex, FaissIndex])
def make_index(request: pytest.FixtureRequest) -> MakeIndex:
    return request.param


@pytest.mark.parametrize("queries", [1, 64])
def test_it_finds_the_nearest_rows_best_first(make_index: MakeIndex, queries: int) -> None:
    asked = random_units(queries, DIM, seed=1)
    similarities, rows = make_index(ROWS).search(asked, 7, None)
    # All products in double precision, sorted.
    products = asked.astype(np.float64) @ ROWS.astype(np.float64).T
    np.testing.assert_allclose(similarities, -np.sort(-products, axis=1)[:, :7], atol=ERROR)
    np.testing.assert_allclose(similarities, np.take_along_axis(products, rows, axis=1), atol=ERROR)
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert all(len(set(found)) == 7 for found in rows.tolist())


@pytest.mark.parametrize("queries", [1, 64])
def test_it_finds_allowed_rows_only(make_index: MakeIndex, queries: int) -> None:
    asked = random_units(queries, DIM, seed=1)
    allowed = np.arange(len(ROWS)) % 3 == 1
    similarities, rows = make_index(ROWS).search(asked, 5, allowed)
    expected, _ = NumpyIndex(ROWS[allowed]).search(asked, 5, None)
    assert allowed[rows].all()
    np.testing.assert_allclose(similarities, expected, atol=ERROR)


def test_where_there_are_fewer_rows_the_rest_is_minus_one(make_index: MakeIndex) -> None:
    allowed = np.zeros(len(ROWS), np.bool_)
    allowed[[3, 400]] = True
    similarities, rows = make_index(ROWS).search(ROWS[:2], 4, allowed)
    assert similarities.shape == rows.shape == (2, 4)
    assert {frozenset(found) for found in rows[:, :2].tolist()} == {frozenset({3, 400})}
    assert rows[:, 2:].tolist() == [[-1, -1], [-1, -1]]


def test_an_answer_has_the_length_asked_for_even_past_all_rows(make_index: MakeIndex) -> None:
    _, rows = make_index(ROWS[:2]).search(ROWS[:1], 3, None)
    assert rows.tolist()[0][0] == 0
    assert rows.tolist()[0][2] == -1


def threads_started_by(work: Callable[[], object]) -> int:
    """In a thread of its own, because OpenMP keeps its settings and its helpers for each caller."""
    counted = []

    def count_around() -> None:
        counted.append(len(list(TASKS.iterdir())))
        work()
        counted.append(len(list(TASKS.iterdir())))

    caller = Thread(target=count_around)
    caller.start()
    caller.join()
    before, after = counted
    return after - before


# Callers are parallel already.
@pytest.mark.skipif(not TASKS.is_dir(), reason="counts threads as Linux shows them")
def test_searching_starts_no_threads(make_index: MakeIndex) -> None:
    index = make_index(ROWS)
    assert threads_started_by(lambda: index.search(ROWS[:8], 5, None)) <= 0


@pytest.mark.skipif(not TASKS.is_dir(), reason="counts threads as Linux shows them")
def test_making_an_index_starts_no_threads(make_index: MakeIndex) -> None:
    assert threads_started_by(lambda: make_index(ROWS)) <= 0


def test_an_index_of_nothing_can_be_made(make_index: MakeIndex) -> None:
    make_index(Gallery.empty(NETWORKS).block.representatives())


def test_classes_found_through_it_are_those_that_numpy_finds(make_index: MakeIndex) -> None:
    vectors = random_units(400, DIM, seed=2)
    states = (class_of(f"{number:03}", *vectors[4 * number : 4 * number + 1 + number % 4]) for number in range(90))
    gallery = Gallery.from_snapshot(Snapshot(1, tuple(states)), NETWORKS)
    search = make_index(gallery.block.representatives()).search
    gallery = gallery.fold(Committed(2, added("007", vectors[399], ids="later")), Committed(3, added("late", vectors[398])))
    for query in random_units(20, DIM, seed=3):
        for among in (None, frozenset({"001", "007", "late"})):
            assert gallery.best_classes(query, 5, among, search) == gallery.best_classes(query, 5, among)

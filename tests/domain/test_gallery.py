from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.domain.changes import ClassConfigured, ClassRemoved, Committed, Snapshot
from app.domain.gallery import COMPACT_AT, ROUNDING, Gallery, Mask, similarities_of, similarity_of
from app.domain.values import ClassState, FloatArray
from tests.histories import NAMES, VECTORS, Expecting, committed, histories, snapshot_after
from tests.values import DETECTOR, NETWORKS, added, class_of, model_of, plain, random_units, unit

queries = st.sampled_from([*VECTORS, unit((1, 2, 3)), unit((-1, 0, 0))])
filters = st.none() | st.frozensets(st.sampled_from([*NAMES, "nobody"]))


@given(histories(), st.integers(0, 20))
def test_any_history_gives_the_gallery_that_a_snapshot_gives(history: list[Expecting], compacted_after: int) -> None:
    changes = committed(history)

    folded = Gallery.empty(NETWORKS).fold(*changes[:compacted_after]).compacted().fold(*changes[compacted_after:])

    rebuilt = Gallery.from_snapshot(snapshot_after(changes), NETWORKS)
    assert _contents(folded) == _contents(rebuilt)
    for query in VECTORS:
        assert _named(folded.best_classes(query, 3)) == _named(rebuilt.best_classes(query, 3))


@given(histories())
def test_folding_one_by_one_and_all_at_once_are_the_same(history: list[Expecting]) -> None:
    changes = committed(history)
    one_by_one = Gallery.empty(NETWORKS)
    for change in changes:
        one_by_one = one_by_one.fold(change)
    assert _contents(one_by_one) == _contents(Gallery.empty(NETWORKS).fold(*changes))


@given(
    histories(), st.integers(0, 20), queries, st.integers(1, 8), st.none() | st.frozensets(st.sampled_from([*NAMES, "nobody"]))
)
def test_search_equals_a_naive_one(
    history: list[Expecting], compacted_after: int, query: FloatArray, top: int, among: frozenset[str] | None
) -> None:
    changes = committed(history)
    gallery = Gallery.empty(NETWORKS).fold(*changes[:compacted_after]).compacted().fold(*changes[compacted_after:])

    found = _named(gallery.best_classes(query, top, among))

    asked = [state for state in snapshot_after(changes).classes if among is None or state.name in among]
    assert found == _naive(asked, query)[:top]


@given(histories(), st.integers(1, 4))
def test_pages_of_names_cover_every_class_once_in_order(history: list[Expecting], limit: int) -> None:
    changes = committed(history)
    middle = len(changes) // 2
    gallery = Gallery.empty(NETWORKS).fold(*changes[:middle]).compacted().fold(*changes[middle:])

    pages, after = [], ""
    while page := gallery.names(after, limit):
        pages += page
        after = page[-1]

    assert pages == [state.name for state in snapshot_after(changes).classes]


@given(histories())
def test_a_gallery_is_not_changed_by_what_is_folded_onto_it(history: list[Expecting]) -> None:
    changes = committed(history)
    middle = len(changes) // 2
    gallery = Gallery.empty(NETWORKS).fold(*changes[:middle]).compacted()
    before = _contents(gallery), _named(gallery.best_classes(VECTORS[0], 3))

    gallery.fold(*changes[middle:])

    assert (_contents(gallery), _named(gallery.best_classes(VECTORS[0], 3))) == before


@pytest.mark.parametrize("version", [3, 5, 6])
def test_a_gap_or_a_repeat_in_the_changes_is_refused(version: int) -> None:
    gallery = Gallery.from_snapshot(Snapshot(3, ()), NETWORKS)
    with pytest.raises(ValueError, match="does not follow"):
        gallery.fold(Committed(version, added("acme")))


def test_similarities_are_the_same_for_many_classes_at_once() -> None:
    query, *vectors = random_units(41, 48)
    classes = [np.stack(vectors[first : first + 1 + first % 4]) for first in range(0, 36, 3)]
    assert similarities_of(query, classes) == [similarity_of(query, representatives) for representatives in classes]


def test_the_similarity_of_a_class_is_that_of_its_nearest_representative() -> None:
    gallery = _gallery_of(class_of("acme", (1, 0), (3, 4)), class_of("b", (0, 1)))
    # (3, 4) / 5 times (0, 1) is 4 / 5.
    assert _named(gallery.best_classes(unit((0, 1)), 2)) == [("b", 1.0), ("acme", 0.8)]


def test_classes_of_equal_similarity_come_in_the_order_of_their_names() -> None:
    gallery = _gallery_of(class_of("a", (1, 0)), class_of("c", (1, 0))).fold(Committed(2, added("b", (1, 0))))
    assert _named(gallery.best_classes(unit((1, 0)), 3)) == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


def test_a_crowd_of_near_equals_hides_nobody_when_the_index_errs_by_its_rounding() -> None:
    crowd = [class_of(f"{position:03}", (1, position * 1e-9)) for position in range(300)]
    gallery = _gallery_of(*crowd, class_of("off", (1, 1)))
    error = np.linspace(-0.49, 0.49, gallery.block.size, dtype=np.float32) * np.float32(ROUNDING)  # puts the first names last

    def search(queries: FloatArray, top: int, allowed: Mask | None) -> tuple[FloatArray, NDArray[np.int64]]:
        similarities = queries @ gallery.block.representatives().T + error
        rows = np.argsort(-similarities)[:, :top]
        return np.take_along_axis(similarities, rows, axis=1), rows

    assert [name for name, _ in _named(gallery.best_classes(unit((1, 0)), 2, None, search))] == ["000", "001"]


def test_a_class_with_many_representatives_crowds_nobody_out() -> None:
    gallery = _gallery_of(class_of("many", (1, 0), (1, 0.1), (1, 0.2)), class_of("one", (1, 1)), class_of("two", (0, 1)))
    assert [name for name, _ in _named(gallery.best_classes(unit((1, 0)), 2))] == ["many", "one"]


def test_a_class_of_other_networks_is_listed_but_never_answers() -> None:
    gallery = _gallery_of(class_of("new", (1, 0)), class_of("old", (1, 0, 0, 0), networks="earlier networks"))
    assert gallery.names() == ["new", "old"]
    assert _named(gallery.best_classes(unit((1, 0)), 2)) == [("new", 1.0)]


def test_a_class_without_examples_never_answers() -> None:
    gallery = _gallery_of(ClassState("empty", 1), class_of("acme", (1, 0)))
    assert _named(gallery.best_classes(unit((1, 0)), 2)) == [("acme", 1.0)]


def test_an_empty_gallery_answers_nothing() -> None:
    gallery = Gallery.empty(NETWORKS)
    assert (len(gallery), gallery.names(), gallery.best_classes(unit((1, 0)), 5)) == (0, [], [])


def test_a_class_is_found_with_what_was_configured_last() -> None:
    gallery = _gallery_of(class_of("acme", (1, 0))).fold(Committed(2, ClassConfigured("acme", 0.9, {})))
    ((state, _),) = gallery.best_classes(unit((1, 0)), 5)
    assert (state.version, state.user_threshold) == (2, 0.9)


def test_compaction_is_due_after_so_many_classes_changed_and_no_longer_after_it() -> None:
    gallery = Gallery.empty(NETWORKS).fold(*(Committed(version, added(f"{version}")) for version in range(1, COMPACT_AT)))
    assert not gallery.needs_compaction
    gallery = gallery.fold(Committed(COMPACT_AT, added("last")))
    assert gallery.needs_compaction
    assert not gallery.compacted().needs_compaction


def test_removals_count_towards_compaction_too() -> None:
    gallery = _gallery_of(*(class_of(f"{number:03}") for number in range(COMPACT_AT)))
    removals = (Committed(2 + number, ClassRemoved(f"{number:03}")) for number in range(COMPACT_AT))
    assert gallery.fold(*removals).needs_compaction


def test_folding_shares_the_block_so_that_it_costs_what_changed() -> None:
    gallery = _gallery_of(class_of("acme"))
    assert gallery.fold(Committed(2, added("b"))).block is gallery.block


def test_a_similarity_does_not_depend_on_how_its_vectors_lie_in_memory() -> None:
    query, vectors = random_units(1, 257)[0], random_units(5, 257, seed=1)
    shifted = np.concatenate([np.zeros(3, np.float32), vectors.ravel()])[3:].reshape(5, 257)
    one_by_one = max(similarity_of(query, vectors[row : row + 1]) for row in range(5))
    found = {similarity_of(query, laid_out) for laid_out in (vectors, shifted, np.asfortranarray(vectors))}
    assert found == {one_by_one}


scenes = st.lists(queries, min_size=1, max_size=4).map(np.stack)  # regions (m, 3)


@given(histories(), st.integers(0, 20), scenes, filters)
def test_regions_are_compared_with_each_class_as_a_naive_search_would(
    history: list[Expecting], compacted_after: int, regions: FloatArray, among: frozenset[str] | None
) -> None:
    changes = committed(history)
    gallery = Gallery.empty(NETWORKS, DETECTOR).fold(*changes[:compacted_after]).compacted().fold(*changes[compacted_after:])

    names, similarities = gallery.region_similarities(regions, among)

    found = {name: column for name, column in zip(names, similarities.T, strict=True) if np.isfinite(column).all()}
    known = {state.name: _known(state) for state in snapshot_after(changes).classes if len(_known(state))}
    assert found.keys() == {name for name in known if among is None or name in among}
    assert gallery.knows_regions >= bool(known)  # the block may know one that is gone
    for name, column in found.items():
        expected = [max(float(region @ one) / np.linalg.norm(one) for one in known[name]) for region in regions.astype(float)]
        assert column == pytest.approx(expected, abs=1e-6)
        assert [gallery.similarities_at(region, [name])[name] for region in regions] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("detector", ["", "another detector"])
def test_what_another_detector_has_seen_is_not_compared(detector: str) -> None:
    gallery = Gallery.from_snapshot(Snapshot(1, (_seen("acme", (1, 0)),)), NETWORKS, detector)
    assert not gallery.knows_regions
    assert gallery.region_similarities(unit([(1, 0)]))[0] == ()
    assert gallery.similarities_at(unit((1, 0)), ["acme"]) == {}


def test_a_class_of_other_networks_is_not_seen_either() -> None:
    elsewhere = model_of((1, 0), regions=unit([(1, 0)]).astype(np.float16), networks="other networks")
    gallery = Gallery.from_snapshot(Snapshot(1, (ClassState("acme", 1, (), elsewhere),)), NETWORKS, DETECTOR)
    assert not gallery.knows_regions


def test_a_commit_copies_none_of_what_the_detector_knows() -> None:
    gallery = Gallery.from_snapshot(Snapshot(1, (_seen("acme", (1, 0)), _seen("b", (0, 1)))), NETWORKS, DETECTOR)
    changed = gallery.fold(Committed(2, ClassConfigured("acme", 0.9, {})), Committed(3, added("c")))
    assert changed.block.known is gallery.block.known is not None
    names, similarities = changed.region_similarities(unit([(1, 0)]))
    # The row of the block is masked, the one of the tail holds; nobody has seen c.
    assert (names, similarities.tolist()) == (("acme", "b", "acme"), [[-np.inf, 0, 1]])


def _seen(name: str, *regions: tuple[float, float]) -> ClassState:
    return ClassState(name, 1, (), model_of((1, 0), regions=unit(regions).astype(np.float16)))


def _known(state: ClassState) -> NDArray[np.float64]:
    return np.empty((0, 0)) if state.model is None else state.model.regions.astype(np.float64)


def _gallery_of(*states: ClassState) -> Gallery:
    return Gallery.from_snapshot(Snapshot(1, states), NETWORKS)


def _contents(gallery: Gallery) -> tuple[int, int, list[object]]:
    names = gallery.names()
    return gallery.version, len(gallery), [plain(gallery.get(name)) for name in names]


def _named(found: Iterable[tuple[ClassState, float]]) -> list[tuple[str, float]]:
    return [(state.name, similarity) for state, similarity in found]


def _naive(states: list[ClassState], query: FloatArray) -> list[tuple[str, float]]:
    """All classes by similarity: sums without rounding in plain Python, no numpy, no index."""
    found = [
        (state.name, round(max(math.fsum(map(math.prod, zip(row, query.tolist(), strict=True))) for row in rows), 6))
        for state in states
        if state.model is not None and (rows := state.model.representatives.tolist())
    ]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))

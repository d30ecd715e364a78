"""Votes by hand, beside a naive vote, and after any history.

By hand, descriptors are blocks of 16 entries of 128: of length 512, and as similar as the share of entries they have in common.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.domain import prints
from app.domain.changes import (
    Change,
    ClassConfigured,
    ClassRefitted,
    ClassRemoved,
    ClassRenamed,
    ClassRestored,
    Committed,
    ExampleRemoved,
    ExamplesAdded,
    Snapshot,
)
from app.domain.prints import (
    EXAMPLES_OF_A_CLASS,
    GROWTH,
    MERGED_AT_ONCE,
    NEIGHBOURS,
    PROBES,
    CodeBook,
    NumpyPointIndex,
    PointIndex,
    Prints,
    Vote,
    weights_of,
)
from app.domain.values import ClassModel, Example, Points
from app.domain.verification import LENGTH_SQUARED
from tests.histories import NAMES, Expecting, committed, histories, snapshot_after
from tests.values import class_of, example_of, model_of, root_sift

Descriptors = NDArray[np.uint8]
Owner = tuple[str, str]  # class and example

CURRENT, EARLIER = "points", "earlier points"  # the first is what `model_of` says
WORDS = root_sift(2 * PROBES, seed=1)
POOL = root_sift(24)  # few enough that examples share descriptors
STRANGERS = root_sift(4, seed=2)
WORD_NAMES = [f"word {number}" for number in range(len(WORDS))]  # in the naive vote, each a class of its own
CODE_BOOK = CodeBook(WORDS)
EMPTY = Prints(CURRENT, CODE_BOOK, NumpyPointIndex)


def points_of(descriptors: Descriptors, code_book: CodeBook = CODE_BOOK) -> Points:
    return Points(np.zeros((len(descriptors), 4), np.uint16), descriptors, code_book.word_of(descriptors))


def blocks(*starts: int) -> Descriptors:
    entries = np.arange(128)
    return np.stack([np.where((entries >= start) & (entries < start + 16), 128, 0) for start in starts]).astype(np.uint8)


ONE_WORD = CodeBook(blocks(8))  # half like the block at 0


def prints_of(examples: dict[str, Sequence[Descriptors]]) -> Prints:
    """Classes by name, with the descriptors of each of their examples `e0`, `e1`…, and a code book of one word."""
    states = []
    for name, several in examples.items():
        made = tuple(replace(example_of(f"e{n}"), points=points_of(each, ONE_WORD)) for n, each in enumerate(several))
        states.append(replace(class_of(name), examples=made))
    return Prints(CURRENT, ONE_WORD, NumpyPointIndex).from_snapshot(Snapshot(1, tuple(states)))


def shown(votes: Iterable[Vote]) -> list[tuple[str, str, float, float]]:
    """Shares are sums of all classes in the order in which they lie, which may round otherwise in another layout."""
    return [
        (vote.printed.class_name, vote.printed.example.id, vote.weight, pytest.approx(vote.share, rel=1e-12)) for vote in votes
    ]


def named(votes: Iterable[Vote]) -> list[Owner]:
    return [(vote.printed.class_name, vote.printed.example.id) for vote in votes]


# Weights by hand


def test_a_neighbour_weighs_the_square_of_how_much_nearer_it_is_than_the_last() -> None:
    # 0.9, 0.8, 0.7 and 0.5: (0.4 / 0.5)^2, nothing for the second of owner 0, (0.2 / 0.5)^2, and nothing for the last.
    products = np.array([[0.9, 0.8, 0.7, 0.5]], np.float32) * np.float32(LENGTH_SQUARED)
    assert weights_of(products, np.array([[0, 0, 1, 2]])).tolist() == [pytest.approx([0.64, 0, 0.16, 0], abs=1e-6)]


def test_each_point_weighs_its_own_neighbours() -> None:
    products = np.array([[1, 0.5], [0.8, 0.8], [0.5, 0]], np.float32) * np.float32(LENGTH_SQUARED)
    assert weights_of(products, np.array([[0, 1], [0, 1], [1, 0]])).tolist() == [[1, 0], [0, 0], [0.25, 0]]


def test_a_neighbour_nearer_than_its_length_allows_weighs_no_more_than_one() -> None:
    products = np.array([[1.002, 1.001], [1.002, 0.2]], np.float32) * np.float32(LENGTH_SQUARED)
    assert weights_of(products, np.array([[0, 1], [0, 1]])).tolist() == [[1, 0], [1, 0]]


def test_the_nearest_words_take_their_part_of_the_votes() -> None:
    # The point itself weighs 1, the one that is 12/16 like it 0.5625, the word that is 8/16 like it 0.25.
    first, second = prints_of({"a": [blocks(0)], "b": [blocks(4)]}).vote(points_of(blocks(0), ONE_WORD), 5)
    assert (first.weight, second.weight) == pytest.approx((1, 0.5625))
    assert (first.share, second.share) == pytest.approx((1 / 1.8125, 0.5625 / 1.8125))


def test_a_point_that_is_near_to_nothing_enrolled_goes_to_its_word() -> None:
    # 1/16 like the only point there is, and all but the same as the word.
    (vote,) = prints_of({"a": [blocks(23)]}).vote(points_of(blocks(8), ONE_WORD), 5)
    assert (vote.weight, vote.share) == pytest.approx((1 / 256, (1 / 256) / (1 + 1 / 256)))


def test_a_class_has_one_vote_of_a_point_however_many_of_its_points_are_near() -> None:
    votes = prints_of({"a": [blocks(0, 0, 1), blocks(0)]}).vote(points_of(blocks(0), ONE_WORD), 5)
    assert [vote.weight for vote in votes] == [1, 1]
    assert [vote.share for vote in votes] == pytest.approx([0.8, 0.8])


def test_the_points_of_a_picture_add_up() -> None:
    (vote,) = prints_of({"a": [blocks(0, 100)]}).vote(points_of(blocks(0, 100, 0), ONE_WORD), 5)
    # Each finds its own, and the two at 0 a word of 0.25.
    assert (vote.weight, vote.share) == pytest.approx((3, 3 / 3.5))


@pytest.mark.parametrize(("classes", "voted"), [(NEIGHBOURS - 1, NEIGHBOURS - 1), (NEIGHBOURS, 0), (3 * NEIGHBOURS, 0)])
def test_a_point_that_fits_as_many_classes_as_there_are_neighbours_counts_nothing(classes: int, voted: int) -> None:
    everywhere = {f"{number:02}": [blocks(0)] for number in range(classes)}
    votes = prints_of(everywhere).vote(points_of(blocks(0), ONE_WORD), 100)
    assert [vote.weight for vote in votes] == [1] * voted


def test_what_only_one_class_has_decides_between_many_that_share_the_rest() -> None:
    shared = {f"{number:02}": [blocks(0, 40)] for number in range(3 * NEIGHBOURS)}
    votes = prints_of(shared | {"17": [blocks(0, 40, 80)]}).vote(points_of(blocks(0, 40, 80), ONE_WORD), 5)
    assert [(vote.printed.class_name, vote.weight, vote.share) for vote in votes] == [("17", 1, 1)]


# Who is proposed


def test_equals_come_in_the_order_of_names_and_then_of_examples() -> None:
    same, late = [blocks(0)], replace(example_of("d"), points=points_of(blocks(0), ONE_WORD))
    equals = prints_of({"b": same, "c": same, "a": same}).fold(Committed(2, ExamplesAdded("c", (late,), model_of((1, 0)))))
    assert named(equals.vote(points_of(blocks(0), ONE_WORD), 5)) == [("a", "e0"), ("b", "e0"), ("c", "d"), ("c", "e0")]


@pytest.mark.parametrize("top", [1, 2, 3, 9])
def test_of_a_class_the_best_two_are_proposed_and_of_all_the_best_few(top: int) -> None:
    # 16, 12, 14 and 15 of 16 entries in common.
    votes = prints_of({"a": [blocks(start) for start in (0, 4, 2, 1)], "b": [blocks(6)]}).vote(
        points_of(blocks(0), ONE_WORD), top
    )
    assert named(votes) == [("a", "e0"), ("a", "e3"), ("b", "e0")][:top]


def test_a_picture_without_points_votes_for_nobody() -> None:
    assert prints_of({"a": [blocks(0)]}).vote(Points.none(), 5) == []


def test_without_prints_nobody_is_voted_for() -> None:
    assert EMPTY.vote(points_of(POOL), 5) == []
    assert EMPTY.from_snapshot(Snapshot(1, (class_of("a"),))).parts == ()


def test_a_filter_of_nobody_with_print_finds_nobody() -> None:
    of_two = prints_of({"a": [blocks(0)], "b": [blocks(0)[:0]]})
    assert of_two.vote(points_of(blocks(0), ONE_WORD), 5, frozenset({"b", "nobody"})) == []
    assert of_two.vote(points_of(blocks(0), ONE_WORD), 5, frozenset()) == []


def test_a_removed_example_is_not_voted_for_and_counts_for_nobody() -> None:
    both = prints_of({"a": [blocks(0), blocks(4)], "b": [blocks(2)]})
    left = both.fold(Committed(2, ExampleRemoved("a", "e0", model_of((1, 0)))))
    asked = points_of(blocks(0), ONE_WORD)
    assert named(left.vote(asked, 5)) == [("b", "e0"), ("a", "e1")]
    assert named(left.vote(asked, 5, frozenset({"a"}))) == [("a", "e1")]
    assert left.fold(Committed(3, ClassRemoved("b"))).vote(asked, 5)[0].share == pytest.approx(0.5625 / 0.8125)


def test_a_renamed_class_is_voted_for_under_its_new_name_with_all_its_examples() -> None:
    asked, more = points_of(blocks(0), ONE_WORD), replace(example_of("e2"), points=points_of(blocks(2), ONE_WORD))
    enrolled = prints_of({"a": [blocks(4), blocks(0)]}).fold(Committed(2, ExamplesAdded("a", (more,), model_of((1, 0)))))
    renamed = enrolled.fold(Committed(3, ClassRenamed("a", "b", None, {})))
    assert named(enrolled.vote(asked, 5)) == [("a", "e1"), ("a", "e2")]
    assert named(renamed.vote(asked, 5)) == [("b", "e1"), ("b", "e2")]
    last = renamed.fold(Committed(4, ExampleRemoved("b", "e1", model_of((1, 0)))))
    assert named(last.vote(asked, 5)) == [("b", "e2"), ("b", "e0")]


def test_examples_whose_points_were_found_otherwise_are_left_out() -> None:
    here, there = (replace(each, examples=(_example("e", 0, blocks(0)),)) for each in (class_of("here"), class_of("there")))
    there = replace(there, model=_made_by(model_of((1, 0)), EARLIER))
    snapshot, asked = Snapshot(2, (here, there)), points_of(blocks(0))
    assert named(EMPTY.from_snapshot(snapshot).vote(asked, 5)) == [("here", "e")]

    enrolled = [ExamplesAdded(state.name, state.examples, state.model) for state in (here, there) if state.model]
    later = EMPTY.fold(*(Committed(version, change) for version, change in enumerate(enrolled, start=1)))
    assert named(later.vote(asked, 5)) == [("here", "e")]
    found_again = later.fold(Committed(3, ClassRefitted("there", there.examples, here.model)))
    assert named(found_again.vote(asked, 5)) == [("here", "e"), ("there", "e")]
    outdated = found_again.fold(Committed(4, ClassRefitted("here", here.examples, there.model)))
    assert named(outdated.vote(asked, 5)) == [("there", "e")]


# After any history

numbers = st.integers(0, len(POOL) + len(STRANGERS) - 1)
pictures = st.lists(numbers, max_size=8).map(lambda chosen: points_of(np.concatenate([POOL, STRANGERS])[chosen]))
filters = st.frozensets(st.sampled_from([*NAMES, "nobody"]))
positions = st.sets(st.integers(0, 20))


@given(histories(), positions, pictures)
@settings(max_examples=60, deadline=None)
def test_any_history_votes_as_a_snapshot_does(history: list[Expecting], compacted_after: set[int], picture: Points) -> None:
    changes = _with_print(committed(history))
    folded, rebuilt = _folded(changes, compacted_after), EMPTY.from_snapshot(snapshot_after(changes))
    assert shown(folded.vote(picture, 100)) == shown(rebuilt.vote(picture, 100))


@given(histories(), positions, pictures, st.none() | filters)
@settings(max_examples=40, deadline=None)
def test_a_vote_equals_a_naive_one(
    history: list[Expecting], compacted_after: set[int], picture: Points, among: frozenset[str] | None
) -> None:
    changes = _with_print(committed(history))
    votes = _folded(changes, compacted_after).vote(picture, 100, among)
    expected = _naive_votes(snapshot_after(changes), picture, among)
    assert set(named(votes)) == set(expected)
    for vote in votes:
        found = expected[vote.printed.class_name, vote.printed.example.id]
        assert (vote.weight, vote.share) == pytest.approx(found, rel=1e-4, abs=1e-5)


@given(histories(), positions, pictures, filters)
@settings(max_examples=40, deadline=None)
def test_a_filter_votes_as_prints_of_these_classes_alone(
    history: list[Expecting], compacted_after: set[int], picture: Points, among: frozenset[str]
) -> None:
    changes = _with_print(committed(history))
    snapshot = snapshot_after(changes)
    alone = EMPTY.from_snapshot(replace(snapshot, classes=tuple(state for state in snapshot.classes if state.name in among)))
    assert shown(_folded(changes, compacted_after).vote(picture, 100, among)) == shown(alone.vote(picture, 100))


@given(histories(), pictures, st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_votes_come_best_first_two_of_a_class_and_share_no_more_than_there_is(
    history: list[Expecting], picture: Points, top: int
) -> None:
    folded = _folded(_with_print(committed(history)), set())
    everything = folded.vote(picture, 100)
    weights, shares = [vote.weight for vote in everything], {vote.printed.class_name: vote.share for vote in everything}
    assert shown(folded.vote(picture, top)) == shown(everything[:top])
    assert weights == sorted(weights, reverse=True)
    assert all(weight > 0 for weight in weights)
    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) <= 1 + 1e-12
    assert all(sum(name == other for name, _ in named(everything)) <= EXAMPLES_OF_A_CLASS for other in shares)


@given(histories(), positions, pictures)
@settings(max_examples=20, deadline=None)
def test_prints_are_not_changed_by_what_is_folded_onto_them(
    history: list[Expecting], compacted_after: set[int], picture: Points
) -> None:
    changes = _with_print(committed(history))
    middle = len(changes) // 2
    before = _folded(changes[:middle], compacted_after)
    votes = shown(before.vote(picture, 100))

    before.fold(*changes[middle:]).compacted()

    assert shown(before.vote(picture, 100)) == votes


def test_a_class_that_was_only_configured_keeps_its_prints_as_they_lie() -> None:
    of_one = prints_of({"a": [blocks(0)]})
    assert of_one.fold(Committed(2, ClassConfigured("a", 0.9, {}))).parts is of_one.parts


# How examples lie


class LaidOut:
    """Makes indexes, and notes of how many examples each was."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, points: Sequence[Points]) -> PointIndex:
        self.sizes.append(len(points))
        return NumpyPointIndex(points)


ONE_POINT = replace(example_of("e"), points=points_of(POOL[:1]))


def addition(class_name: str, examples: int = 1, *, version: int = 1) -> Committed:
    """Of examples with a point each."""
    made = tuple(replace(ONE_POINT, id=f"e{number}") for number in range(examples))
    return Committed(version, ExamplesAdded(class_name, made, model_of((1, 0))))


@pytest.mark.parametrize(("changes", "each"), [(300, 1), (30, 40), (60, 7)])
def test_the_number_of_parts_is_logarithmic_when_they_are_merged_as_they_become_due(changes: int, each: int) -> None:
    folded = EMPTY
    for number in range(changes):
        folded = folded.fold(addition(f"{number}", each))
        if folded.needs_compaction:
            folded = folded.compacted()
        assert not folded.needs_compaction
        # A part has twice what all that come after it have, so that with it they are three times as many.
        assert len(folded.parts) <= 1 + log(each * (number + 1), 1 + GROWTH)
    assert sum(part.size for part in folded.parts) == changes * each


def test_a_change_lays_out_a_few_examples_again_and_leaves_the_rest_to_the_background() -> None:
    laid_out = LaidOut()
    few = replace(EMPTY, make_index=laid_out).fold(*(addition(f"{number}") for number in range(MERGED_AT_ONCE)))
    assert len(few.parts) <= 1 + log(MERGED_AT_ONCE, 1 + GROWTH)
    assert not few.needs_compaction

    many = few.fold(*(addition(f"more {number}") for number in range(100)))
    assert max(laid_out.sizes) <= MERGED_AT_ONCE
    assert many.needs_compaction
    assert [part.size for part in many.compacted().parts] == [100 + MERGED_AT_ONCE]


@pytest.mark.parametrize("first", [1, 20, 5 * MERGED_AT_ONCE])
def test_a_thousand_changes_that_the_background_has_no_time_for_leave_few_parts(first: int) -> None:
    folded = EMPTY.fold(addition("first", first))
    for number in range(1_000):
        folded = folded.fold(addition(f"{number}"))
    # A part that no change lays out again has more than a third of MERGED_AT_ONCE.
    assert len(folded.parts) <= 3 * 1_000 / MERGED_AT_ONCE
    assert sum(part.size for part in folded.parts) == 1_000 + first


def test_votes_do_not_know_how_long_the_background_took() -> None:
    changes = [addition("large", 5 * MERGED_AT_ONCE)]
    for number in range(4 * MERGED_AT_ONCE):
        example = _example("e", number, POOL[number % len(POOL)][np.newaxis])
        changes.append(Committed(2 + number, ExamplesAdded(f"{number}", (example,), model_of((1, 0)))))
        if number % 3 == 0:
            changes.append(Committed(2 + number, ClassRemoved(f"{number}")))
    waiting, rebuilt = EMPTY.fold(*changes), EMPTY.from_snapshot(snapshot_after(changes))
    asked = points_of(np.concatenate([POOL[3:], STRANGERS]))
    assert len(waiting.parts) > 2
    assert shown(waiting.vote(asked, 100)) == shown(waiting.compacted().vote(asked, 100)) == shown(rebuilt.vote(asked, 100))


def test_parts_whose_examples_are_all_gone_are_let_go() -> None:
    three = EMPTY.fold(addition("a", 20), addition("b", 4), addition("c"))
    assert [part.size for part in three.parts] == [20, 4, 1]
    less = three.fold(*(Committed(4 + number, ExampleRemoved("b", f"e{number}", model_of((1, 0)))) for number in range(4)))
    assert [part.size for part in less.parts] == [20, 1]
    assert less.fold(Committed(8, ClassRemoved("a")), Committed(9, ClassRemoved("c"))).parts == ()


def test_a_change_shares_the_parts_that_it_does_not_touch() -> None:
    large = EMPTY.fold(addition("a", 20))
    with_small = large.fold(addition("b"))
    assert [part.size for part in with_small.parts] == [20, 1]
    assert with_small.parts[0] is large.parts[0]
    assert with_small.fold(Committed(3, ClassRemoved("b"))).parts[0] is large.parts[0]


def test_what_was_removed_is_laid_out_no_more_once_its_part_is_merged() -> None:
    left = EMPTY.fold(addition("a", 20), addition("b"), Committed(3, ClassRemoved("a")), addition("c"))
    assert [[one.class_name for one in part.printed] for part in left.parts] == [["b", "c"]]


# The code book


def test_the_word_of_a_descriptor_is_the_nearest_by_distance() -> None:
    words = np.concatenate([WORDS, WORDS // 2])  # as centroids are: shorter than what they are the centre of
    descriptors = np.concatenate([POOL, STRANGERS, WORDS, WORDS // 3])
    squared = np.square(descriptors[:, None].astype(np.int64) - words.astype(np.int64)).sum(axis=2)
    assert CodeBook(words).word_of(descriptors).tolist() == squared.argmin(axis=1).tolist()


@pytest.mark.parametrize("count", [1, 5, 32, 100])
def test_the_nearest_words_are_as_near_as_if_they_had_full_length(count: int) -> None:
    words = np.concatenate([WORDS, WORDS // 2])
    found, products = CodeBook(words).nearest(POOL, count)
    squared = np.square(POOL[:, None].astype(np.int64) - words.astype(np.int64)).sum(axis=2)
    lengths = np.linalg.norm(words.astype(np.float64), axis=1)
    cosines = POOL.astype(np.float64) @ words.T.astype(np.float64) / lengths
    assert found.shape == products.shape == (len(POOL), min(count, 32))
    for row, nearest in enumerate(found):
        assert set(nearest.tolist()) == set(np.argsort(squared[row])[:count].tolist())
        np.testing.assert_allclose(products[row], 512 * cosines[row, nearest], rtol=1e-5)


def _folded(changes: list[Committed], compacted_after: set[int]) -> Prints:
    """Several parts even of a short history, as only two examples are merged at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prints, "MERGED_AT_ONCE", 2)
        folded = EMPTY
        for position, change in enumerate(changes):
            folded = folded.fold(change)
            if position in compacted_after:
                folded = folded.compacted()
    return folded


def _example(example_id: str, version: int, descriptors: Descriptors | None = None) -> Example:
    """With up to five points, other ones in each version."""
    rng = np.random.default_rng(zlib.crc32(f"{example_id} {version}".encode()))
    chosen = POOL[rng.integers(0, len(POOL), rng.integers(0, 6))] if descriptors is None else descriptors
    return replace(example_of(example_id), points=points_of(chosen))


def _made_by(model: ClassModel, points: str) -> ClassModel:
    return replace(model, provenance=replace(model.provenance, points=points))


def _with_print(changes: list[Committed]) -> list[Committed]:
    """The same history of examples with points. A third of the classes has points that were found otherwise, until a refit."""
    made_by: dict[str, str] = {}
    return [Committed(each.version, _printed_change(each, made_by)) for each in changes]


def _printed_change(committed: Committed, made_by: dict[str, str]) -> Change:
    version, change = committed.version, committed.change
    name = change.class_name
    match change:
        case ExamplesAdded():
            made_by.setdefault(name, EARLIER if version % 3 == 0 else CURRENT)
            examples = tuple(_example(example.id, version) for example in change.examples)
            return replace(change, examples=examples, model=_made_by(change.model, made_by[name]))
        case ClassRefitted() | ClassRestored():
            made_by[name] = EARLIER if version % 3 == 0 else CURRENT
            examples = tuple(_example(example.id, version) for example in change.examples)
            return replace(change, examples=examples, model=change.model and _made_by(change.model, made_by[name]))
        case ExampleRemoved():
            return replace(change, model=change.model and _made_by(change.model, made_by[name]))
        case ClassRenamed():
            made_by[change.new_name] = made_by.pop(name)
        case ClassRemoved():
            del made_by[name]
    return change


def _naive_votes(snapshot: Snapshot, picture: Points, among: frozenset[str] | None) -> dict[Owner, tuple[float, float]]:
    """Point by point, neighbour by neighbour: weight and share of the examples that are proposed."""
    of_example: dict[Owner, float] = defaultdict(float)
    of_class: dict[str, float] = defaultdict(float)
    for descriptor in picture.descriptors.astype(np.float64):
        weighed = _naively_weighed(descriptor, snapshot, among)
        for owner in {owner for _, owner in weighed}:
            of_example[owner] += max(weight for weight, other in weighed if other == owner)
        for name in {name for _, (name, _) in weighed}:
            of_class[name] += max(weight for weight, (other, _) in weighed if other == name)
    proposed: list[Owner] = []
    for owner in sorted(of_example, key=lambda owner: (-of_example[owner], owner)):
        crowd_or_third = owner[0] in WORD_NAMES or sum(name == owner[0] for name, _ in proposed) == EXAMPLES_OF_A_CLASS
        if of_example[owner] > 0 and not crowd_or_third:
            proposed.append(owner)
    return {owner: (of_example[owner], of_class[owner[0]] / sum(of_class.values())) for owner in proposed}


def _naively_weighed(
    descriptor: NDArray[np.float64], snapshot: Snapshot, among: frozenset[str] | None
) -> list[tuple[float, Owner]]:
    words = sorted(range(len(WORDS)), key=lambda word: float(np.square(WORDS[word] - descriptor).sum()))[:PROBES]
    near = [
        (float(descriptor @ row) / LENGTH_SQUARED, (state.name, example.id))
        for state in snapshot.classes
        if state.model and state.model.provenance.points == CURRENT and (among is None or state.name in among)
        for example in state.examples
        for row, word in zip(example.points.descriptors.astype(np.float64), example.points.words, strict=True)
        if word in words
    ]
    for word in words:
        cosine = float(descriptor @ WORDS[word]) / float(np.linalg.norm(WORDS[word].astype(np.float64)))
        near.append((cosine / 512, (WORD_NAMES[word], "")))
    near = sorted(near, key=lambda one: -one[0])[:NEIGHBOURS]
    last = near[-1][0] if len(near) == NEIGHBOURS else 0.0
    return [(min(1.0, (similarity - last) / max(1 - last, 1e-6)) ** 2, owner) for similarity, owner in near]

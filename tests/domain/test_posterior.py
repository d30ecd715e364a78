"""Boxes of classes from what a detector's network says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from app.domain.posterior import (
    MOST_CLASSES,
    Fit,
    Known,
    Regions,
    Seen,
    background_of,
    kept_boxes,
    nearest_classes,
    overlaps,
    probabilities_of,
    probability_at,
    similarities_to,
)
from app.domain.posterior import see as see_by_similarities

HERE, NEAR, THERE = [0.0, 0, 10, 10], [1.0, 0, 11, 10], [50.0, 50, 60, 60]  # HERE and NEAR share 90 of 110


def unit(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def regions(boxes: list[list[float]], objectness: list[float], degrees: list[float]) -> Regions:
    return Regions(np.array(boxes, np.float32), np.array(objectness, np.float32), unit(*degrees))


# Class a looks two ways, at 0 and 90 degrees; b at 180.
KNOWN = Known.of([("a", unit(0, 90)), ("b", unit(180))])


def see(regions: Regions, known: Known, *, width: float, least: float = 0.0, most: int = 100) -> Seen:
    return see_by_similarities(regions, similarities_to(known, regions.embeddings), width=width, least=least, most=most)


def test_overlaps_by_hand() -> None:
    found = overlaps(np.array([HERE, THERE]), np.array([HERE, NEAR, [0, 0, 0, 0]]))
    assert found == pytest.approx(np.array([[1, 90 / 110, 0], [0, 0, 0]]))


def test_a_class_is_as_near_as_its_nearest_representative() -> None:
    assert similarities_to(KNOWN, unit(80)) == pytest.approx(
        np.array([[math.cos(math.radians(10)), math.cos(math.radians(100))]]), abs=1e-6
    )


def classes_of(counts: Sequence[int], *, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Classes of so many representatives in five dimensions, in half precision, as they are stored."""
    rng = np.random.default_rng(seed)
    vectors = [rng.normal(size=(count, 5)) for count in counts]
    return [
        (f"{number}", (one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float16)) for number, one in enumerate(vectors)
    ]


def scattered(count: int, *, side: float = 20, seed: int = 0) -> Regions:
    """Regions in a picture of 100 pixels, in five dimensions; the last has no area, and the one before it is the first again."""
    rng = np.random.default_rng(seed)
    corners, embeddings = rng.uniform(0, 80, (count, 2)), rng.normal(size=(count, 5))
    boxes = np.concatenate([corners, corners + rng.uniform(5, side, (count, 2))], 1)
    boxes[-1:, 2:] = boxes[-1:, :2]
    boxes[-2:-1] = boxes[:1]
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Regions(*(array.astype(np.float32) for array in (boxes, rng.uniform(0, 1, count), embeddings)))


@pytest.mark.parametrize("counts", [[3], [2, 2, 2], [1, 8, 3, 8, 1, 2], [1] * 20, [*range(1, 16)]])
@pytest.mark.parametrize("regions", [0, 1, 30])
def test_classes_of_any_numbers_of_representatives_are_compared_one_by_one(counts: list[int], regions: int) -> None:
    classes, embeddings = classes_of(counts), scattered(regions).embeddings
    known = Known.of(classes)
    assert sorted(known.class_names) == sorted(name for name, _ in classes)
    found = dict(zip(known.class_names, similarities_to(known, embeddings).T, strict=True))
    for name, representatives in classes:
        expected = [max(float(one @ region) for one in representatives.astype(float)) for region in embeddings.astype(float)]
        assert found[name] == pytest.approx(np.array(expected), abs=1e-6)


def test_classes_of_most_representatives_come_first_and_equals_keep_their_order() -> None:
    known = Known.of(classes_of([1, 3, 2, 3, 1]))
    assert known.class_names == ("1", "3", "2", "0", "4")
    assert [len(rank) for rank in known.ranks] == [5, 3, 2]
    assert {rank.dtype for rank in known.ranks} == {np.dtype(np.float32)}


def test_probabilities_by_hand() -> None:
    # d^2 = 2 - 2 cos = 0, 2 and 4; exp(-d^2 / (2 * 0.5^2)).
    found = probabilities_of(np.array([[1.0, 0.0, -1.0]]), 0.5)
    assert found == pytest.approx(np.array([[1, math.exp(-4), math.exp(-8)]]))
    assert [probability_at(similarity, 0.5) for similarity in (1, 0, -1)] == pytest.approx(found[0])
    assert background_of(found) == pytest.approx([0.0])
    assert background_of(np.array([[0.2, 0.7]])) == pytest.approx([0.3])


def test_one_thing_is_seen_once_in_a_class_but_may_be_of_another_one_too() -> None:
    seen = see(regions([HERE, NEAR, THERE], [0.9, 0.8, 0.7], [0, 0, 90]), KNOWN, width=0.5, least=0.01)
    # NEAR is HERE again, THERE is another thing of class a; class b is at a right angle to the last, far from the others.
    assert list(zip(seen.class_numbers.tolist(), seen.regions.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 2)]
    assert seen.scores == pytest.approx([0.9**0.5, 0.7**0.5, math.exp(-4) * 0.7**0.5])
    assert seen.similarities == pytest.approx([1, 1, 0], abs=1e-6)


def test_a_class_that_is_not_asked_about_is_not_seen() -> None:
    there = regions([HERE, THERE], [0.9, 0.7], [0, 90])
    similarities = similarities_to(KNOWN, there.embeddings)
    similarities[:, 0] = -np.inf
    assert set(see_by_similarities(there, similarities, width=0.5).class_numbers.tolist()) == {1}


@pytest.mark.parametrize("classes", [0, 1, 2 * MOST_CLASSES])
def test_where_no_class_is_asked_about_nothing_is_seen(classes: int) -> None:
    there = regions([HERE, THERE], [0.9, 0.7], [0, 90])
    assert len(see_by_similarities(there, np.full((2, classes), -np.inf, np.float32), width=0.5).scores) == 0


def test_a_region_is_of_a_few_classes_at_most_however_many_are_alike() -> None:
    crowd = Known.of([(f"{number}", unit(number)) for number in range(100)])  # a degree apart
    seen = see(regions([HERE, THERE], [0.9, 0.1], [50, 50]), crowd, width=0.5, most=2 * MOST_CLASSES)
    of_each = [set(seen.class_numbers[seen.regions == region].tolist()) for region in (0, 1)]
    assert of_each == [set(range(48, 53))] * 2  # the five nearest; a crowd at one place does not hide the other
    assert seen.scores[0] == pytest.approx(0.9**0.5)


def seen_one_by_one(regions: Regions, similarities: np.ndarray, width: float, least: float, most: int) -> list[tuple[int, int]]:
    """Class and region of what is seen, best first: by the rule, with nothing but loops."""
    candidates = []
    for region, row in enumerate(similarities.tolist()):
        for number in sorted(range(len(row)), key=lambda number: -row[number])[:MOST_CLASSES]:
            score = math.exp((row[number] - 1) / width**2) * float(regions.objectness[region]) ** 0.5
            if score > least:
                candidates.append((score, number, region))
    kept: list[tuple[int, int]] = []
    for _, number, region in sorted(candidates, reverse=True):
        same = [other for kept_number, other in kept if kept_number == number]
        if all(shared_by(regions.boxes[region].tolist(), regions.boxes[other].tolist()) <= 0.5 for other in same):
            kept.append((number, region))
    return kept[:most]


def shared_by(one: list[float], other: list[float]) -> float:
    width, height = (max(0.0, min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis])) for axis in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


@pytest.mark.parametrize("classes", [1, MOST_CLASSES, MOST_CLASSES + 1, 40])
@pytest.mark.parametrize("side", [20, 400])  # of boxes: a few overlap, or most
@pytest.mark.parametrize(("least", "most"), [(0.0, 1_000), (0.1, 1_000), (0.0, 7), (0.0, 0), (0.999, 5)])
def test_what_is_seen_is_what_the_rule_says(classes: int, side: float, least: float, most: int) -> None:
    there = scattered(60, side=side)
    similarities = similarities_to(Known.of(classes_of([1 + number % 4 for number in range(classes)])), there.embeddings)
    similarities[:, 1::4] = -np.inf  # not asked about
    similarities[::7, 2:] = -np.inf  # fewer left than a region may propose
    seen = see_by_similarities(there, similarities, width=0.5, least=least, most=most)
    found = list(zip(seen.class_numbers.tolist(), seen.regions.tolist(), strict=True))
    assert found == seen_one_by_one(there, similarities, 0.5, least, most)
    assert seen.similarities.tolist() == [similarities[region, number] for number, region in found]


def test_the_likeliest_are_found_among_some_too() -> None:
    there = scattered(30)
    among = np.array([20, 3, 11, 4, 25])
    assert there.likeliest(3, among=among).boxes.tolist() == there.at(among).likeliest(3).boxes.tolist()
    assert len(there.likeliest(3, among=among[:0])) == 0


def test_names_have_their_places() -> None:
    assert KNOWN.numbers_of(["b", "nobody", "a"]) == [1, 0]


def test_no_more_than_asked_and_nothing_below_the_line() -> None:
    there = regions([HERE, THERE], [0.9, 0.7], [0, 90])
    assert len(see(there, KNOWN, width=0.5, most=1).scores) == 1
    assert len(see(there, KNOWN, width=0.5, least=0.9).scores) == 1
    assert len(see(there, KNOWN, width=0.5, least=0.99).scores) == 0


def test_the_order_of_regions_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (40, 2))], 1).astype(np.float32)
    made = Regions(boxes, rng.uniform(0, 1, 40).astype(np.float32), unit(*rng.uniform(0, 360, 40)))
    order = rng.permutation(40)
    one, other = see(made, KNOWN, width=0.5), see(made.at(order), KNOWN, width=0.5)
    assert one.scores == pytest.approx(other.scores)
    assert one.regions.tolist() == order[other.regions].tolist()


def test_boxes_are_kept_best_first_and_without_a_better_one_over_them() -> None:
    boxes = np.array([NEAR, THERE, HERE], np.float32)
    assert kept_boxes(boxes, np.array([0.5, 0.7, 0.6]), largest_overlap=0.5).tolist() == [1, 2]
    assert kept_boxes(boxes, np.array([0.5, 0.7, 0.6]), largest_overlap=0.9).tolist() == [1, 2, 0]
    assert kept_boxes(boxes[:0], np.array([]), largest_overlap=0.5).tolist() == []


@pytest.mark.parametrize("largest_overlap", [0.1, 0.5, 0.7])
def test_boxes_are_kept_as_one_by_one(largest_overlap: float) -> None:
    there = scattered(80, side=60)
    boxes = there.boxes.tolist()
    kept: list[int] = []
    for position in sorted(range(80), key=lambda position: -there.objectness[position]):
        if all(shared_by(boxes[position], boxes[other]) <= largest_overlap for other in kept):
            kept.append(position)
    assert 0 < len(kept) < 80
    assert kept_boxes(there.boxes, there.objectness, largest_overlap=largest_overlap).tolist() == kept
    assert kept_boxes(there.boxes, there.objectness, largest_overlap=largest_overlap, most=3).tolist() == kept[:3]


def test_proposals_are_things_whatever_they_are() -> None:
    there = regions([HERE, NEAR, THERE], [0.5, 0.9, 0.7], [0, 180, 90])
    assert there.proposals(2).boxes.tolist() == [NEAR, THERE]
    assert there.proposals(1).boxes.tolist() == [NEAR]
    assert there.proposals(3, largest_overlap=0.9).boxes.tolist() == [NEAR, THERE, HERE]


def test_the_nearest_classes_come_nearest_first_and_only_those_that_are_asked_about() -> None:
    crowd = np.linspace(-1, 1, MOST_CLASSES + 4)
    found = nearest_classes(np.array([crowd, np.where(crowd > 0.9, crowd, -np.inf)]))
    assert [numbers.tolist() for numbers in found] == [list(range(MOST_CLASSES + 3, 3, -1)), [MOST_CLASSES + 3]]
    assert [numbers.tolist() for numbers in nearest_classes(np.array([[0.1, 0.3], [-np.inf, -np.inf]]))] == [[1, 0], []]
    assert nearest_classes(np.empty((1, 0)))[0].tolist() == []


def test_a_picture_in_a_square_and_back() -> None:
    fit = Fit(200, 100, 64)
    assert (fit.size, fit.corner) == ((64, 32), (0, 16))
    boxes = np.array([[50, 25, 100, 75]], np.float32)
    assert fit.to_square(boxes).tolist() == [[16, 24, 32, 40]]
    assert fit.to_picture(fit.to_square(boxes)).tolist() == boxes.tolist()
    assert fit.to_picture(np.array([[-20, 0, 70, 60]], np.float32)).tolist() == [[0, 0, 200, 100]]


def test_arrays_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="same m"):
        Regions(np.zeros((2, 4), np.float32), np.zeros(3, np.float32), np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="representative or more"):
        Known.of([("a", np.zeros((0, 2), np.float32))])

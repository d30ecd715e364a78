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
    kept_boxes,
    nearest_classes,
    overlaps,
    probability_at,
    similarities_to,
)

HERE, NEAR, THERE = [0.0, 0, 10, 10], [1.0, 0, 11, 10], [50.0, 50, 60, 60]  # HERE and NEAR share 90 of 110


def unit(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def regions(boxes: list[list[float]], objectness: list[float], degrees: list[float]) -> Regions:
    return Regions(np.array(boxes, np.float32), np.array(objectness, np.float32), unit(*degrees))


# Class a looks two ways, at 0 and 90 degrees; b at 180.
KNOWN = Known.of([("a", unit(0, 90)), ("b", unit(180))])


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


def test_the_probability_at_a_distance_by_hand() -> None:
    # d^2 = 2 - 2 cos = 0, 2 and 4; exp(-d^2 / (2 * 0.5^2)).
    assert [probability_at(cosine, 0.5) for cosine in (1, 0, -1)] == pytest.approx([1, math.exp(-4), math.exp(-8)])


def shared_by(one: list[float], other: list[float]) -> float:
    width, height = (max(0.0, min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis])) for axis in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


def test_names_have_their_places() -> None:
    assert KNOWN.numbers_of(["b", "nobody", "a"]) == [1, 0]


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

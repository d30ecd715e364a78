"""Boxes of classes by RepMet's posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.domain.posterior import MOST_CLASSES, Known, Regions, similarities_to
from tests.domain.test_posterior import HERE, KNOWN, NEAR, THERE, classes_of, regions, scattered, shared_by, unit
from training.evaluate.repmet_rule import Seen, probabilities_of
from training.evaluate.repmet_rule import see as see_by_similarities


def see(regions: Regions, known: Known, *, width: float, least: float = 0.0, most: int = 100) -> Seen:
    return see_by_similarities(regions, similarities_to(known, regions.embeddings), width=width, least=least, most=most)


def test_probabilities_by_hand() -> None:
    # d^2 = 2 - 2 cos = 0, 2 and 4; exp(-d^2 / (2 * 0.5^2)).
    found = probabilities_of(np.array([[1.0, 0.0, -1.0]]), 0.5)
    assert found == pytest.approx(np.array([[1, math.exp(-4), math.exp(-8)]]))


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

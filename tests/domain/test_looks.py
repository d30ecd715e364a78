"""Which places are looked at, and what each proof is told of it. By hand, in a plane of embeddings."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from app.domain.looks import MOST_LOOKS, quads_to_look_at, with_looks
from app.domain.verification import DoubleArray, Found, Proof
from tests.fakes import calibration_for_tests
from tests.values import example_of, unit

# By points: 0.5 ln(points) + 2.5. Of 8 points it is 3.54, of 7 points 3.47.
CALIBRATION = replace(calibration_for_tests().proof, looked_from=3.5, look=5.0)
RIGHT, UP = (1.0, 0.0), (0.0, 1.0)


def place(left: float, width: float = 0.2) -> DoubleArray:
    return np.array([[left, 0], [left + width, 0], [left + width, 0.2], [left, 0.2]], np.float64)


def found(name: str, points: int = 20, *, left: float = 0.0, example: ArrayLike = RIGHT) -> Found:
    return Found(example_of(name, example), Proof(points, 1.0, 1.0, place(left), np.arange(points)), 0.5)


def sideways(proved: Found, turns: int = 1) -> Found:
    """At the same place, its example enrolled turned by so many quarters."""
    return replace(proved, proof=replace(proved.proof, quad=np.roll(proved.proof.quad, turns, axis=0)))


def lefts(quads: list[NDArray[np.float64]]) -> list[float]:
    return [float(quad[0, 0]) for quad in quads]


def test_the_places_of_the_strongest_proofs_are_looked_at_the_strongest_first() -> None:
    finds = {"acme": [found("a", 9, left=0.1)], "other": [found("b", 30, left=0.5)]}
    assert lefts(quads_to_look_at(finds, CALIBRATION)) == [0.5, 0.1]


def test_no_more_places_are_looked_at_than_a_picture_may_cost() -> None:
    finds = {"acme": [found(f"{number}", 10 + number, left=0.3 * number) for number in range(5)]}
    assert lefts(quads_to_look_at(finds, CALIBRATION)) == pytest.approx([1.2, 0.9])
    assert MOST_LOOKS == 2


def test_of_equally_strong_proofs_the_examples_decide_in_any_order() -> None:
    equals = [found(name, left=left) for name, left in (("c", 0.0), ("a", 0.3), ("b", 0.6))]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        finds = {f"{position}": [equals[number]] for position, number in enumerate(order)}
        assert lefts(quads_to_look_at(finds, CALIBRATION)) == [0.3, 0.6]


@pytest.mark.parametrize(("points", "looks"), [(7, 0), (8, 1)])
def test_a_place_whose_points_are_too_weak_is_not_looked_at(points: int, looks: int) -> None:
    assert len(quads_to_look_at({"acme": [found("a", points)]}, CALIBRATION)) == looks


def test_what_a_look_said_before_does_not_make_a_place_worth_another() -> None:
    seen = replace(found("a", 7), look=1.0)
    assert quads_to_look_at({"acme": [seen]}, CALIBRATION) == []


# Squares of 0.2 shifted by s share 0.2 - s of 0.2 + s: 0.6 at s = 0.05.
@pytest.mark.parametrize(("shift", "looks"), [(0.0, 1), (0.04, 1), (0.06, 2)])
def test_siblings_at_one_place_are_judged_by_one_look(shift: float, looks: int) -> None:
    finds = {"acme": [found("a", 30)], "sibling": [found("b", 20, left=shift)]}
    assert len(quads_to_look_at(finds, CALIBRATION)) == looks


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_sibling_that_was_enrolled_turned_is_looked_at_its_own_side_up(turns: int) -> None:
    upright, turned = found("a", 30), sideways(found("b", 20, left=0.02), turns)
    quads = quads_to_look_at({"acme": [upright], "sibling": [turned]}, CALIBRATION)
    assert [quad.tolist() for quad in quads] == [upright.proof.quad.tolist(), turned.proof.quad.tolist()]


def test_a_sibling_that_was_enrolled_turned_has_the_look_of_its_own_side() -> None:
    finds = {"acme": [found("a", 30)], "sibling": [sideways(found("b", 20))]}
    looked = with_looks(finds, quads_to_look_at(finds, CALIBRATION), unit([RIGHT, UP]))
    assert [one.look for (one,) in looked.values()] == [1.0, 0.0]


def test_a_sibling_that_was_enrolled_turned_has_no_look_where_its_side_was_not_looked_at() -> None:
    finds = {"acme": [found("a", 30)], "sibling": [sideways(found("b", 20))]}
    looked = with_looks(finds, [place(0.0)], unit([RIGHT]))
    assert [one.look for (one,) in looked.values()] == [1.0, None]


def test_each_sibling_is_compared_with_its_own_example() -> None:
    finds = {"acme": [found("a", 30, example=RIGHT)], "sibling": [found("b", 20, left=0.02, example=UP)]}
    quads = quads_to_look_at(finds, CALIBRATION)
    (acme,), (sibling,) = with_looks(finds, quads, unit([[0.6, 0.8]])).values()
    assert (acme.look, sibling.look) == (pytest.approx(0.6), pytest.approx(0.8))


def test_the_look_is_at_the_example_that_was_found_and_not_at_another_of_its_class() -> None:
    finds = {"acme": [found("near", 30, example=RIGHT), found("far", 20, left=0.6, example=UP)]}
    near, far = with_looks(finds, quads_to_look_at(finds, CALIBRATION), unit([RIGHT, RIGHT]))["acme"]
    assert (near.look, far.look) == (1.0, 0.0)


def test_each_place_has_its_own_embedding() -> None:
    finds = {"acme": [found("a", 30)], "other": [found("b", 20, left=0.6)]}
    looked = with_looks(finds, quads_to_look_at(finds, CALIBRATION), unit([RIGHT, UP]))
    assert [one.look for (one,) in looked.values()] == [1.0, 0.0]


def test_a_proof_whose_place_was_not_looked_at_has_no_look() -> None:
    finds = {"acme": [found("a", 30), found("b", 7, left=0.6)]}
    looked = with_looks(finds, quads_to_look_at(finds, CALIBRATION), unit([RIGHT]))["acme"]
    assert [one.look for one in looked] == [1.0, None]


def test_a_place_that_is_the_opposite_of_its_example_is_told_as_it_is() -> None:
    finds = {"acme": [found("a", example=(-math.sqrt(0.5), -math.sqrt(0.5)))]}
    ((one,),) = with_looks(finds, quads_to_look_at(finds, CALIBRATION), unit([[1, 1]])).values()
    assert one.look == pytest.approx(-1)


def test_nothing_but_the_look_is_changed() -> None:
    finds = {"acme": [found("a")], "none": []}
    looked = with_looks(finds, quads_to_look_at(finds, CALIBRATION), unit([RIGHT]))
    assert looked.keys() == finds.keys()
    assert replace(looked["acme"][0], look=None) == finds["acme"][0]
    assert looked["none"] == []

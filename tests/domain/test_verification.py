"""Prints are moved by transforms that the test chose, so that where their corners land is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from app.domain import verification
from app.domain.values import Box, Points
from app.domain.verification import (
    LENGTH_SQUARED,
    MOST_MATCHES,
    AskedPoints,
    DoubleArray,
    Proof,
    Transform,
    affine_through,
    clipped,
    extent_of,
    homography_through,
    hull_area,
    is_sane,
    matches_of,
    overlap,
    polygon_area,
)
from tests.values import plain, root_sift

SQUARE = (1.0, 1.0)  # extent of an example
EXACT = 1e-4  # places are kept in 1/65535


def square(side: float = 1.0, left: float = 0.0, top: float = 0.0) -> DoubleArray:
    return side * np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64) + np.array([left, top])


UNIT = square()


@dataclass(frozen=True)
class Drawn:
    """Points that can be moved: places and sizes in longest sides, angles in radians."""

    places: DoubleArray  # (n, 2)
    sizes: DoubleArray  # (n,)
    angles: DoubleArray  # (n,)
    descriptors: NDArray[np.uint8]  # (n, 128)

    def __add__(self, other: Drawn) -> Drawn:
        return Drawn(*(np.concatenate(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __getitem__(self, chosen: slice | Sequence[int]) -> Drawn:
        return Drawn(*(array[chosen] for array in vars(self).values()))

    def moved(self, matrix: ArrayLike, shift: ArrayLike) -> Drawn:
        matrix = np.asarray(matrix, np.float64)
        scale = math.sqrt(abs(np.linalg.det(matrix)))
        turn = math.atan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])
        return Drawn(self.places @ matrix.T + shift, self.sizes * scale, self.angles + turn, self.descriptors)

    @property
    def points(self) -> Points:
        units = np.column_stack([self.places, self.sizes, self.angles / (2 * math.pi) % 1]) * 65535
        return Points(np.rint(units).astype(np.uint16), self.descriptors, np.zeros(len(self.places), np.uint16))


def drawn(count: int, *, seed: int = 0, left: float = 0, top: float = 0, width: float = 1, height: float = 1) -> Drawn:
    """Points all over a rectangle, no two alike."""
    rng = np.random.default_rng(seed)
    places = rng.uniform((left, top), (left + width, top + height), (count, 2))
    return Drawn(places, rng.uniform(0.02, 0.08, count), rng.uniform(0, 2 * math.pi, count), root_sift(count, seed=seed))


def similarity(degrees: float, scale: float) -> DoubleArray:
    turn = math.radians(degrees)
    return scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])


def proof_of(example: Drawn, picture: Drawn, extent: tuple[float, float] = SQUARE) -> Proof | None:
    (proof,) = AskedPoints(picture.points).proofs([example.points], [extent])
    return proof


def proved(example: Drawn, picture: Drawn, extent: tuple[float, float] = SQUARE) -> Proof:
    proof = proof_of(example, picture, extent)
    assert proof is not None
    return proof


PRINT = drawn(60)
HALVED = (similarity(0, 0.5), (0.25, 0.25))  # in the middle of the picture

# Corners by hand: turned clockwise, as y runs down.
SIMILARITIES = {
    "as it is": ((0, 1.0), (0, 0), [[0, 0], [1, 0], [1, 1], [0, 1]]),
    "halved": ((0, 0.5), (0.25, 0.25), [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]),
    "a quarter turn": ((90, 0.5), (0.75, 0.25), [[0.75, 0.25], [0.75, 0.75], [0.25, 0.75], [0.25, 0.25]]),
    "upside down": ((180, 0.5), (0.9, 0.9), [[0.9, 0.9], [0.4, 0.9], [0.4, 0.4], [0.9, 0.4]]),
    "30 degrees": ((30, 0.5), (0.5, 0.1), [[0.5, 0.1], [0.9330, 0.35], [0.6830, 0.7830], [0.25, 0.5330]]),
    "small": ((0, 0.1), (0.5, 0.5), [[0.5, 0.5], [0.6, 0.5], [0.6, 0.6], [0.5, 0.6]]),
}


@pytest.mark.parametrize("case", SIMILARITIES)
def test_a_print_that_was_turned_scaled_and_shifted_is_proved_where_it_went(case: str) -> None:
    (degrees, scale), shift, corners = SIMILARITIES[case]
    proof = proved(PRINT, PRINT.moved(similarity(degrees, scale), shift))
    np.testing.assert_allclose(proof.quad, corners, atol=EXACT)
    assert (proof.points, proof.agreement) == (60, 1.0)
    assert proof.used.tolist() == list(range(60))


@pytest.mark.parametrize("degrees", [0, 60, 90, 200])
def test_a_few_points_far_apart_are_enough(degrees: float) -> None:
    x, y = (axis.ravel() for axis in np.meshgrid([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]))
    example = Drawn(np.column_stack([x, y]), np.linspace(0.02, 0.1, 9), np.linspace(0, 6, 9), root_sift(9))
    assert proved(example, example.moved(similarity(degrees, 0.3), (0.5, 0.5))).points == 9


@pytest.mark.parametrize(
    ("extent", "matrix", "corners"),
    [
        # (x, y) -> (0.6 x + 0.1 y + 0.1, -0.05 x + 0.5 y + 0.3)
        ((1.0, 0.5), [[0.6, 0.1], [-0.05, 0.5]], [[0.1, 0.3], [0.7, 0.25], [0.75, 0.5], [0.15, 0.55]]),
        ((0.5, 1.0), [[0.6, 0.1], [-0.05, 0.5]], [[0.1, 0.3], [0.4, 0.275], [0.5, 0.775], [0.2, 0.8]]),
        # Narrowed as seen from the side: (0.4 x + 0.1, 0.6 y + 0.3)
        ((1.0, 0.5), [[0.4, 0.0], [0.0, 0.6]], [[0.1, 0.3], [0.5, 0.3], [0.5, 0.6], [0.1, 0.6]]),
    ],
)
def test_a_print_that_is_not_square_is_proved_in_its_own_shape_under_an_affine_transform(
    extent: tuple[float, float], matrix: list[list[float]], corners: list[list[float]]
) -> None:
    example = drawn(60, width=extent[0], height=extent[1])
    proof = proved(example, example.moved(matrix, (0.1, 0.3)), extent)
    np.testing.assert_allclose(proof.quad, corners, atol=EXACT)
    assert proof.points == 60


@given(st.floats(0, 360), st.floats(0.1, 0.4), st.tuples(st.floats(0.4, 0.6), st.floats(0.4, 0.6)), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_any_similarity_is_found_among_points_of_other_things(
    degrees: float, scale: float, shift: tuple[float, float], others: int
) -> None:
    matrix = similarity(degrees, scale)
    moved = PRINT.moved(matrix, np.array(shift) - matrix @ (0.5, 0.5))  # the middle goes to `shift`
    proof = proved(PRINT, drawn(others, seed=1) + moved)
    np.testing.assert_allclose(proof.quad, UNIT @ matrix.T + (shift - matrix @ (0.5, 0.5)), atol=EXACT)
    assert proof.points == 60
    assert proof.used.tolist() == list(range(others, others + 60))


def test_coverage_is_the_share_of_the_example_that_the_found_points_span() -> None:
    # Of a grid of 5 x 5 over the whole example, the left three columns: half of it.
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 0.8, 5)))
    example = Drawn(np.column_stack([x, y]), np.full(25, 0.05), np.zeros(25), root_sift(25))
    picture = example[np.flatnonzero(x <= 0.5).tolist()].moved(*HALVED)
    proof = proved(example, picture, (1.0, 0.8))
    assert proof.points == 15
    assert proof.coverage == pytest.approx(0.5, abs=EXACT)


def test_agreement_is_the_share_of_the_points_inside_the_quad_that_were_found() -> None:
    inside = drawn(20, seed=1, left=0.3, top=0.3, width=0.4, height=0.4)
    outside = drawn(40, seed=2, left=0.8, top=0, width=0.2, height=1)
    proof = proved(PRINT, inside + PRINT.moved(*HALVED) + outside)
    assert proof.agreement == pytest.approx(60 / 80)


def test_print_that_repeats_itself_counts_where_the_transform_puts_it() -> None:
    # Of 20 words each stands twice in the example: no ratio test lets them pass. Eight points are its own.
    words = root_sift(20, seed=1)
    repeated = drawn(40, seed=2)
    example = drawn(8) + Drawn(repeated.places, repeated.sizes, repeated.angles, np.concatenate([words, words]))
    assert proved(example, example.moved(*HALVED)).points == 48


def test_print_that_only_repeats_itself_proves_nothing() -> None:
    twice = drawn(40)
    example = Drawn(twice.places, twice.sizes, twice.angles, np.tile(root_sift(20, seed=1), (2, 1)))
    assert proof_of(example, example.moved(*HALVED)) is None


def test_a_point_that_a_picture_repeats_at_its_place_counts_once() -> None:
    moved = PRINT.moved(*HALVED)
    assert proved(PRINT, moved[:10] + moved[[0] * 50]).points == 10
    assert proof_of(PRINT, moved[:3] + moved[[0] * 50]) is None


@pytest.mark.parametrize("angles", [1.0, -1.0])
@pytest.mark.parametrize("count", [8, 60, 300])
def test_a_mirrored_print_is_another_one(count: int, angles: float) -> None:
    example = drawn(count)
    moved = example.moved([[-0.5, 0], [0, 0.5]], (0.75, 0.25))
    # Angles as a mirror has them, and at their worst, as if nothing had been mirrored.
    mirrored = Drawn(moved.places, moved.sizes, angles * example.angles, moved.descriptors)
    assert proof_of(example, mirrored) is None


def test_three_points_prove_nothing_and_four_do() -> None:
    example = Drawn(np.array([[0.1, 0.1], [0.9, 0.2], [0.8, 0.9], [0.2, 0.7]]), np.full(4, 0.05), np.zeros(4), root_sift(4))
    moved = example.moved(*HALVED)
    assert proved(example, moved).points == 4
    assert proof_of(example, moved[:3]) is None
    assert proof_of(example[:3], moved) is None


@pytest.mark.parametrize(
    "along",
    [
        (1, 1, 0, 0),
        (1, 0, 0, 32_768),
        (0, 1, 32_768, 0),
        (1, -1, 0, 60_000),
    ],
)
def test_points_on_one_line_prove_nothing(along: tuple[int, int, int, int]) -> None:
    across, down, left, top = along
    steps = np.arange(0, 40_000, 2_000)  # even, so that the half of them is a place too
    places = np.column_stack([across * steps + left, down * steps + top]) / 65535
    example = Drawn(places, np.full(20, 0.05), np.zeros(20), root_sift(20))
    assert proof_of(example, example.moved(similarity(0, 0.5), np.array([13_000, 13_000]) / 65535)) is None


@pytest.mark.parametrize(("scale", "is_proved"), [(4.9, True), (5.1, False)])
def test_a_quad_that_is_not_sane_is_no_proof(scale: float, is_proved: bool) -> None:
    # So near that the picture shows a fifth of each side: the quad has 24 or 26 times its area.
    example = drawn(900)
    near = example.moved(similarity(0, scale), np.full(2, 0.5 - 0.5 * scale))
    picture = near[np.flatnonzero(((near.places > 0) & (near.places < 1)).all(axis=1)).tolist()]
    assert (proof_of(example, picture) is not None) == is_proved


@pytest.mark.parametrize(("height", "is_proved"), [(0.02, False), (0.04, True)])
def test_a_line_of_text_proves_nothing(height: float, is_proved: bool) -> None:
    line = drawn(30, top=0.5, height=height)
    assert (proof_of(line, line.moved(similarity(20, 0.5), (0.4, 0.2))) is not None) == is_proved


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_points_nearly_on_one_line_prove_nothing(degrees: float) -> None:
    matrix = similarity(degrees, 1)
    line = drawn(30, top=0.4975, height=0.005).moved(matrix, 0.5 - matrix @ (0.5, 0.5))
    assert proof_of(line, line.moved(*HALVED)) is None
    with_more = line + drawn(8, seed=1)
    assert proved(with_more, with_more.moved(*HALVED)).points == 38


def test_points_that_share_two_places_prove_nothing() -> None:
    places = np.array([[0.1, 0.1], [0.1, 0.1], [0.9, 0.9], [0.9, 0.9]])  # as SIFT does at a place that has two angles
    example = Drawn(places, np.full(4, 0.05), np.array([0, 2, 0, 2]), root_sift(4))
    assert proof_of(example, example.moved(*HALVED)) is None


def test_a_place_that_has_points_at_two_angles_counts_once() -> None:
    example = PRINT + Drawn(PRINT.places[:5], PRINT.sizes[:5], PRINT.angles[:5] + 2, root_sift(5, seed=1))
    proof = proved(example, example.moved(*HALVED))
    assert (proof.points, len(proof.used)) == (60, 65)
    np.testing.assert_allclose(proof.quad, SIMILARITIES["halved"][2], atol=EXACT)


def test_three_places_prove_nothing_however_many_points_they_have() -> None:
    places = np.array([[0.1, 0.1], [0.9, 0.2], [0.5, 0.9]] * 3)
    example = Drawn(places, np.full(9, 0.05), np.linspace(0, 6, 9), root_sift(9))
    assert proof_of(example, example.moved(*HALVED)) is None


def tilted(example: Drawn, matrix: DoubleArray) -> Drawn:
    """As a homography moves them, with the size and the angle that it has at each place."""
    homogeneous = np.column_stack([example.places, np.ones(len(example.places))]) @ matrix.T
    places, depths = homogeneous[:, :2] / homogeneous[:, 2:], homogeneous[:, 2]
    slopes = (matrix[:2, :2] - places[:, :, None] * matrix[2, :2]) / depths[:, None, None]  # (n, 2, 2)
    headings = np.einsum("nij,nj->ni", slopes, np.column_stack([np.cos(example.angles), np.sin(example.angles)]))
    sizes = example.sizes * np.sqrt(np.linalg.det(slopes))
    return Drawn(places, sizes, np.arctan2(headings[:, 1], headings[:, 0]), example.descriptors)


# The right edge is farther off than the left one: (0.5 x + 0.2, 0.5 y + 0.2) / (1 + 0.6 x).
STEEP = np.array([[0.5, 0, 0.2], [0, 0.5, 0.2], [0.6, 0, 1]])
STEEP_CORNERS = [[0.2, 0.2], [0.7 / 1.6, 0.2 / 1.6], [0.7 / 1.6, 0.7 / 1.6], [0.2, 0.7]]


def test_a_print_seen_steeply_from_the_side_is_found_to_its_corners() -> None:
    proof = proved(PRINT, tilted(PRINT, STEEP))
    np.testing.assert_allclose(proof.quad, STEEP_CORNERS, atol=0.025)
    assert proof.points == 60


def test_without_the_tilt_a_steep_print_would_lose_corners_and_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "TILTED_FROM", 61)
    proof = proved(PRINT, tilted(PRINT, STEEP))
    assert np.abs(proof.quad - STEEP_CORNERS).max() > 0.08
    assert proof.points < 50


def test_a_print_that_is_not_tilted_keeps_its_affine_transform() -> None:
    # Pulled by a tenth of the tolerance here and there: a homography would follow that, and find no more points.
    moved = PRINT.moved(*HALVED)
    places = moved.places + np.random.default_rng(0).normal(0, 0.002, moved.places.shape)
    quad = proved(PRINT, Drawn(places, moved.sizes, moved.angles, moved.descriptors)).quad
    np.testing.assert_allclose(quad[0] - quad[1], quad[3] - quad[2], atol=1e-12)


def test_a_homography_is_solved_by_least_squares() -> None:
    matrix = np.array([[0.6, 0.1, 0.1], [-0.05, 0.5, 0.3], [0.05, -0.1, 1]])
    exact = Transform(matrix)
    found = homography_through(PRINT.places, exact(PRINT.places))
    np.testing.assert_allclose(found(UNIT), exact(UNIT), atol=2e-3)  # the penalty takes a little of the tilt


def test_eight_points_off_their_places_tip_the_plane_no_farther_than_the_penalty_lets_them() -> None:
    farthest = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        sources = rng.uniform(0, 1, (8, 2))
        targets = 0.5 * sources + 0.25 + rng.normal(0, 0.01, (8, 2))  # half of what a point may be off
        farthest.append(np.abs(homography_through(sources, targets)(UNIT) - square(0.5, 0.25, 0.25)).max())
    assert max(farthest) < 0.2  # without the penalty 0.3


def test_matches_that_lie_anywhere_prove_nothing() -> None:
    elsewhere = Drawn(drawn(60, seed=1).places, PRINT.sizes, PRINT.angles, PRINT.descriptors)
    assert proof_of(PRINT, elsewhere) is None


def test_a_print_among_twice_as_many_wrong_matches_is_found() -> None:
    example = drawn(120)
    wrong = Drawn(drawn(80, seed=1).places, example.sizes[40:], example.angles[40:], example.descriptors[40:])
    proof = proved(example, wrong + example[:40].moved(*HALVED))
    np.testing.assert_allclose(proof.quad, SIMILARITIES["halved"][2], atol=0.01)
    assert proof.points >= 40


def test_each_print_in_a_picture_is_proved_without_the_points_of_those_before() -> None:
    left, right = (PRINT.moved(similarity(0, 0.4), (x, 0.3)) for x in (0.05, 0.55))
    asked, found = AskedPoints((left[:50] + right).points), []
    while (proof := asked.proofs([PRINT.points], [SQUARE])[0]) is not None:
        found.append((proof.points, round(float(proof.quad[0, 0]), 2)))
        asked = asked.without(proof.used)
    assert found == [(60, 0.55), (50, 0.05)]


@given(st.permutations(range(60)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_points_does_not_matter(order: list[int]) -> None:
    moved = PRINT.moved(similarity(40, 0.5), (0.5, 0.1))
    one, other = proved(PRINT, moved), proved(PRINT[order], moved[order[::-1]])
    assert (other.points, other.agreement) == (one.points, one.agreement)
    assert other.coverage == pytest.approx(one.coverage)
    np.testing.assert_allclose(other.quad, one.quad, atol=1e-9)


# Two prints that are in the picture, one of them tall and in part repeated; one that is not, and one without a point.
SHOWN, LYING = drawn(40, seed=1, height=0.5), drawn(50, seed=2, width=0.5) + drawn(10, seed=2, width=0.5, height=0.9)
EXAMPLES = [(SHOWN, (1.0, 0.5)), (LYING, (0.5, 1.0)), (drawn(30, seed=3), SQUARE), (drawn(0), SQUARE)]
SCENE = SHOWN.moved(similarity(10, 0.4), (0.1, 0.1)) + LYING.moved(similarity(90, 0.4), (0.9, 0.5)) + drawn(50, seed=4)


@given(st.lists(st.sampled_from(range(len(EXAMPLES))), max_size=6))
@settings(max_examples=30, deadline=None)
def test_examples_are_proved_together_as_they_are_one_by_one_in_any_order(chosen: list[int]) -> None:
    asked = AskedPoints(SCENE.points)
    alone = [proof_of(example, SCENE, extent) for example, extent in EXAMPLES]
    together = asked.proofs([EXAMPLES[n][0].points for n in chosen], [EXAMPLES[n][1] for n in chosen])
    assert [proof is None for proof in alone] == [False, False, True, True]
    assert plain(together) == plain([alone[number] for number in chosen])


def test_a_picture_without_points_proves_nothing() -> None:
    asked = AskedPoints(Points.none())
    assert asked.proofs([PRINT.points, Points.none()], [SQUARE] * 2) == [None, None]
    assert asked.proofs([], []) == []
    assert AskedPoints(PRINT.points).proofs([], []) == []


def test_the_ratio_test_by_hand() -> None:
    # Squared distances are 2 - 2 s, so the ratio of two is (1 - s1) / (1 - s2); it passes below 0.85 ** 2 = 0.7225.
    similarities = np.array(
        [
            [0.9, 0.5, 0.1],  # 0.1 / 0.5 = 0.2
            [0.65, 0.72, 0.1],  # 0.28 / 0.35 = 0.8
            [0.1, 0.60, 0.712],  # 0.288 / 0.40 = 0.72
            [0.1, 0.60, 0.710],  # 0.290 / 0.40 = 0.725
            [0.8, 0.8, 0.8],  # 1
            [0.0, 1.0, 0.9],  # 0
        ]
    )
    own, others = matches_of((similarities * LENGTH_SQUARED).astype(np.float32))
    assert (own.tolist(), others.tolist()) == ([0, 2, 5], [0, 2, 1])


def test_points_that_are_not_alike_are_no_matches_and_move_the_others_to_no_other_position() -> None:
    # From 0.7 on. By the ratio test those of 0.5 and 0.699 would pass too.
    nearest = np.array([0.1, 0.701, 0.699, 0.9, 0.5, 0.701])
    similarities = np.column_stack([np.full(6, 0.05), nearest]) * LENGTH_SQUARED
    own, others = matches_of(similarities.astype(np.float32))
    assert (own.tolist(), others.tolist()) == ([1, 3, 5], [1, 1, 1])


def test_a_picture_of_which_no_point_is_alike_has_no_matches() -> None:
    own, others = matches_of(np.full((5, 3), 0.6 * LENGTH_SQUARED, np.float32))
    assert (len(own), len(others)) == (0, 0)


def test_an_example_of_one_point_has_no_second_nearest_and_no_matches() -> None:
    own, others = matches_of(np.full((5, 1), LENGTH_SQUARED, np.float32))
    assert (len(own), len(others)) == (0, 0)


@pytest.mark.parametrize("excess", [-300, 0, 300])
def test_a_point_that_fits_two_equally_matches_neither_however_its_length_was_rounded(excess: int) -> None:
    own, _ = matches_of(np.full((1, 2), LENGTH_SQUARED + excess, np.float32))
    assert len(own) == 0


def test_the_best_matches_are_kept_in_the_order_of_the_points() -> None:
    nearness = np.random.default_rng(0).permutation(np.linspace(0.71, 0.99, MOST_MATCHES + 50))
    similarities = np.column_stack([nearness, np.full(len(nearness), 0.1)]) * LENGTH_SQUARED
    own, _ = matches_of(similarities.astype(np.float32))
    assert own.tolist() == np.sort(np.argsort(-nearness)[:MOST_MATCHES]).tolist()


def test_a_thousand_equal_points_make_no_more_hypotheses_than_are_tried() -> None:
    equal = Drawn(*(np.concatenate([array] * 1000) for array in vars(PRINT[:1]).values()))
    picture = Drawn(drawn(1000).places, equal.sizes, equal.angles, equal.descriptors)
    similarities = picture.descriptors.astype(np.float32) @ PRINT.descriptors.T.astype(np.float32)
    assert (similarities.argmax(axis=1) == 0).all()
    own, others = matches_of(similarities)
    assert (len(own), set(others.tolist())) == (MOST_MATCHES, {0})
    assert proof_of(PRINT, picture) is None
    assert proof_of(picture, picture) is None


def test_an_affine_transform_is_solved_by_least_squares() -> None:
    matrix, shift = np.array([[0.6, 0.1], [-0.05, 0.5]]), np.array([0.1, 0.3])
    transform = affine_through(PRINT.places, PRINT.places @ matrix.T + shift)
    assert transform is not None
    np.testing.assert_allclose(transform.matrix, [[0.6, 0.1, 0.1], [-0.05, 0.5, 0.3], [0, 0, 1]], atol=1e-9)


def test_an_affine_transform_through_points_that_are_off_is_the_nearest_to_all() -> None:
    rng = np.random.default_rng(0)
    targets = PRINT.places @ np.array([[0.6, 0.1], [-0.05, 0.5]]).T + rng.normal(0, 0.02, (60, 2))
    transform = affine_through(PRINT.places, targets)
    assert transform is not None
    solved = np.linalg.lstsq(np.column_stack([PRINT.places, np.ones(60)]), targets, rcond=None)[0]
    np.testing.assert_allclose(transform.matrix[:2], solved.T, atol=1e-9)


@pytest.mark.parametrize(("thickness", "is_enough"), [(0.0, False), (0.008, False), (0.012, True)])
def test_points_thinner_than_a_hundredth_of_their_length_leave_an_affine_transform_open(
    thickness: float, is_enough: bool
) -> None:
    along = np.tile(np.linspace(-0.3, 0.3, 7), 2)
    sources = np.column_stack([along, np.repeat([-1, 1], 7) * thickness * along.std()]) @ similarity(25, 1).T + 0.5
    assert (affine_through(sources, 0.5 * sources) is not None) == is_enough


@pytest.mark.parametrize(
    "matrix",
    [
        [[-1, 0], [0, 1]],  # mirrored
        [[1, 0], [0, 0]],  # onto a line
        [[1, 0], [0, 0.24]],  # squeezed more than four times
        [[0.04, 0], [0, 0.04]],
        [[11, 0], [0, 11]],
    ],
)
def test_a_transform_that_no_flat_print_undergoes_is_refused(matrix: list[list[float]]) -> None:
    assert affine_through(PRINT.places, PRINT.places @ np.array(matrix, np.float64).T) is None


@pytest.mark.parametrize(
    ("box", "extent"),
    [
        (Box(5, 7, 200, 100), (1.0, 0.5)),
        (Box(5, 7, 100, 200), (0.5, 1.0)),
        (Box(0, 0, 30, 30), SQUARE),
        (Box(0, 0, 1, 400), (0.0025, 1.0)),
    ],
)
def test_an_extent_is_in_longest_sides(box: Box, extent: tuple[float, float]) -> None:
    assert extent_of(box) == extent


# Sanity of a quad. Corners run clockwise as seen, which is towards greater angles where y runs down.


@pytest.mark.parametrize(
    "quad",
    [
        UNIT,
        square(0.011),  # 0.000121 of a square
        square(4.9),
        [[0.1, 0.3], [0.7, 0.25], [0.75, 0.5], [0.15, 0.55]],
        [[0.0, 0.0], [1.0, 0.2], [1.0, 0.8], [0.0, 1.0]],  # seen from the left
        UNIT[[1, 2, 3, 0]],  # turned
        square(1, -0.9, -0.9),  # mostly outside of the picture
    ],
)
def test_a_quad_that_a_flat_print_can_have_is_sane(quad: ArrayLike) -> None:
    assert is_sane(np.array(quad, np.float64))


@pytest.mark.parametrize(
    "quad",
    [
        UNIT[::-1],  # mirrored
        UNIT[[0, 2, 1, 3]],  # crossing itself
        [[0, 0], [1, 0], [0.2, 0.2], [0, 1]],  # dented
        [[0, 0], [0.5, 0], [1, 0], [0, 1]],  # a triangle
        [[0, 0], [1, 0], [1, 0], [0, 0]],  # a line
        square(0.009),  # 0.000081 of a square
        square(5.1),
        [[0, 0], [math.inf, 0], [1, 1], [0, 1]],
        [[0, 0], [math.nan, 0], [1, 1], [0, 1]],
    ],
)
def test_a_quad_that_no_flat_print_can_have_is_not_sane(quad: ArrayLike) -> None:
    assert not is_sane(np.array(quad, np.float64))


# Areas. Squares and triangles by hand, anything else as OpenCV computes it.


@pytest.mark.parametrize(
    ("corners", "area"),
    [
        (UNIT, 1.0),
        (UNIT[::-1], 1.0),
        (square(0.5, 3, 3), 0.25),
        ([[0, 0], [1, 0], [0, 1]], 0.5),
        ([[0, 0], [4, 0], [4, 2], [2, 2], [2, 1], [0, 1]], 6.0),  # a step: 2 x 1 and 2 x 2
        ([[0, 0], [1, 1]], 0.0),
        (np.empty((0, 2)), 0.0),
    ],
)
def test_the_area_of_a_polygon(corners: ArrayLike, area: float) -> None:
    assert polygon_area(np.array(corners, np.float64)) == pytest.approx(area)


@pytest.mark.parametrize(
    ("places", "area"),
    [
        ([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5], [0.5, 0], [0, 0], [0.1, 0.9]], 1.0),  # inside, on an edge, twice
        ([[0.2, 0.1], [0.2, 0.7], [0.6, 0.1]], 0.12),
        ([[0, 0], [0.5, 0.5], [1, 1], [0.25, 0.25]], 0.0),  # a line
        ([[0.5, 0.5]] * 9, 0.0),
        ([[0, 0], [1, 0]], 0.0),
        (np.empty((0, 2)), 0.0),
    ],
)
def test_the_area_of_a_hull(places: ArrayLike, area: float) -> None:
    assert hull_area(np.array(places, np.float64)) == pytest.approx(area)


places_anywhere = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30)


@given(places_anywhere)
def test_the_area_of_any_hull_is_that_of_opencv(places: list[tuple[int, int]]) -> None:
    expected = cv2.contourArea(cv2.convexHull(np.array(places, np.float32)))
    assert hull_area(np.array(places, np.float64)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (UNIT, 1.0),
        (square(left=0.5), 0.5),
        (square(1, 0.5, 0.5), 0.25),
        (square(0.5, 0.25, 0.25), 0.25),  # contained
        (square(3, -1, -1), 1.0),  # containing
        (square(left=1), 0.0),  # sharing an edge
        (square(1, 2, 2), 0.0),  # apart
        (UNIT[[2, 3, 0, 1]], 1.0),
        ([[0, 0], [1, 0], [0, 1]], 0.5),
        ([[0.5, -0.5], [1.5, 0.5], [0.5, 1.5], [-0.5, 0.5]], 1.0),  # a diamond around it, touching its corners
        ([[0.5, 0.0], [1.0, 0.5], [0.5, 1.0], [0.0, 0.5]], 0.5),  # and one inside
    ],
)
def test_what_two_polygons_share(other: ArrayLike, shared: float) -> None:
    other = np.array(other, np.float64)
    assert polygon_area(clipped(UNIT, other)) == pytest.approx(shared)
    assert polygon_area(clipped(other, UNIT)) == pytest.approx(shared)


def test_the_clipped_part_has_the_corners_that_a_hand_would_draw() -> None:
    corners = clipped(UNIT, square(0.5, 0.75, 0.25))
    assert sorted(corners.tolist()) == [[0.75, 0.25], [0.75, 0.75], [1.0, 0.25], [1.0, 0.75]]
    assert clipped(UNIT, square(1, 2, 2)).shape == (0, 2)


@given(places_anywhere, places_anywhere)
def test_what_any_two_hulls_share_is_what_opencv_says(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    hulls = [cv2.convexHull(np.array(places, np.float32))[:, 0].astype(np.float64) for places in (one, other)]
    assume(all(polygon_area(hull) > 0 for hull in hulls))
    expected, _ = cv2.intersectConvexConvex(*(hull.astype(np.float32) for hull in hulls))
    # OpenCV turns its hulls the other way round, which is the same on both sides.
    runs_alike = [hull[::-1] if _turns_left(hull) else hull for hull in hulls]
    assert polygon_area(clipped(*runs_alike)) == pytest.approx(expected, abs=1e-2)


def _turns_left(corners: DoubleArray) -> bool:
    x, y = corners.T
    return bool(x @ np.roll(y, -1) - y @ np.roll(x, -1) < 0)


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (UNIT, 1.0),
        (square(left=0.5), 1 / 3),  # 0.5 of 1.5
        (square(0.5, 0.25, 0.25), 0.25),
        (square(left=1), 0.0),
        (square(1, 2, 2), 0.0),
    ],
)
def test_overlap_is_what_is_shared_of_what_both_cover(other: DoubleArray, share: float) -> None:
    assert overlap(UNIT, other) == overlap(other, UNIT) == pytest.approx(share)

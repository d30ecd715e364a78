from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from app.domain.calibration import Calibration
from app.domain.decision import Ranked
from app.domain.detection import (
    TILINGS,
    VIEW_PX,
    Place,
    Placed,
    SeenRegion,
    Sighting,
    Spotting,
    Tiles,
    box_of,
    corners_of,
    finds_at,
    judge,
    placed_at,
    places_of,
    seen_from,
    with_regions,
)
from app.domain.model_set import ModelSet
from app.domain.values import Box, Candidate, ClassState, Example, Outcome, Reason
from app.domain.verification import NO_FINDS, Found, Proof
from tests.fakes import model_set_for_tests
from tests.values import class_of

MODEL_SET = model_set_for_tests()
CALIBRATION: Calibration = MODEL_SET.calibration  # proved from a strength of 3, ambiguous nearer than 0.2

Outcomes = list[tuple[int, Outcome, Reason | None]]


def square(x: float, y: float = 0.0, side: float = 0.2) -> NDArray[np.float64]:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])


def found(example: str, quad: NDArray[np.float64], *, used: Sequence[int] = range(20), votes: float = 0.5) -> Found:
    """Half of the example, half of the picture's points."""
    shown = Example(example, Box(0, 0, 9, 9), np.array([1, 0], np.float32), 0.1)
    return Found(shown, Proof(len(used), 0.5, 0.5, quad, np.array(used)), votes)


def ranked(
    name: str, quad: NDArray[np.float64], log_odds: float = 2.0, *, accepted: bool = True, proved: bool | None = None
) -> Ranked:
    candidate = Candidate(name, 0.5, probability=0.5, accepted=accepted, threshold=0.6, evidence=())
    return Ranked(candidate, log_odds, (found(name, quad),), strength=4.0, proved=accepted if proved is None else proved)


def judged(*candidates: Ranked) -> Outcomes:
    placed = [Placed(one, one.found[0].proof.quad) for one in candidates]
    return [(one.position, one.outcome, one.reason) for one in judge(placed, MODEL_SET)]


@pytest.mark.parametrize(
    ("tiles", "size", "views"),
    [
        ("off", (4000, 3000), 1),
        ("auto", (640, 480), 1),
        ("auto", (768, 768), 1),
        ("auto", (769, 500), 3),  # too low for a second row
        ("auto", (1280, 960), 5),
        ("auto", (6000, 300), 3),
        ("on", (200, 200), 1),  # no tile is smaller
        ("on", (448, 336), 5),
        ("on", (1280, 1280), 10),
    ],
)
def test_a_scene_is_looked_at_whole_and_in_few_tiles(tiles: Tiles, size: tuple[int, int], views: int) -> None:
    assert len(TILINGS[tiles].views(*size)) == views


@pytest.mark.parametrize("size", [(896, 640), (1001, 1001), (3000, 2000), (2000, 3000), (9000, 700)])
@pytest.mark.parametrize("tiles", ["auto", "on"])
def test_tiles_cover_the_scene_and_overlap(tiles: Tiles, size: tuple[int, int]) -> None:
    width, height = size
    whole, *others = TILINGS[tiles].views(width, height)
    assert whole == Box(0, 0, width, height)
    for starts, side, length in (
        (sorted({view.x for view in others}), others[0].width, width),
        (sorted({view.y for view in others}), others[0].height, height),
    ):
        assert (starts[0], starts[-1] + side) == (0, length)
        assert all(second - first <= 0.75 * side + 1 for first, second in pairwise(starts))


@pytest.mark.parametrize("tiles", ["off", "auto", "on"])
def test_what_is_decoded_is_enough_for_every_tile(tiles: Tiles) -> None:
    wanted = TILINGS[tiles].wanted_px
    assert min(max(view.width, view.height) for view in TILINGS[tiles].views(wanted, wanted)) == VIEW_PX


def test_what_is_seen_in_a_view_lies_in_the_scene() -> None:
    # A square of 40 pixels, 20 from the corner of a view of 200 that begins at (100, 50) in a scene of 400.
    seen = seen_from(Box(100, 50, 200, 100), found("a", square(0.1, 0.1)), 400)
    assert np.allclose(seen.proof.quad * 400, square(120, 70, 40))


def test_sightings_of_one_place_are_one_place_with_all_their_classes() -> None:
    sightings = [
        Sighting("acme", found("a", square(0.1))),
        Sighting("other", found("o", square(0.12))),
        Sighting("acme", found("a", square(0.11))),
        Sighting("acme", found("a", square(0.6))),
    ]
    places = places_of(sightings, most=9)
    assert [(place.quad[0, 0], place.class_names) for place in places] == [(0.1, ("acme", "other")), (0.6, ("acme",))]
    assert [place.quad[0, 0] for place in places_of(sightings, most=1)] == [0.1]


def test_a_part_of_a_thing_is_the_thing_for_its_own_class_only() -> None:
    whole, part = square(0.0, side=0.4), square(0.1, 0.1, side=0.15)
    sightings = [Sighting("acme", found("a", whole)), Sighting("acme", found("a", part)), Sighting("mark", found("m", part))]
    assert [place.class_names for place in places_of(sightings, most=9)] == [("acme",), ("mark",)]


def test_what_lies_elsewhere_is_not_found_at_a_place() -> None:
    place = Place(square(0.0), ("acme", "other"))
    finds = {"acme": [found("a", square(0.01)), found("b", square(0.6), used=range(30, 50))], "other": [found("o", square(0.5))]}
    assert {name: [one.example.id for one in several] for name, several in _at(place, finds).items()} == {"acme": ["a"]}


@pytest.mark.parametrize(
    ("shared", "left"),
    [
        (20, {}),  # all of its points prove another class better, which lies elsewhere
        (10, {"sibling": ["s"]}),  # only half of them
    ],
)
def test_what_another_class_explains_is_not_found(shared: int, left: dict[str, list[str]]) -> None:
    place = Place(square(0.3, 0.3), ("sibling",))
    sibling = found("s", square(0.3, 0.3), used=range(20))
    acme = found("a", square(0.45, 0.45), used=range(20 - shared, 60), votes=0.9)
    finds = {"sibling": [sibling], "acme": [acme]}
    assert {name: [one.example.id for one in several] for name, several in _at(place, finds).items()} == left


def test_a_stronger_class_at_the_same_place_explains_nothing_away() -> None:
    # Which of the two it is, is for `judge` to say.
    place = Place(square(0.3), ("acme", "sibling"))
    finds = {"acme": [found("a", square(0.3), used=range(40))], "sibling": [found("s", square(0.31))]}
    assert _at(place, finds).keys() == {"acme", "sibling"}


def _at(place: Place, finds: dict[str, list[Found]]) -> dict[str, list[Found]]:
    return finds_at(place, finds, CALIBRATION.proof)


def test_things_in_several_places_are_judged_each_for_itself() -> None:
    assert judged(ranked("acme", square(0.0), 1.0), ranked("acme", square(0.5), 3.0), ranked("other", square(0.0, 0.5), 2.0)) == [
        (1, Outcome.MATCH, None),
        (2, Outcome.MATCH, None),
        (0, Outcome.MATCH, None),
    ]


def test_one_thing_of_a_class_is_told_once() -> None:
    assert judged(ranked("acme", square(0.0)), ranked("acme", square(0.05), 3.0)) == [(1, Outcome.MATCH, None)]


def test_of_two_classes_at_one_place_the_better_is_told() -> None:
    assert judged(ranked("acme", square(0.0), 2.0), ranked("other", square(0.02), 2.3)) == [(1, Outcome.MATCH, None)]


def test_two_classes_at_one_place_that_are_too_close_are_both_told_as_ambiguous() -> None:
    candidates = ranked("acme", square(0.0), 2.0), ranked("other", square(0.02), 2.1), ranked("third", square(0.01), 1.8)
    assert judged(*candidates) == [
        (1, Outcome.DOUBTFUL, Reason.AMBIGUOUS),
        (0, Outcome.DOUBTFUL, Reason.AMBIGUOUS),
    ]


def test_a_proof_decides_between_looks_that_are_alike() -> None:
    look = ranked("acme", square(0.0), 2.1, proved=False)
    assert judged(look, ranked("other", square(0.02), 2.0)) == [(1, Outcome.MATCH, None)]


def test_what_is_not_accepted_is_doubtful_and_gives_way_to_what_is() -> None:
    weak = ranked("weak", square(0.5), 1.0, accepted=False)
    assert judged(weak) == [(0, Outcome.DOUBTFUL, Reason.BELOW_THRESHOLD)]
    assert judged(weak, ranked("acme", square(0.5), 1.1)) == [(1, Outcome.MATCH, None)]


def test_two_doubtful_classes_at_one_place_are_both_below_the_threshold() -> None:
    one, other = (ranked(name, square(0.5), accepted=False) for name in ("acme", "other"))
    assert [(outcome, reason) for _, outcome, reason in judged(one, other)] == [(Outcome.DOUBTFUL, Reason.BELOW_THRESHOLD)] * 2


DETECTING = model_set_for_tests(detector="fake detector")  # accepts from log-odds of 0, doubts from -1.4
TWO, THREE = square(0.0), square(0.5)


def region(quad: NDArray[np.float64], objectness: float = 1.0) -> SeenRegion:
    return SeenRegion(quad, objectness, np.array([1, 0], np.float32))


def spotting(name: str, quad: NDArray[np.float64]) -> Spotting:
    return Spotting((name,), region(quad))


# From the top left to the bottom right of a square of 0.2, and 0.02 wide on its edges: 0.19 of it.
STRIP = np.array([[0.0, 0.12], [0.02, 0.1], [0.2, 0.28], [0.18, 0.3]])


def test_a_box_and_a_proof_of_one_place_are_one_place() -> None:
    proved = Place(square(0.0), ("acme",))
    (joined,) = with_regions([proved], [spotting("other", square(0.02)), spotting("third", square(0.04))], most=9)
    assert (joined.quad is proved.quad, joined.is_box, joined.class_names) == (True, False, ("acme", "other", "third"))
    assert joined.region is not None
    assert joined.region.quad[0, 0] == 0.02  # the likelier of the two


def test_a_box_and_a_proof_are_compared_by_their_hulls() -> None:
    hull = np.array([[0.0, 0.1], [0.2, 0.1], [0.2, 0.3], [0.0, 0.3]])
    assert len(with_regions([Place(STRIP, ("acme",))], [spotting("other", hull)], most=9)) == 1
    (place,) = with_regions([], [spotting("other", hull)], most=9)
    assert place.shows("acme", STRIP)


def test_what_no_proof_shows_is_a_place_of_its_own_after_them_up_to_a_limit() -> None:
    proved = Place(square(0.8), ("acme",))
    spottings = [
        spotting("acme", square(0.0)),
        spotting("other", square(0.01)),
        spotting("acme", square(0.3)),
        spotting("b", THREE),
    ]
    places = with_regions([proved], spottings, most=2)
    assert [(place.quad[0, 0], place.class_names, place.is_box) for place in places] == [
        (0.8, ("acme",), False),
        (0.0, ("acme", "other"), True),
        (0.3, ("acme",), True),
    ]
    assert places[0].region is None


def test_a_box_inside_another_may_be_a_thing_of_its_own() -> None:
    small, large = square(0.05, 0.05, side=0.1), square(0.0)
    assert len(with_regions([], [spotting("acme", large), spotting("acme", small)], most=9)) == 2
    assert len(with_regions([], [spotting("acme", large), spotting("other", square(0.05))], most=9)) == 1


def test_boxes_without_an_area_are_of_no_place() -> None:
    line = square(0.3) * [0, 1] + [0.3, 0]
    assert len(with_regions([], [spotting("acme", line), spotting("acme", line), spotting("acme", square(0.3))], most=9)) == 3


def test_a_box_far_larger_than_a_proof_inside_it_says_nothing_of_it() -> None:
    mark = Place(square(0.05, 0.05, side=0.1), ("acme",))
    places = with_regions([mark], [spotting("acme", square(0.0))], most=9)
    assert [place.is_box for place in places] == [False, True]
    assert places[0].region is None


def test_boxes_of_a_view_lie_in_the_scene() -> None:
    (quad,) = corners_of(np.array([[20, 20, 60, 50]], np.float32), Box(100, 50, 200, 100), 400)
    assert np.allclose(quad * 400, [[120, 70], [160, 70], [160, 100], [120, 100]])


def scored(similarity: float, name: str = "acme", *, user_threshold: float | None = None) -> tuple[ClassState, float]:
    return replace(class_of(name), user_threshold=user_threshold), similarity


def at_place(
    place: Place,
    *classes: tuple[ClassState, float],
    finds: Mapping[str, Sequence[Found]] = NO_FINDS,
    region_similarities: Mapping[str, float],
    model_set: ModelSet = DETECTING,
    strangers: float = 0.0,
) -> list[Placed]:
    return placed_at(place, classes, finds, region_similarities, model_set, classes=2, strangers=strangers)


SPOTTED = Place(TWO, ("acme",), region(TWO, 0.5), is_box=True)


def test_what_is_not_proved_is_as_likely_as_look_and_detector_say() -> None:
    (one,) = at_place(SPOTTED, scored(0.7), region_similarities={"acme": 0.9})
    # One example: slope 20 above the threshold of 0.6, and 0.5. Gaussians of width 0.5; weights of 1.
    log_odds = 20 * 0.1 + 0.5 + (0.9 - 1) / 0.25 + math.log(0.5)
    assert one.ranked.log_odds == pytest.approx(log_odds, abs=1e-6)
    assert one.ranked.candidate.probability == pytest.approx(1 / (1 + math.exp(-log_odds)))
    assert (one.ranked.candidate.accepted, one.ranked.found, one.is_box) == (True, (), True)
    assert one.quad is TWO


def leading(weight: float) -> ModelSet:
    """`DETECTING`, in which a lead counts."""
    assert DETECTING.detector is not None
    calibration = replace(DETECTING.detector.calibration, lead=weight)
    return replace(DETECTING, detector=replace(DETECTING.detector, calibration=calibration))


@pytest.mark.parametrize(
    ("others", "strangers", "leads"),
    [
        ({}, 0.1, {"acme": 0.6}),
        ({"print": 0.6}, 0.1, {"acme": 0.1, "print": -0.1}),
        ({"print": 0.6}, 0.65, {"acme": 0.05, "print": -0.1}),
        ({"print": 0.6}, 0.8, {"acme": -0.1, "print": -0.2}),
        ({"print": 0.7}, 0.1, {"acme": 0.0, "print": 0.0}),
        ({"print": 0.6, "other": 0.65}, 0.1, {"acme": 0.05, "print": -0.1, "other": -0.05}),
    ],
)
def test_what_is_ahead_of_other_classes_and_of_strangers_is_likelier(
    others: dict[str, float], strangers: float, leads: dict[str, float]
) -> None:
    classes = [scored(0.7), *(scored(similarity, name) for name, similarity in others.items())]
    known = dict.fromkeys(leads, 1.0)
    with_lead, without = (
        at_place(SPOTTED, *classes, region_similarities=known, model_set=leading(weight), strangers=strangers)
        for weight in (2.0, 0.0)
    )
    gained = {one.class_name: one.ranked.log_odds - other.ranked.log_odds for one, other in zip(with_lead, without, strict=True)}
    assert gained == pytest.approx({name: 2 * lead for name, lead in leads.items()})


@pytest.mark.parametrize(("similarity", "shown"), [(0.62, [True]), (0.55, [False]), (0.5, [])])
def test_without_a_proof_the_lines_of_the_detector_hold(similarity: float, shown: list[bool]) -> None:
    # Log-odds of 0.2, -1.2 and -2.2 with an objectness of 0.5.
    placed = at_place(SPOTTED, scored(similarity), region_similarities={"acme": 1.0})
    assert [one.ranked.candidate.accepted for one in placed] == shown


def test_a_look_that_passes_its_threshold_is_not_accepted_on_that_ground() -> None:
    (one,) = at_place(SPOTTED, scored(0.65), region_similarities={"acme": 0.5})  # 1.5 - 2 - 0.7
    assert one.ranked.candidate.similarity > one.ranked.candidate.threshold
    assert not one.ranked.candidate.accepted


def test_what_a_user_asks_of_the_look_holds_without_a_proof_too() -> None:
    accepted = [
        at_place(SPOTTED, scored(0.7, user_threshold=line), region_similarities={"acme": 1.0})[0].ranked.candidate.accepted
        for line in (0.7, 0.71)
    ]
    assert accepted == [True, False]


def test_a_class_that_the_detector_does_not_know_needs_a_proof() -> None:
    finds = {"print": [found("p", square(0.01))]}
    placed = at_place(SPOTTED, scored(0.9), scored(0.9, "print"), finds=finds, region_similarities={})
    assert [(one.class_name, one.is_box) for one in placed] == [("print", False)]


def test_a_detector_raises_what_a_proof_says_and_never_lowers_it() -> None:
    place = Place(square(0.01), ("acme",), region(TWO, 1.0))
    finds = {"acme": [found("a", square(0.01))]}
    (proved,) = at_place(replace(place, region=None), scored(0.5), finds=finds, region_similarities={})
    (unseen,) = at_place(place, scored(0.5), finds=finds, region_similarities={"acme": -1.0})
    (seen,) = at_place(place, scored(0.9), finds=finds, region_similarities={"acme": 1.0})
    assert unseen.ranked == proved.ranked
    assert seen.ranked.log_odds == pytest.approx(20 * 0.3 + 0.5)
    assert proved.ranked.log_odds < seen.ranked.log_odds
    assert [one.quad[0, 0] for one in (proved, unseen, seen)] == [0.01] * 3  # where the proof has it


def test_a_proof_too_weak_is_accepted_where_the_detector_is_sure() -> None:
    weak = {"acme": [found("a", square(0.01), used=range(6))]}
    place = Place(square(0.01), ("acme",), region(TWO, 1.0))
    without = at_place(replace(place, region=None), scored(0.59), finds=weak, region_similarities={})
    (one,) = at_place(place, scored(0.59), finds=weak, region_similarities={"acme": 1.0})
    assert [each.ranked.candidate.accepted for each in without] == [False]
    assert (one.ranked.candidate.accepted, one.is_box) == (True, False)


def test_without_a_detector_a_region_says_nothing() -> None:
    assert at_place(SPOTTED, scored(0.9), region_similarities={"acme": 1.0}, model_set=MODEL_SET) == []


def seen_alone(name: str, quad: NDArray[np.float64], log_odds: float = 2.0, *, accepted: bool = True) -> Placed:
    return Placed(replace(ranked(name, quad, log_odds, accepted=accepted, proved=False), found=()), quad)


def proved_at(name: str, quad: NDArray[np.float64], log_odds: float = 2.0) -> Placed:
    return Placed(ranked(name, quad, log_odds), quad)


def outcomes(*placed: Placed) -> Outcomes:
    return [(one.position, one.outcome, one.reason) for one in judge(placed, DETECTING)]


def test_boxes_of_one_class_over_one_thing_are_told_once_and_others_each() -> None:
    several = seen_alone("acme", square(0.0), 1.0), seen_alone("acme", square(0.05), 3.0), seen_alone("acme", THREE, 2.0)
    assert outcomes(*several) == [(1, Outcome.MATCH, None), (2, Outcome.MATCH, None)]


def test_a_proof_decides_between_what_is_seen_and_what_is_proved() -> None:
    for name in ("acme", "other"):
        assert outcomes(seen_alone(name, square(0.02), 5.0), proved_at("acme", TWO)) == [(1, Outcome.MATCH, None)]
    hull = np.array([[0.0, 0.1], [0.2, 0.1], [0.2, 0.3], [0.0, 0.3]])
    assert outcomes(seen_alone("other", hull, 5.0), proved_at("acme", STRIP)) == [(1, Outcome.MATCH, None)]


@pytest.mark.parametrize(("behind", "reason"), [(0.1, Reason.AMBIGUOUS), (0.3, None)])
def test_two_classes_that_are_seen_at_one_place_alike_are_ambiguous(behind: float, reason: Reason | None) -> None:
    model_set = replace(DETECTING, calibration=with_margin(0.0))  # that of proofs has no part in it
    placed = seen_alone("acme", TWO, 2.0), seen_alone("other", square(0.02), 2.0 - behind)
    told = judge(placed, model_set)
    assert [one.reason for one in told] == ([reason, reason] if reason else [None])


def with_margin(margin: float) -> Calibration:
    return replace(CALIBRATION, proof=replace(CALIBRATION.proof, ambiguous_margin=margin))


def test_what_is_seen_but_not_accepted_is_doubtful() -> None:
    assert outcomes(seen_alone("acme", TWO, -1.0, accepted=False)) == [(0, Outcome.DOUBTFUL, Reason.BELOW_THRESHOLD)]


@pytest.mark.parametrize(
    ("quad", "box"),
    [
        ([(10.2, 20.4), (50.6, 20.4), (50.6, 60), (10.2, 60)], Box(10, 20, 41, 40)),
        ([(30, 10), (50, 30), (30, 50), (10, 30)], Box(10, 10, 40, 40)),  # on its corner
        ([(-10, -10), (300, -10), (300, 300), (-10, 300)], Box(0, 0, 100, 80)),
        ([(95, 70), (140, 70), (140, 120), (95, 120)], Box(95, 70, 5, 10)),
        ([(99.8, 79.9), (140, 79.9), (140, 120), (99.8, 120)], Box(99, 79, 1, 1)),  # a pixel at least
    ],
)
def test_a_box_is_the_upright_hull_inside_the_picture(quad: list[tuple[float, float]], box: Box) -> None:
    assert box_of(tuple(quad), 100, 80) == box

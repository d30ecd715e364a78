from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from app.domain.calibration import Calibration
from app.domain.decision import Ranked
from app.domain.detection import TILINGS, VIEW_PX, Place, Sighting, Tiles, box_of, finds_at, judge, places_of, seen_from
from app.domain.values import Box, Candidate, Example, Outcome, Reason
from app.domain.verification import Found, Proof
from tests.fakes import calibration_for_tests

CALIBRATION: Calibration = calibration_for_tests()  # proved from a strength of 3, ambiguous nearer than 0.2

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
    return [(one.position, one.outcome, one.reason) for one in judge(candidates, CALIBRATION)]


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

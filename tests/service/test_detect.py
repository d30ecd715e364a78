from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.adapters.local_features import SiftPoints
from app.domain.detection import Detections, Tiles
from app.domain.model_set import ModelSet
from app.domain.posterior import MOST_CLASSES, Regions
from app.domain.values import Box, Outcome, PixelArray, Points, Reason
from app.domain.verification import AskedPoints, Proof
from app.errors import DeadlinePassed, InvalidInput, InvalidPicture
from app.service import detect, verify
from app.service.pools import Deadline
from app.service.ports import PointFinder
from tests.fakes import FakeDetector, FakePointFinder, model_set_for_tests, point_settings_for_tests, raw_bytes
from tests.service.on_memory import RED, Service, drawing

SIDE = 64  # of what is enrolled

# The fake finder sees print again that lies on its grid of 8 pixels, as large as it was enrolled.
Laid = tuple[PixelArray, int, int]  # pixels, and where their top left corner lies in a scene


def print_of(seed: int, *, width: int = SIDE, height: int = SIDE) -> PixelArray:
    """Squares of 2 pixels, black or white at random."""
    squares = np.random.default_rng(seed).integers(0, 2, (height // 2, width // 2, 1), dtype=np.uint8) * 255
    return squares.repeat(2, axis=0).repeat(2, axis=1).repeat(3, axis=2)


ACME, OTHER = print_of(1), print_of(2)


def scene(*laid: Laid, width: int = 320, height: int = 240) -> bytes:
    """Prints on grey; what reaches outside is cut off."""
    pixels = np.full((height + 2 * SIDE, width + 2 * SIDE, 3), 128, np.uint8)
    for part, x, y in laid:
        pixels[y + SIDE : y + SIDE + part.shape[0], x + SIDE : x + SIDE + part.shape[1]] = part
    return raw_bytes(pixels[SIDE:-SIDE, SIDE:-SIDE])


def places(found: Detections) -> set[tuple[str, int, int]]:
    return {(one.class_name, one.box.x, one.box.y) for one in found.detections}


class CountedPoints:
    """Points as another finder finds them, and what was asked of it: at which sides, and how many there were."""

    def __init__(self, find_points: PointFinder | None = None) -> None:
        self._find_points = find_points or FakePointFinder()
        self.sides: list[int | None] = []
        self.counts: list[int] = []
        self.sharpened: list[bool] = []

    @property
    def side_px(self) -> int:
        return self._find_points.side_px

    def __call__(
        self, pixels: PixelArray, *, side_px: int | None = None, most: int | None = None, sharpen: bool = False
    ) -> Points:
        points = self._find_points(pixels, side_px=side_px, most=most, sharpen=sharpen)
        self.sides.append(side_px)
        self.sharpened.append(sharpen)
        self.counts.append(len(points))
        return points


@pytest.fixture
def asked_proofs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each call of `proofs` was asked about."""
    asked: list[int] = []
    proofs = AskedPoints.proofs

    def counted(self: AskedPoints, examples: Sequence[Points], extents: Sequence[tuple[float, float]]) -> list[Proof | None]:
        asked.append(len(examples))
        return proofs(self, examples, extents)

    monkeypatch.setattr(AskedPoints, "proofs", counted)
    return asked


def forget(finder: CountedPoints, asked_proofs: list[int]) -> None:
    """What enrolment has asked for."""
    for counts in (finder.sides, finder.counts, asked_proofs):
        counts.clear()


def most_proofs(views: int) -> int:
    """Of each view once and again, where the last try for each example finds nothing; of each place as in classification."""
    return views * (2 * detect.VOTED + detect.MOST_REPEATS) + detect.MOST_PLACES * (verify.VOTED + verify.ALIKE)


@pytest.fixture
def taught(service: Service) -> Service:
    """Knows acme and other."""
    service.enrol("acme", raw_bytes(ACME))
    service.enrol("other", raw_bytes(OTHER))
    return service


def with_proof(**changed: float) -> ModelSet:
    model_set = model_set_for_tests()
    calibration = model_set.calibration
    return replace(model_set, calibration=replace(calibration, proof=replace(calibration.proof, **changed)))


def test_a_thing_is_found_where_it_lies(taught: Service) -> None:
    (example,) = taught.collection.gallery["acme"].examples
    found = taught.detect(scene((ACME, 104, 48)))
    (one,) = found.detections
    assert (one.class_name, one.box) == ("acme", Box(104, 48, SIDE, SIDE))
    assert (one.outcome, one.reason, one.accepted) == (Outcome.MATCH, None, True)
    assert one.quad is not None
    assert np.allclose(one.quad, [(104, 48), (168, 48), (168, 112), (104, 112)], atol=0.5)
    assert [shown.example_id for shown in one.evidence] == [example.id]
    assert one.evidence[0].verified is not None
    assert one.evidence[0].verified.quad == one.quad
    assert one.similarity == taught.classify(raw_bytes(ACME)).candidates[0].similarity  # that is what is in the box
    assert (found.width, found.height, found.version, found.model) == (320, 240, 2, taught.model_set.id)


def test_several_classes_and_several_of_one_are_found(taught: Service) -> None:
    found = taught.detect(scene((ACME, 8, 16), (OTHER, 104, 48), (ACME, 200, 160), (ACME, 208, 8)))
    assert places(found) == {("acme", 8, 16), ("other", 104, 48), ("acme", 200, 160), ("acme", 208, 8)}
    assert {one.outcome for one in found.detections} == {Outcome.MATCH}


def test_a_thing_that_several_examples_prove_is_one(service: Service) -> None:
    part = ACME[:, 16:]  # another example of the class, which shows most of the same print
    service.enrol("acme", raw_bytes(ACME), raw_bytes(part))
    (one,) = service.detect(scene((ACME, 104, 48))).detections
    assert one.box == Box(104, 48, SIDE, SIDE)


def test_the_most_probable_come_first_and_max_detections_cuts_the_rest(taught: Service) -> None:
    picture = scene((ACME, 8, 16), (OTHER[:40], 104, 48), (ACME[:48], 200, 160))
    every, best = taught.detect(picture), taught.detect(picture, max_detections=1)
    probabilities = [one.probability for one in every.detections]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert best.detections == every.detections[:1]


def test_only_the_named_classes_are_looked_for(taught: Service) -> None:
    picture = scene((ACME, 8, 16), (OTHER, 104, 48))
    assert places(taught.detect(picture, classes=["other"])) == {("other", 104, 48)}
    with pytest.raises(InvalidInput, match="'nobody'"):
        taught.detect(picture, classes=["other", "nobody"])


def test_a_box_is_clipped_to_the_picture_and_a_quad_is_not(taught: Service) -> None:
    (one,) = taught.detect(scene((ACME, -16, 200))).detections
    assert one.box == Box(0, 200, 48, 40)
    assert one.quad is not None
    assert np.allclose(one.quad, [(-16, 200), (48, 200), (48, 264), (-16, 264)], atol=0.5)


def test_a_region_is_all_that_is_looked_at_and_places_are_those_of_the_picture(taught: Service) -> None:
    picture = scene((ACME, 8, 16), (ACME, 200, 160))
    found = taught.detect(picture, box=Box(160, 120, 160, 120))
    assert places(found) == {("acme", 200, 160)}
    assert (found.width, found.height) == (320, 240)


def test_a_thing_that_reaches_out_of_the_region_has_a_box_in_the_picture(taught: Service) -> None:
    (one,) = taught.detect(scene((ACME, 104, 48)), box=Box(120, 0, 200, 240)).detections
    assert one.box == Box(104, 48, SIDE, SIDE)


@pytest.mark.parametrize(("tiles", "looks"), [("off", 1), ("auto", 5), ("on", 10)])
def test_a_large_scene_is_looked_at_in_tiles_too_and_each_thing_is_told_once(
    make_service: Callable[..., Service], tiles: Tiles, looks: int
) -> None:
    finder = CountedPoints()
    service = make_service(find_points=finder)
    service.enrol("acme", raw_bytes(ACME))
    finder.sides.clear()
    found = service.detect(scene((ACME, 400, 296), (ACME, 40, 40), width=896, height=640), tiles=tiles)
    assert places(found) == {("acme", 400, 296), ("acme", 40, 40)}
    assert finder.sides.count(detect.VIEW_PX) == looks


def test_two_classes_with_one_print_cannot_be_told_apart(service: Service) -> None:
    service.enrol("acme", raw_bytes(ACME))
    service.enrol("acme again", raw_bytes(ACME))
    found = service.detect(scene((ACME, 104, 48)))
    assert {one.class_name for one in found.detections} == {"acme", "acme again"}
    assert {(one.outcome, one.reason, one.accepted) for one in found.detections} == {(Outcome.DOUBTFUL, Reason.AMBIGUOUS, True)}
    assert found.outcome is Outcome.DOUBTFUL


def test_of_two_classes_with_half_the_print_in_common_the_one_that_is_there_is_told(service: Service) -> None:
    service.enrol("acme", raw_bytes(ACME))
    service.enrol("acme light", raw_bytes(np.concatenate([ACME[:32], OTHER[:32]])))
    (one,) = service.detect(scene((ACME, 104, 48))).detections
    assert (one.class_name, one.outcome) == ("acme", Outcome.MATCH)


def test_a_mark_on_a_package_is_a_thing_of_its_own(service: Service) -> None:
    package = print_of(3, width=128, height=128)
    package[40:88, 32:80] = ACME[:48, :48]
    service.enrol("package", raw_bytes(package))
    service.enrol("mark", raw_bytes(ACME[:48, :48]))
    assert places(service.detect(scene((package, 104, 48)))) == {("package", 104, 48), ("mark", 136, 88)}


def test_a_mark_that_a_package_shares_is_no_package(service: Service) -> None:
    package = print_of(3, width=128, height=128)
    package[40:64, 32:56] = ACME[:24, :24]
    service.enrol("package", raw_bytes(package))
    service.enrol("acme", raw_bytes(ACME))
    assert places(service.detect(scene((ACME, 104, 48)))) == {("acme", 104, 48)}


def test_a_proof_too_weak_to_be_accepted_is_doubtful(make_service: Callable[..., Service]) -> None:
    service = make_service(model_set=with_proof(line=9.0))
    service.enrol("acme", raw_bytes(ACME))
    asyncio.run(service.classes.configure("acme", threshold=1.0, deadline=Deadline.never()))
    found = service.detect(scene((ACME[:32], 104, 48)))
    (one,) = found.detections
    assert (one.outcome, one.reason, one.accepted) == (Outcome.DOUBTFUL, Reason.BELOW_THRESHOLD, False)
    assert found.outcome is Outcome.DOUBTFUL


def test_a_weak_proof_is_accepted_where_the_look_is(make_service: Callable[..., Service]) -> None:
    service = make_service(model_set=with_proof(line=9.0))
    service.enrol("acme", raw_bytes(ACME))
    (one,) = service.detect(scene((ACME, 104, 48))).detections
    assert one.similarity >= one.threshold
    assert (one.outcome, one.accepted) == (Outcome.MATCH, True)


def test_a_proof_too_weak_for_a_persons_look_is_not_told(make_service: Callable[..., Service]) -> None:
    service = make_service(model_set=with_proof(line=9.0, doubtful_line=9.0))
    service.enrol("acme", raw_bytes(ACME))
    assert service.detect(scene((ACME, 104, 48))).detections == ()


def test_without_classes_a_scene_shows_nothing(service: Service) -> None:
    found = service.detect(scene((ACME, 104, 48)))
    assert (found.width, found.height, found.version, found.detections) == (320, 240, 0, ())
    assert found.outcome is Outcome.UNKNOWN


def test_a_class_without_points_is_never_found(service: Service) -> None:
    service.enrol("red", drawing(RED))
    assert service.detect(drawing(RED)).detections == ()


def test_without_verification_nothing_is_found(make_service: Callable[..., Service]) -> None:
    service = make_service(verify="off")
    service.enrol("acme", raw_bytes(ACME))
    found = service.detect(scene((ACME, 104, 48)))
    assert (found.version, found.detections) == (1, ())


@pytest.mark.parametrize("tiles", ["off", "auto", "on"])
@pytest.mark.parametrize("shape", [(8, 8), (8, 300), (300, 8), (240, 320)])
def test_a_picture_without_a_point_shows_nothing(taught: Service, shape: tuple[int, int], tiles: Tiles) -> None:
    blank = raw_bytes(np.full((*shape, 3), 200, np.uint8))
    assert taught.detect(blank, tiles=tiles).detections == ()


def test_what_cannot_be_decoded_is_refused(taught: Service) -> None:
    with pytest.raises(InvalidPicture):
        taught.detect(b"no picture")


def test_a_scene_that_comes_too_late_is_not_looked_at(taught: Service) -> None:
    with pytest.raises(DeadlinePassed):
        taught.detect(scene((ACME, 104, 48)), deadline=Deadline.after(0))


def test_the_same_scene_gets_the_same_answer(taught: Service) -> None:
    picture = scene((ACME, 8, 16), (OTHER, 104, 48), (ACME, 200, 160))
    assert taught.detect(picture, tiles="on") == taught.detect(picture, tiles="on")


def test_a_wall_of_one_thing_is_told_up_to_a_limit(make_service: Callable[..., Service], asked_proofs: list[int]) -> None:
    finder = CountedPoints()
    service = make_service(find_points=finder)
    service.enrol("acme", raw_bytes(ACME))
    forget(finder, asked_proofs)
    found = service.detect(raw_bytes(np.tile(ACME, (10, 14, 1))), tiles="off")
    assert detect.MOST_INSTANCES / 2 < len(found.detections) <= detect.MOST_INSTANCES
    assert sum(asked_proofs) <= most_proofs(views=1)


def test_all_examples_together_are_looked_for_again_a_limited_number_of_times(service: Service, asked_proofs: list[int]) -> None:
    for number in range(4):
        service.enrol(f"acme {number}", raw_bytes(ACME))
    asked_proofs.clear()
    service.detect(raw_bytes(np.tile(ACME, (10, 14, 1))), tiles="off")
    again = asked_proofs.count(1)  # the first look, and each place, ask for the examples of all four
    assert detect.MOST_REPEATS <= again <= detect.MOST_REPEATS + 4


@pytest.mark.parametrize("texture", ["noise", "checkerboard", "barcode", "net", "text"])
def test_a_hostile_texture_costs_no_more_than_a_limit_and_is_answered(
    make_service: Callable[..., Service], asked_proofs: list[int], texture: str
) -> None:
    finder = CountedPoints(SiftPoints(replace(point_settings_for_tests(), side_px=128, most=100)))
    service = make_service(find_points=finder)
    for name, make in TEXTURES.items():
        service.enrol(name, raw_bytes(make(120)))
    forget(finder, asked_proofs)
    found = service.detect(raw_bytes(TEXTURES[texture](400)), tiles="off")
    assert (found.width, found.version) == (400, len(TEXTURES))
    assert finder.sides.count(detect.VIEW_PX) == 1
    assert len(finder.sides) <= 1 + detect.MOST_PLACES
    assert max(finder.counts) <= detect.MOST_POINTS
    assert sum(asked_proofs) <= most_proofs(views=1)


def noise(side_px: int) -> PixelArray:
    return np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)


def checkerboard(side_px: int) -> PixelArray:
    rows, columns = np.indices((side_px, side_px)) // 16
    return grey((rows + columns) % 2 * 255)


def barcode(side_px: int) -> PixelArray:
    bars = np.random.default_rng(0).integers(0, 2, side_px // 4).repeat(4) * 255
    return grey(np.broadcast_to(bars, (side_px, side_px)))


def net(side_px: int) -> PixelArray:
    rows, columns = np.indices((side_px, side_px)) % 20
    return grey(np.where((rows < 3) | (columns < 3), 0, 255))


def text(side_px: int) -> PixelArray:
    """One word over and over."""
    return np.tile(print_of(0, width=40, height=20), (side_px // 20, side_px // 40, 1))


def grey(levels: NDArray[np.int64]) -> PixelArray:
    return levels.astype(np.uint8)[..., np.newaxis].repeat(3, axis=2)


TEXTURES = {made.__name__: made for made in (noise, checkerboard, barcode, net, text)}


def test_what_is_asked_is_sharpened_and_what_is_enrolled_is_not(make_service: Callable[..., Service]) -> None:
    finder = CountedPoints()
    service = make_service(find_points=finder)
    service.enrol("acme", raw_bytes(ACME))
    assert set(finder.sharpened) == {False}
    finder.sharpened.clear()
    service.detect(scene((ACME, 104, 48)))
    service.classify(raw_bytes(ACME))
    assert set(finder.sharpened) == {True}


# With a detector: things of one colour, which have no print.

RED_THING, GREEN_THING, PINK_THING = (
    np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in ((230, 20, 20), (20, 200, 20), (255, 60, 60))
)


@pytest.fixture
def detecting(make_service: Callable[..., Service]) -> Service:
    """Knows red and green, which have no print, and acme, which has; and has a detector."""
    service = make_service(detector=FakeDetector())
    for name, pixels in (("red", RED_THING), ("green", GREEN_THING), ("acme", ACME)):
        service.enrol(name, raw_bytes(pixels))
    return service


def test_a_thing_without_print_is_found_where_the_detector_sees_it(detecting: Service) -> None:
    (example,) = detecting.collection.gallery["red"].examples
    (one,) = detecting.detect(scene((RED_THING, 104, 48))).detections
    assert (one.class_name, one.box, one.quad) == ("red", Box(104, 48, SIDE, SIDE), None)
    assert (one.outcome, one.reason, one.accepted) == (Outcome.MATCH, None, True)
    assert one.similarity == pytest.approx(1.0, abs=0.01)
    assert 0.9 < one.probability < 1
    assert [(shown.example_id, shown.verified) for shown in one.evidence] == [(example.id, None)]


def test_what_is_printed_and_what_is_not_are_found_together_each_once(detecting: Service) -> None:
    found = detecting.detect(scene((RED_THING, 8, 16), (GREEN_THING, 104, 48), (ACME, 200, 160), (RED_THING, 280, 16)))
    assert places(found) == {("red", 8, 16), ("green", 104, 48), ("acme", 200, 160), ("red", 280, 16)}
    assert {one.class_name: one.quad is None for one in found.detections} == {"red": True, "green": True, "acme": False}
    assert {one.outcome for one in found.detections} == {Outcome.MATCH}


def test_without_a_detector_the_same_things_are_not_found_and_printed_ones_as_ever(
    detecting: Service, make_service: Callable[..., Service]
) -> None:
    without = make_service(store=detecting.store)
    picture = scene((RED_THING, 8, 16), (ACME, 200, 160))
    assert places(without.detect(picture)) == {("acme", 200, 160)}
    (proved,) = (one for one in detecting.detect(picture).detections if one.class_name == "acme")
    assert without.detect(picture).detections == (proved,)


def test_a_class_enrolled_a_moment_ago_is_found_and_one_removed_is_not(detecting: Service) -> None:
    blue = np.full((SIDE, SIDE, 3), (20, 20, 230), np.uint8)
    assert places(detecting.detect(scene((blue, 104, 48)))) == set()
    detecting.enrol("blue", raw_bytes(blue))
    assert places(detecting.detect(scene((blue, 104, 48)))) == {("blue", 104, 48)}
    asyncio.run(detecting.classes.remove("blue", deadline=Deadline.never()))
    assert places(detecting.detect(scene((blue, 104, 48)))) == set()


def test_only_the_named_classes_are_seen(detecting: Service) -> None:
    picture = scene((RED_THING, 8, 16), (GREEN_THING, 104, 48))
    assert places(detecting.detect(picture, classes=["green"])) == {("green", 104, 48)}
    assert len(detecting.detect(picture, max_detections=1).detections) == 1


def test_what_the_detector_sees_of_a_region_lies_in_the_picture(detecting: Service) -> None:
    picture = scene((RED_THING, 8, 16), (RED_THING, 200, 160))
    assert places(detecting.detect(picture, box=Box(160, 120, 160, 120))) == {("red", 200, 160)}


@pytest.mark.parametrize(("tiles", "sides"), [("off", [64]), ("auto", [32] * 5), ("on", [32] * 10)])
def test_a_large_scene_is_seen_by_tile_and_each_thing_is_told_once(
    make_service: Callable[..., Service], tiles: Tiles, sides: list[int]
) -> None:
    detector = FakeDetector()
    service = make_service(detector=detector)
    service.enrol("red", raw_bytes(RED_THING))
    assert detector.asked_at == [32] * 3  # the example, at three sizes
    detector.asked_at.clear()
    found = service.detect(scene((RED_THING, 400, 296), (RED_THING, 40, 40), width=896, height=640), tiles=tiles)
    assert places(found) == {("red", 400, 296), ("red", 40, 40)}
    assert detector.asked_at == sides


def test_without_verification_what_the_detector_sees_is_still_found(make_service: Callable[..., Service]) -> None:
    service = make_service(detector=FakeDetector(), verify="off")
    service.enrol("red", raw_bytes(RED_THING))
    service.enrol("acme", raw_bytes(ACME))
    found = service.detect(scene((RED_THING, 8, 16), (ACME, 200, 160)))
    assert places(found) >= {("red", 8, 16)}
    assert {one.quad for one in found.detections} == {None}


def test_what_neither_the_look_nor_the_detector_knows_is_not_told(detecting: Service) -> None:
    blue = np.full((SIDE, SIDE, 3), (20, 20, 230), np.uint8)
    assert detecting.detect(scene((blue, 104, 48))).detections == ()
    assert detecting.detect(scene()).detections == ()


def test_what_the_detector_has_never_seen_needs_a_proof(make_service: Callable[..., Service]) -> None:
    store = make_service().store
    make_service(store=store, keep_crops=False).enrol("red", raw_bytes(RED_THING))
    service = make_service(store=store, detector=FakeDetector())
    service.enrol("green", raw_bytes(GREEN_THING))
    assert places(service.detect(scene((RED_THING, 8, 16), (GREEN_THING, 104, 48)))) == {("green", 104, 48)}


def test_a_user_who_asks_for_more_likeness_is_heard_where_nothing_is_proved(detecting: Service) -> None:
    asyncio.run(detecting.classes.configure("red", threshold=1.0, deadline=Deadline.never()))
    (one,) = detecting.detect(scene((PINK_THING, 104, 48))).detections
    assert (one.class_name, one.accepted, one.outcome) == ("red", False, Outcome.DOUBTFUL)
    asyncio.run(detecting.classes.configure("red", threshold=None, deadline=Deadline.never()))
    (one,) = detecting.detect(scene((PINK_THING, 104, 48))).detections
    assert (one.accepted, one.outcome) == (True, Outcome.MATCH)


def test_only_where_a_box_may_show_something_its_print_is_looked_for(make_service: Callable[..., Service]) -> None:
    finder = CountedPoints()
    service = make_service(detector=FakeDetector(), find_points=finder)
    for name, pixels in (("red", RED_THING), ("acme", ACME)):
        service.enrol(name, raw_bytes(pixels))
    blue = np.full((SIDE, SIDE, 3), (20, 20, 230), np.uint8)

    def looked_for(*things: tuple[PixelArray, int, int]) -> int:
        finder.sharpened.clear()
        service.detect(scene(*things))
        return len(finder.sharpened)

    of_scene = looked_for()
    assert looked_for((blue, 8, 16)) == of_scene
    assert looked_for((RED_THING, 104, 48)) == of_scene + 2  # sharpened, and as it is
    assert looked_for((blue, 8, 16), (RED_THING, 104, 48)) == of_scene + 2


def test_what_strangers_look_like_too_is_less_likely(make_service: Callable[..., Service]) -> None:
    model_set = model_set_for_tests(detector="fake detector")
    assert model_set.detector is not None
    heeding = replace(model_set.detector, calibration=replace(model_set.detector.calibration, lead=5.0))
    first = make_service(detector=FakeDetector(), model_set=replace(model_set, detector=heeding))
    first.enrol("red", raw_bytes(RED_THING))
    (example,) = first.collection.gallery["red"].examples
    red_strangers = replace(model_set, detector=heeding, cohort=example.embedding[np.newaxis].astype(np.float64))
    second = make_service(detector=FakeDetector(), model_set=red_strangers, store=first.store)
    picture = scene((PINK_THING, 104, 48))
    (among_others,), (among_red,) = (service.detect(picture).detections for service in (first, second))
    assert among_red.similarity == among_others.similarity
    assert among_red.probability < among_others.probability


def test_where_many_classes_are_alike_to_the_detector_their_look_decides(make_service: Callable[..., Service]) -> None:
    service = make_service(detector=FakeDetector())
    bands = list(permutations([(230, 20, 20), (20, 200, 20), (20, 20, 230), (230, 230, 20)]))[::2]  # of one mean colour
    assert len(bands) > 2 * MOST_CLASSES
    things = {f"{number}": np.array(colours, np.uint8).repeat(SIDE // 4, axis=0) for number, colours in enumerate(bands)}
    things = {name: np.broadcast_to(rows[:, np.newaxis], (SIDE, SIDE, 3)) for name, rows in things.items()}
    for name, pixels in things.items():
        service.enrol(name, raw_bytes(pixels))
    for name, pixels in things.items():
        best = service.detect(scene((pixels, 104, 48))).detections[0]
        assert (best.class_name, best.outcome, best.box) == (name, Outcome.MATCH, Box(104, 48, SIDE, SIDE))


class ManyBoxes(FakeDetector):
    """Sees the thing, if there is one, everywhere."""

    def __call__(self, pixels: PixelArray, side_px: int) -> Regions:
        seen = super().__call__(pixels, side_px)
        height, width = pixels.shape[:2]
        corners = np.array([(x, y) for y in range(0, height - 16, 16) for x in range(0, width - 16, 16)], np.float32)
        boxes = np.concatenate([corners, corners + 16], axis=1)
        return Regions(boxes, np.full(len(boxes), 0.9, np.float32), seen.embeddings[:1].repeat(len(boxes), axis=0))


def test_a_detector_that_sees_things_everywhere_costs_no_more_than_a_limit(make_service: Callable[..., Service]) -> None:
    service = make_service(detector=FakeDetector())
    service.enrol("red", raw_bytes(RED_THING))
    crowded = make_service(store=service.store, detector=ManyBoxes())
    found = crowded.detect(raw_bytes(np.full((400, 400, 3), (230, 20, 20), np.uint8)))
    assert 0 < len(found.detections) <= detect.MOST_UNPROVED_PLACES


@pytest.mark.parametrize("shape", [(8, 8), (8, 300), (300, 8), (240, 320)])
def test_a_grey_picture_shows_a_detector_nothing(detecting: Service, shape: tuple[int, int]) -> None:
    assert detecting.detect(raw_bytes(np.full((*shape, 3), 128, np.uint8)), tiles="on").detections == ()

"""Print that a picture shows. The fake finder finds it wherever it lies on the grid of 8 pixels, as large as it was enrolled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from app.domain.model_set import ModelSet
from app.domain.values import Answer, Box, Candidate, Outcome, PixelArray, Points, Reason, Upload, Verified
from app.service.classify import SHORTLIST
from app.service.embed import PlaceEmbedder
from app.service.pools import Deadline
from app.service.verify import ALIKE, MOST_VOTED, VOTED, Mode, Verifier
from tests.fakes import FakeEmbedder, FakePointFinder, model_set_for_tests, raw_bytes, raw_codec, rectify_nearest
from tests.service.on_memory import BLUE, GREEN, PINK, RED, WHITE, Colour, Service, drawing, printed

MakeService = Callable[..., Service]

SIDE = 64  # of what `printed` makes: a point in each of its 64 blocks
ALL_POINTS = 64


def pixels_of(picture: bytes) -> PixelArray:
    return raw_codec().decode_crop(picture)


def scene(*laid: tuple[bytes, int, int], width: int = 192, height: int = 128, ground: Colour = GREEN) -> bytes:
    """Pictures laid on a ground of one colour, the top left corner of each at x, y."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = ground
    for picture, x, y in laid:
        part = pixels_of(picture)
        pixels[y : y + part.shape[0], x : x + part.shape[1]] = part
    return raw_bytes(pixels)


def tinted(picture: bytes, tint: int) -> bytes:
    """Paler, redder and less blue: another look, and the same grey within a factor, so that the points are the same."""
    pale = pixels_of(picture).astype(int) // 2 + 64
    return raw_bytes((pale + np.array([tint, 0, -tint])).astype(np.uint8))


def rectangle(x: float, y: float, width: float = SIDE, height: float = SIDE) -> tuple[tuple[float, float], ...]:
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def best_proof(candidate: Candidate) -> Verified:
    verified = candidate.evidence[0].verified
    assert verified is not None
    return verified


def proved_in(answer: Answer) -> set[str]:
    return {candidate.class_name for candidate in answer.candidates if candidate.evidence[0].verified}


def classify_box(service: Service, picture: bytes, box: Box) -> Answer:
    return asyncio.run(service.classify_one(Upload(picture, box), top_k=5, classes=None, deadline=Deadline.never()))


class CountedFinder(FakePointFinder):
    calls = 0

    def __call__(
        self, pixels: PixelArray, *, side_px: int | None = None, most: int | None = None, sharpen: bool = False
    ) -> Points:
        self.calls += 1
        return super().__call__(pixels, side_px=side_px, most=most, sharpen=sharpen)


def test_print_is_recognised_in_a_picture_that_looks_like_something_else(make_service: MakeService) -> None:
    answers = {}
    for mode in ("off", "always"):
        service = make_service(verify=mode)
        example = service.enrol("acme", printed(1)).examples[0]
        service.enrol("other print", printed(2))
        service.enrol("half green", drawing(GREEN, WHITE))
        answers[mode] = service.classify(scene((printed(1), 40, 24)))
    assert answers["off"].candidates[0].class_name == "half green"
    assert answers["off"].decision is None
    assert (answers["always"].outcome, answers["always"].decision) == (Outcome.MATCH, "acme")
    best = answers["always"].candidates[0]
    assert best.accepted
    assert best.similarity < best.threshold
    assert best.evidence[0].example_id == example.id


def test_evidence_shows_where_the_example_lies(service: Service) -> None:
    service.enrol("acme", printed(1))
    verified = best_proof(service.classify(scene((printed(1), 40, 24))).candidates[0])
    assert (verified.points, verified.quad) == (ALL_POINTS, rectangle(40, 24))
    assert verified.coverage == pytest.approx((56 / 64) ** 2, abs=0.001)  # from the middle of the first block to that of the last


def test_a_quad_of_a_box_is_in_pixels_of_the_whole_picture(service: Service) -> None:
    service.enrol("acme", printed(1))
    picture = scene((printed(1), 40, 24))
    boxed = classify_box(service, picture, Box(24, 16, 120, 96)).candidates[0]
    assert best_proof(boxed).quad == rectangle(40, 24)
    assert best_proof(boxed) == best_proof(service.classify(picture).candidates[0])


def test_print_outside_of_the_box_proves_nothing(service: Service) -> None:
    service.enrol("acme", printed(1))
    answer = classify_box(service, scene((printed(1), 8, 24)), Box(80, 0, 112, 128))
    assert answer.decision is None
    assert answer.candidates[0].evidence[0].verified is None


def test_an_example_that_was_given_as_a_box_is_found_in_the_shape_of_the_box(service: Service) -> None:
    service.enrol("acme", printed(1), box=Box(16, 0, 24, 64))
    verified = best_proof(service.classify(scene((printed(1), 40, 24))).candidates[0])
    assert (verified.points, verified.quad) == (24, rectangle(56, 24, width=24))


def test_of_several_examples_the_one_that_was_found_is_shown_first(service: Service) -> None:
    found = service.enrol("acme", printed(1)).examples[0]
    service.enrol("acme", drawing(GREEN), drawing(BLUE))  # one of them looks like the picture
    evidence = service.classify(scene((printed(1), 40, 24))).candidates[0].evidence
    assert [shown.example_id == found.id for shown in evidence] == [True, False, False]
    assert [shown.verified is not None for shown in evidence] == [True, False, False]


def test_two_classes_of_one_print_are_ambiguous_and_both_are_proved(service: Service) -> None:
    service.enrol("acme", printed(1))
    service.enrol("twin", scene((printed(1), 0, 0), (drawing(GREEN, side_px=2), 0, 0), width=SIDE, height=SIDE))
    answer = service.classify(scene((printed(1), 40, 24)))
    assert (answer.outcome, answer.reason) == (Outcome.DOUBTFUL, Reason.AMBIGUOUS)
    assert [best_proof(candidate).quad for candidate in answer.candidates] == [rectangle(40, 24)] * 2


def looking(**changed: float) -> ModelSet:
    """Proofs are weighed by their points and by the look of their places."""
    model_set = model_set_for_tests()
    proof = replace(model_set.calibration.proof, **({"look": 5.0} | changed))
    return replace(model_set, calibration=replace(model_set.calibration, proof=proof))


@pytest.mark.parametrize("shown", ["red", "blue"])
def test_two_flavours_of_one_print_are_told_apart_by_the_look_of_the_place(make_service: MakeService, shown: str) -> None:
    flavours = {"red": tinted(printed(1), 40), "blue": tinted(printed(1), -40)}
    picture = scene((flavours[shown], 40, 24))
    answers = []
    for model_set in (looking(look=0.0), looking()):
        service = make_service(model_set=model_set)
        for name, flavour in flavours.items():
            service.enrol(name, flavour)
        answers.append(service.classify(picture))
    unlooked, looked = answers
    assert (unlooked.outcome, unlooked.reason) == (Outcome.DOUBTFUL, Reason.AMBIGUOUS)
    assert (looked.outcome, looked.decision) == (Outcome.MATCH, shown)
    assert [best_proof(candidate).points for candidate in looked.candidates] == [ALL_POINTS] * 2


def test_two_things_in_a_picture_are_each_looked_at_where_they_are(make_service: MakeService) -> None:
    # Neither has the points for the line of 6 alone, and each looks like itself only where it lies.
    service = make_service(model_set=looking(line=6.0))
    acme, other = tinted(printed(1), 40), tinted(printed(2), -40)
    service.enrol("acme", acme)
    service.enrol("other", other)
    answer = service.classify(scene((acme, 8, 24), (other, 112, 48)))
    assert [candidate.accepted for candidate in answer.candidates] == [True, True]
    assert {best_proof(candidate).quad for candidate in answer.candidates} == {rectangle(8, 24), rectangle(112, 48)}


@pytest.mark.parametrize(("looked_from", "outcome"), [(2.0, Outcome.MATCH), (9.0, Outcome.DOUBTFUL)])
def test_a_place_whose_points_are_too_weak_is_not_looked_at(
    make_service: MakeService, looked_from: float, outcome: Outcome
) -> None:
    service = make_service(model_set=looking(line=6.0, looked_from=looked_from))
    service.enrol("acme", printed(1))
    assert service.classify(scene((printed(1), 40, 24))).outcome is outcome


def test_only_the_print_of_the_classes_asked_about_is_found(service: Service) -> None:
    for name, seed in (("acme", 1), ("other", 2)):
        service.enrol(name, printed(seed))
    picture = scene((printed(1), 8, 8), (printed(2), 120, 56))
    answer = service.classify(picture, classes=["other"])
    assert answer.decision == "other"
    assert [candidate.class_name for candidate in answer.candidates] == ["other"]
    assert best_proof(answer.candidates[0]).quad == rectangle(120, 56)


def test_print_of_a_class_that_looks_least_alike_of_many_is_answered(make_service: MakeService) -> None:
    greens = {f"green {number}": drawing(GREEN, (230, 20, number)) for number in range(SHORTLIST)}
    answers = {}
    for mode in ("off", "always"):
        service = make_service(verify=mode)
        for name, picture in (greens | {"acme": printed(1)}).items():
            service.enrol(name, picture)
        answers[mode] = service.classify(scene((printed(1), 40, 24)), top_k=SHORTLIST)
    assert "acme" not in [candidate.class_name for candidate in answers["off"].candidates]
    assert answers["always"].decision == "acme"
    assert best_proof(answers["always"].candidates[0]).quad == rectangle(40, 24)


def test_where_all_share_a_print_those_that_look_most_alike_are_proved(service: Service) -> None:
    tints = range(-36, 37, 6)  # more classes than a point has neighbours, so that no point votes
    for tint in tints:
        service.enrol(f"{tint}", tinted(printed(1), tint))
    answer = service.classify(tinted(printed(1), 30), top_k=len(tints))
    proved = proved_in(answer)
    assert "30" in proved
    assert len(proved) == ALIKE


def words(seed: int) -> PixelArray:
    """Twelve blocks of print."""
    return pixels_of(printed(seed, side_px=32))[:24]


def torn(*prints: PixelArray, seed: int = 0) -> bytes:
    """All blocks of these prints, strewn over a green ground of 256 x 128."""
    pixels = pixels_of(scene(width=256, height=128))
    places = np.random.default_rng(seed).permutation(256 * 128 // 64)
    blocks = [block for one in prints for row in np.split(one, 3) for block in np.split(row, 4, axis=1)]
    for place, block in zip(places.tolist(), blocks, strict=False):
        y, x = 8 * (place // 32), 8 * (place % 32)
        pixels[y : y + 8, x : x + 8] = block
    return raw_bytes(pixels)


TORN = 20  # examples whose points are in the picture, none where it belongs; more than are verified at first
FAINT, STRONG = tinted(printed(1, side_px=24), 40), printed(2, side_px=48)  # 9 points and 36
CROWDED = scene(
    (torn(*(words(100 + number) for number in range(TORN))), 0, 0), (FAINT, 8, 152), (STRONG, 80, 144), width=256, height=200
)


def crowded(make_service: MakeService, **changed: float) -> Service:
    """A service in which the faint print is the last of all that the points of the picture vote for."""
    service = make_service(model_set=looking(look=0.0, line=2.5, **changed))
    for number in range(TORN):
        service.enrol(f"torn {number}", raw_bytes(words(100 + number)))
    service.enrol("faint", FAINT)
    votes = service.galleries.current.prints.vote(FakePointFinder()(pixels_of(CROWDED)), MOST_VOTED)
    assert [vote.printed.class_name for vote in votes].index("faint") >= VOTED
    return service


def test_print_that_few_points_vote_for_is_found_where_nothing_else_is(make_service: MakeService) -> None:
    answer = crowded(make_service).classify(CROWDED)
    assert (answer.outcome, answer.decision) == (Outcome.MATCH, "faint")
    assert best_proof(answer.candidates[0]).quad == rectangle(8, 152, 24, 24)


def test_where_print_was_found_that_of_few_votes_is_not_looked_for(make_service: MakeService) -> None:
    service = crowded(make_service)
    service.enrol("strong", STRONG)
    assert proved_in(service.classify(CROWDED, top_k=50)) == {"strong"}


def test_what_was_found_too_weakly_to_be_looked_at_stands_beside_what_is_found_later(make_service: MakeService) -> None:
    service = crowded(make_service, looked_from=9.0)
    service.enrol("strong", STRONG)
    assert proved_in(service.classify(CROWDED, top_k=50)) == {"strong", "faint"}


class HalfBlindFinder(FakePointFinder):
    """Of a sharpened picture it sees the left half."""

    def __call__(
        self, pixels: PixelArray, *, side_px: int | None = None, most: int | None = None, sharpen: bool = False
    ) -> Points:
        seen = pixels.copy()
        if sharpen:
            seen[:, pixels.shape[1] // 2 :] = 0
        return super().__call__(seen, side_px=side_px, most=most)


def test_what_is_not_found_in_the_sharpened_picture_is_looked_for_in_the_picture_as_it_is(make_service: MakeService) -> None:
    service = make_service(find_points=HalfBlindFinder())
    service.enrol("left", printed(1))
    service.enrol("right", printed(2))
    left, right = (printed(1), 8, 24), (printed(2), 112, 48)
    assert service.classify(scene(right)).decision == "right"
    assert proved_in(service.classify(scene(left, right))) == {"left"}


def test_of_an_example_found_twice_the_proof_with_more_points_counts(make_service: MakeService) -> None:
    service = make_service(find_points=HalfBlindFinder(), model_set=looking(look=0.0, line=4.5, doubtful_line=4.4))
    service.enrol("acme", printed(1))
    answer = service.classify(scene((printed(1), 64, 24)))  # half of it lies to the left
    assert best_proof(answer.candidates[0]).points == ALL_POINTS
    assert len(answer.candidates[0].evidence) == 1


@pytest.mark.parametrize("mode", ["off", "always", "auto"])
def test_a_picture_without_print_is_answered_alike_in_every_mode(make_service: MakeService, mode: Mode) -> None:
    asked = [drawing(colour) for colour in (RED, PINK, GREEN, BLUE, WHITE)] + [scene(), drawing(RED, GREEN)]
    answers = []
    for each in ("off", mode):
        service = make_service(verify=each)
        for name, picture in {"red": drawing(RED), "blue": drawing(BLUE), "print": printed(1), "more": printed(2)}.items():
            service.enrol(name, picture)
        answers.append([service.classify(picture) for picture in asked])
    assert answers[0] == answers[1]
    assert {answer.outcome for answer in answers[0]} == {Outcome.MATCH, Outcome.UNKNOWN}


@pytest.mark.parametrize(
    ("mode", "picture", "calls"),
    [
        ("off", scene((printed(1), 40, 24)), 0),
        ("off", drawing(RED), 0),
        ("always", scene((printed(1), 40, 24)), 1),
        ("always", drawing(RED), 2),  # sharpened, and as it is
        ("auto", scene((printed(1), 40, 24)), 1),  # unknown by its look
        ("auto", drawing(RED), 0),  # surely red
        ("auto", drawing(RED, GREEN), 2),
    ],
)
def test_points_are_looked_for_where_they_could_change_the_answer(
    make_service: MakeService, mode: Mode, picture: bytes, calls: int
) -> None:
    finder = CountedFinder()
    service = make_service(verify=mode, find_points=finder)
    service.enrol("red", drawing(RED))
    service.enrol("acme", printed(1))
    finder.calls = 0
    answer = service.classify(picture)
    assert finder.calls == calls
    assert (answer.decision == "acme") == (calls > 0 and picture == scene((printed(1), 40, 24)))


def test_auto_looks_for_points_where_two_looks_are_ambiguous_or_one_is_not_sure(make_service: MakeService) -> None:
    finder = CountedFinder()
    service = make_service(verify="auto", find_points=finder)
    service.enrol("acme", printed(1))
    service.enrol("red", drawing(RED))
    finder.calls = 0
    barely = service.classify(drawing((235, 120, 120)))  # a match by look, and not by far
    assert barely.decision == "red"
    assert barely.candidates[0].probability < 0.95
    assert finder.calls == 2

    service.enrol("nearly the same red", drawing((232, 18, 20)))
    finder.calls = 0
    assert service.classify(drawing(RED)).reason is Reason.AMBIGUOUS
    assert finder.calls == 2


@pytest.mark.parametrize("mode", ["always", "auto"])
def test_where_nobody_has_print_no_points_are_looked_for(make_service: MakeService, mode: Mode) -> None:
    finder = CountedFinder()
    service = make_service(verify=mode, find_points=finder)
    service.enrol("red", drawing(RED))
    finder.calls = 0
    service.classify(scene((printed(1), 40, 24)))
    assert finder.calls == 0


@pytest.mark.parametrize(("mode", "wanted_px"), [("off", 0), ("auto", 64), ("always", 64)])
def test_pictures_are_decoded_as_large_as_points_need_them(mode: Mode, wanted_px: int) -> None:
    embed_places = PlaceEmbedder(rectify=rectify_nearest, embedder=FakeEmbedder())
    verifier = Verifier(find_points=FakePointFinder(), embed_places=embed_places, model_set=model_set_for_tests(), mode=mode)
    assert verifier.wanted_px == wanted_px


def test_what_was_removed_or_renamed_is_found_no_more_or_by_its_new_name(service: Service) -> None:
    example = service.enrol("acme", printed(1)).examples[0]
    service.enrol("half green", drawing(GREEN, WHITE))
    picture = scene((printed(1), 40, 24))
    asyncio.run(service.classes.configure("acme", new_name="brand", deadline=Deadline.never()))
    assert service.classify(picture).decision == "brand"
    asyncio.run(service.classes.remove_example("brand", example.id, deadline=Deadline.never()))
    assert service.classify(picture).decision is None

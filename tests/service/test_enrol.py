from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from app.adapters.store_memory import MemoryStore
from app.domain.changes import Change, ClassConfigured, Committed, Receipt
from app.domain.representatives import representatives_of
from app.domain.values import Box, Upload, WarningCode
from app.errors import DeadlinePassed, InvalidInput, InvalidPicture, StoreUnavailable
from app.service.enrol import EnrolmentReport
from app.service.pools import Deadline
from app.service.verify import Mode
from tests.fakes import FakeDetector, FakePointFinder, model_set_for_tests, raw_bytes, raw_codec
from tests.service.on_memory import BLUE, GREEN, PINK, RED, WHITE, Service, drawing, printed
from tests.values import added, plain


def codes(report: EnrolmentReport, position: int = 0) -> set[WarningCode]:
    return {warning.code for warning in report.examples[position].warnings}


def test_enrolment_creates_the_class(service: Service) -> None:
    report = service.enrol("acme", drawing(RED))
    state = service.classes.get("acme")
    assert (report.class_name, report.version, report.stored, report.dry_run) == ("acme", 1, True, False)
    assert [example.id for example in state.examples] == [report.examples[0].id]
    assert report.threshold == state.threshold
    assert report.examples[0].box == Box(0, 0, 64, 64)


def test_second_enrolment_appends(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    report = service.enrol("acme", drawing(GREEN))
    assert report.version == 2
    assert len(service.classes.get("acme").examples) == 2


def test_several_pictures_are_reported_in_their_order(service: Service) -> None:
    report = service.enrol("acme", drawing(RED), drawing(GREEN), drawing(BLUE))
    alone = [service.enrol("other", drawing(colour)).examples[0].id for colour in (RED, GREEN, BLUE)]
    assert [example.id for example in report.examples] == alone


def test_the_same_picture_again_is_the_example_that_is_there(service: Service) -> None:
    first = service.enrol("acme", drawing(RED))
    again = service.enrol("acme", drawing(RED))
    assert (again.stored, again.version, again.threshold) == (False, first.version, first.threshold)
    assert again.examples[0].id == first.examples[0].id
    assert service.version == 1


def test_a_picture_given_twice_is_one_example(service: Service) -> None:
    report = service.enrol("acme", drawing(RED), drawing(RED))
    assert report.examples[0].id == report.examples[1].id
    assert len(service.classes.get("acme").examples) == 1


def test_a_repeat_among_new_pictures_stores_the_new_ones(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    report = service.enrol("acme", drawing(RED), drawing(GREEN))
    assert report.stored
    assert len(service.classes.get("acme").examples) == 2


def test_another_box_in_the_same_picture_is_another_example(service: Service) -> None:
    left = service.enrol("acme", drawing(RED), box=Box(0, 0, 32, 64))
    right = service.enrol("acme", drawing(RED), box=Box(32, 0, 32, 64))
    assert left.examples[0].id != right.examples[0].id
    assert right.examples[0].box == Box(32, 0, 32, 64)


def test_a_box_around_everything_is_the_whole_picture(service: Service) -> None:
    whole = service.enrol("acme", drawing(RED))
    assert not service.enrol("acme", drawing(RED), box=Box(0, 0, 64, 64)).stored
    assert whole.stored


def test_one_bad_picture_of_several_stores_nothing(service: Service) -> None:
    with pytest.raises(InvalidPicture) as refusal:
        service.enrol("acme", drawing(RED), b"no picture", drawing(GREEN))
    assert refusal.value.field == "images[1]"
    assert service.version == 0


def test_a_dry_run_says_the_same_and_stores_nothing(service: Service) -> None:
    dry = service.enrol("acme", drawing(RED), dry_run=True)
    assert (dry.dry_run, dry.stored, dry.version, service.version) == (True, False, 0, 0)
    real = service.enrol("acme", drawing(RED))
    assert (dry.threshold, dry.examples) == (real.threshold, real.examples)


def test_an_example_keeps_the_points_of_its_box(service: Service) -> None:
    service.enrol("acme", printed(), box=Box(0, 0, 32, 64))
    (example,) = service.classes.get("acme").examples
    crop = service.store.read_crop("acme", example.id)
    assert crop is not None
    assert len(example.points) > 0
    assert plain(example.points) == plain(FakePointFinder()(raw_codec().decode_crop(crop)))


def test_order_of_enrolment_does_not_matter(make_service: Callable[..., Service]) -> None:
    together, apart = make_service(), make_service()
    together.enrol("acme", drawing(RED), drawing(GREEN), drawing(BLUE))
    for colour in (BLUE, RED, GREEN):
        apart.enrol("acme", drawing(colour))
    one, other = together.classes.get("acme"), apart.classes.get("acme")
    assert one.model is not None
    assert other.model is not None
    assert one.model.representatives.tobytes() == other.model.representatives.tobytes()
    assert one.threshold == other.threshold


def test_a_users_threshold_outlives_enrolment(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    asyncio.run(service.classes.configure("acme", threshold=0.95, deadline=Deadline.never()))
    assert service.enrol("acme", drawing(GREEN)).threshold == 0.95


def test_other_classes_are_reported_nearest_first_and_never_the_class_itself(service: Service) -> None:
    service.enrol("green", drawing(GREEN))
    service.enrol("pink", drawing(PINK))
    service.enrol("acme", drawing(RED))
    report = service.enrol("acme", drawing(RED, WHITE))
    assert [near.class_name for near in report.nearest] == ["pink", "green"]
    assert report.nearest[0].similarity > report.nearest[1].similarity


def test_nearness_is_that_of_the_nearest_picture(service: Service) -> None:
    service.enrol("green", drawing(GREEN))
    red_alone = service.enrol("acme", drawing(RED), dry_run=True).nearest[0]
    both = service.enrol("acme", drawing(RED), drawing(GREEN), dry_run=True).nearest
    assert len(both) == 1
    assert both[0].similarity > red_alone.similarity


def test_an_example_like_another_class_is_warned_about(service: Service) -> None:
    service.enrol("pink", drawing(PINK))
    report = service.enrol("acme", drawing(RED))
    (warning,) = (w for w in report.examples[0].warnings if w.code is WarningCode.CLOSER_TO_OTHER)
    assert warning.class_name == "pink"


def test_an_example_is_compared_with_the_others_of_its_own_enrolment(service: Service) -> None:
    report = service.enrol("acme", drawing(RED), drawing(GREEN))
    assert WarningCode.UNLIKE_CLASS in codes(report, 0)
    assert WarningCode.UNLIKE_CLASS in codes(report, 1)


def test_a_small_example_is_stored_with_a_warning(service: Service) -> None:
    report = service.enrol("acme", drawing(RED, side_px=16))
    assert WarningCode.TOO_SMALL in codes(report)
    assert report.stored


def test_the_stored_crop_is_what_was_embedded(service: Service) -> None:
    report = service.enrol("acme", drawing(RED, GREEN), box=Box(0, 0, 64, 32))
    crop = service.store.read_crop("acme", report.examples[0].id)
    assert crop is not None
    assert service.enrol("copy", crop).examples[0].box == Box(0, 0, 64, 32)
    (original,), (copy,) = service.classes.get("acme").examples, service.classes.get("copy").examples
    assert original.embedding.tobytes() == copy.embedding.tobytes()


def test_no_crop_is_kept_where_none_are_wanted(make_service: Callable[..., Service]) -> None:
    service = make_service(keep_crops=False)
    report = service.enrol("acme", drawing(RED))
    assert report.stored
    assert service.store.read_crop("acme", report.examples[0].id) is None


def test_a_passed_deadline_stores_nothing(service: Service) -> None:
    passed = Deadline(0.0, lambda: 1.0)
    with pytest.raises(DeadlinePassed):
        asyncio.run(service.enrol_many("acme", [Upload(drawing(RED))], dry_run=False, deadline=passed))
    assert service.version == 0


def test_enrolments_of_one_class_at_the_same_time_all_count(service: Service) -> None:
    async def enrol_all() -> None:
        async with asyncio.TaskGroup() as group:
            for colour in (RED, GREEN, BLUE, WHITE):
                upload = Upload(drawing(colour))
                group.create_task(service.enrol_many("acme", [upload], dry_run=False, deadline=Deadline.never()))

    asyncio.run(enrol_all())
    state = service.classes.get("acme")
    assert len(state.examples) == 4
    assert state.model is not None
    examples = sorted(state.examples, key=lambda example: example.id)
    of_all_four = representatives_of(np.stack([example.embedding for example in examples]))
    assert state.model.representatives.tolist() == of_all_four.tolist()  # whichever came last


class OvertakenStore(MemoryStore):
    """Another process configures the class just before the first commit to it."""

    overtaken = False

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes], receipt: Receipt | None = None) -> int:
        if expected and not self.overtaken:
            self.overtaken = True
            super().commit(ClassConfigured(change.class_name, 0.9, {}), expected=expected, crops={})
        return super().commit(change, expected=expected, crops=crops, receipt=receipt)


def test_an_enrolment_that_was_overtaken_is_made_again_on_the_newer_class(make_service: Callable[..., Service]) -> None:
    service = make_service(store=OvertakenStore())
    service.enrol("acme", drawing(RED))
    report = service.enrol("acme", drawing(GREEN))
    assert (report.version, report.threshold) == (3, 0.9)
    assert len(service.classes.get("acme").examples) == 2


class UnreadableStore(MemoryStore):
    """Takes commits, and fails once to say what they were. Where it is `overtaken`, somebody else commits just before."""

    def __init__(self, *, overtaken: bool = False) -> None:
        super().__init__()
        self.overtaken = overtaken
        self.faults = [StoreUnavailable("away")]

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes], receipt: Receipt | None = None) -> int:
        if self.overtaken:
            self.overtaken = False
            super().commit(added("theirs", networks=model_set_for_tests().provenance.networks), expected=0, crops={})
        return super().commit(change, expected=expected, crops=crops, receipt=receipt)

    def follow(self, after: int, *, epoch: int | None = None, limit: int = 1000) -> Sequence[Committed]:
        if self.faults:
            raise self.faults.pop()
        return super().follow(after, epoch=epoch, limit=limit)


def test_what_was_committed_is_served_though_the_store_cannot_be_read(make_service: Callable[..., Service]) -> None:
    service = make_service(store=UnreadableStore())
    assert service.enrol("acme", drawing(RED)).stored
    assert service.classify(drawing(RED)).decision == "acme"


def test_a_commit_that_cannot_be_followed_is_told_as_done_and_followed_at_the_next_look(
    make_service: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service(store=UnreadableStore(overtaken=True))
    report = service.enrol("acme", drawing(RED))
    assert (report.stored, report.version) == (True, 2)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert service.classes.get("acme").version == 2
    assert service.classes.get("theirs").version == 1


def test_a_class_takes_as_many_examples_as_it_may_have_and_no_more(make_service: Callable[..., Service]) -> None:
    service = make_service(max_examples=2)
    service.enrol("acme", drawing(RED))
    with pytest.raises(InvalidInput, match="2 examples at most") as refusal:
        service.enrol("acme", drawing(GREEN), drawing(BLUE))
    assert (refusal.value.field, refusal.value.limit) == ("image", 2)
    assert service.version == 1
    assert service.enrol("acme", drawing(GREEN)).stored
    assert not service.enrol("acme", drawing(RED)).stored  # a repeat adds none
    assert service.enrol("other", drawing(RED)).stored


def test_a_class_that_has_more_than_it_may_take_still_answers_a_repeat(make_service: Callable[..., Service]) -> None:
    store = MemoryStore()
    make_service(store=store).enrol("acme", drawing(RED), drawing(GREEN))
    assert not make_service(store=store, max_examples=1).enrol("acme", drawing(RED)).stored


def test_an_example_without_print_is_told_that_it_is_known_by_its_look_alone(service: Service) -> None:
    (warning,) = (w for w in service.enrol("plain", drawing(RED)).examples[0].warnings if w.code is WarningCode.FEW_POINTS)
    assert (warning.value, warning.limit) == (0, 4)
    # Eight pixels have one block of print, and 16 have four.
    assert WarningCode.FEW_POINTS in codes(service.enrol("small", printed(side_px=8)))
    assert WarningCode.FEW_POINTS not in codes(service.enrol("larger", printed(side_px=16)))


def laid_on(ground: bytes, picture: bytes) -> bytes:
    """In the middle."""
    pixels, part = raw_codec().decode_crop(ground).copy(), raw_codec().decode_crop(picture)
    y, x = (np.array(pixels.shape[:2]) - part.shape[:2]) // 2
    pixels[y : y + part.shape[0], x : x + part.shape[1]] = part
    return raw_bytes(pixels)


SHELF = drawing(GREEN, side_px=128)


def tinted(picture: bytes, *, tint: int = 60) -> bytes:
    """Redder and less blue, and of the same grey, so that the points are the same."""
    pale = raw_codec().decode_crop(picture).astype(int) // 2 + 64
    return raw_bytes((pale + np.array([tint, 0, -tint])).astype(np.uint8))


def test_the_print_of_another_class_is_warned_about_by_class_and_example(service: Service) -> None:
    acme = service.enrol("acme", printed(1)).examples[0]
    service.enrol("other", printed(2))
    report = service.enrol("shelf", laid_on(SHELF, printed(1)))
    (warning,) = (w for w in report.examples[0].warnings if w.code is WarningCode.PRINT_OF_OTHER)
    assert (warning.class_name, warning.example_id, warning.value) == ("acme", acme.id, 64)
    assert "'acme'" in warning.detail
    assert report.stored


def test_print_of_its_own_class_or_of_nobody_is_not_that_of_another(service: Service) -> None:
    service.enrol("acme", printed(1))
    assert WarningCode.PRINT_OF_OTHER not in codes(service.enrol("acme", laid_on(SHELF, printed(1))))
    assert WarningCode.PRINT_OF_OTHER not in codes(service.enrol("other", printed(2)))
    assert WarningCode.PRINT_OF_OTHER not in codes(service.enrol("plain", drawing(RED)))


def test_a_corner_of_another_print_is_proved_and_too_little_to_warn_about(service: Service) -> None:
    acme = service.enrol("acme", printed(1)).examples[0]
    mixed = raw_codec().decode_crop(printed(2)).copy()
    mixed[:24, :24] = raw_codec().decode_crop(printed(1))[:24, :24]
    report = service.enrol("other", raw_bytes(mixed))
    shown = service.classify(raw_bytes(mixed), classes=["acme"]).candidates[0]
    assert (shown.evidence[0].example_id, shown.accepted) == (acme.id, False)
    assert shown.evidence[0].verified is not None
    assert WarningCode.PRINT_OF_OTHER not in codes(report)


def test_a_near_duplicate_by_print_is_told_though_it_looks_otherwise(service: Service) -> None:
    first = service.enrol("acme", printed(1)).examples[0]
    report = service.enrol("acme", tinted(printed(1)))
    (warning,) = (w for w in report.examples[0].warnings if w.code is WarningCode.NEAR_DUPLICATE)
    assert (warning.example_id, warning.value, warning.limit) == (first.id, 1.0, 0.9)
    assert "print" in warning.detail
    # A quarter of what this one shows: it teaches more.
    assert WarningCode.NEAR_DUPLICATE not in codes(service.enrol("acme", laid_on(printed(2, side_px=128), printed(1))))


def test_a_near_duplicate_by_look_and_by_print_is_told_once(service: Service) -> None:
    service.enrol("acme", printed(1))
    spoiled = raw_codec().decode_crop(printed(1)).copy()
    spoiled[0, 0] = 128
    report = service.enrol("acme", raw_bytes(spoiled))
    assert [w.code for w in report.examples[0].warnings].count(WarningCode.NEAR_DUPLICATE) == 1


def test_a_repeat_is_no_duplicate_of_itself(service: Service) -> None:
    service.enrol("acme", printed(1))
    assert not codes(service.enrol("acme", printed(1))) & {WarningCode.NEAR_DUPLICATE, WarningCode.PRINT_OF_OTHER}


@pytest.mark.parametrize(("tint", "is_warned"), [(60, True), (-60, False)])
def test_the_look_of_a_crop_says_whether_a_shared_print_is_that_of_another(
    make_service: Callable[..., Service], tint: int, is_warned: bool
) -> None:
    model_set = model_set_for_tests()
    proof = replace(model_set.calibration.proof, look=5.0, line=7.0)  # all points of a print come to 5.0
    service = make_service(model_set=replace(model_set, calibration=replace(model_set.calibration, proof=proof)))
    service.enrol("acme", tinted(printed(1), tint=tint))
    report = service.enrol("shelf", laid_on(SHELF, tinted(printed(1))))
    assert (WarningCode.PRINT_OF_OTHER in codes(report)) == is_warned


def test_a_dry_run_warns_about_print_too(service: Service) -> None:
    service.enrol("acme", printed(1))
    assert WarningCode.PRINT_OF_OTHER in codes(service.enrol("copy", printed(1), dry_run=True))


@pytest.mark.parametrize(("mode", "by_print"), [("off", False), ("auto", True), ("always", True)])
def test_print_is_compared_unless_verification_is_off(make_service: Callable[..., Service], mode: Mode, by_print: bool) -> None:
    service = make_service(verify=mode)
    service.enrol("acme", printed(1))
    assert (WarningCode.NEAR_DUPLICATE in codes(service.enrol("acme", tinted(printed(1))))) == by_print
    assert (WarningCode.PRINT_OF_OTHER in codes(service.enrol("copy", laid_on(SHELF, printed(1))))) == by_print
    assert WarningCode.FEW_POINTS in codes(service.enrol("plain", drawing(RED)))
    assert len(service.classes.get("copy").examples[0].points) == 64  # for the day when it is on again


def test_an_example_keeps_what_the_detector_makes_of_its_crop(make_service: Callable[..., Service]) -> None:
    service = make_service(detector=FakeDetector())
    service.enrol("acme", drawing(RED), drawing(GREEN))
    state = service.classes.get("acme")
    assert [example.regions.shape for example in state.examples] == [(3, 4), (3, 4)]
    assert state.model is not None
    assert state.model.provenance.detector == "fake detector"
    assert plain(state.model.regions) == plain(np.concatenate([example.regions for example in state.examples]))
    (committed,) = service.store.follow(0)
    assert plain(committed.change.examples) == plain(state.examples)  # so that no replica sees a crop again


def test_the_same_examples_make_the_same_class_to_a_detector_in_whatever_order_they_came(
    make_service: Callable[..., Service],
) -> None:
    pictures = [drawing((red, 20, 20)) for red in range(60, 230, 30)]
    models = []
    for several in (pictures, pictures[::-1]):
        service = make_service(detector=FakeDetector())
        for picture in several:
            service.enrol("acme", picture)
        models.append(service.classes.get("acme").model)
    first, second = models
    assert first is not None
    assert first.regions.shape == (8, 4)  # of 18
    assert plain(first) == plain(second)


def test_without_a_detector_an_example_has_no_regions(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    (example,) = service.classes.get("acme").examples
    assert len(example.regions) == 0


def test_a_thing_without_print_is_warned_about_as_far_as_it_matters(make_service: Callable[..., Service]) -> None:
    details = []
    for detector in (None, FakeDetector()):
        report = make_service(detector=detector).enrol("red", drawing(RED))
        details += [warning.detail for warning in report.examples[0].warnings if warning.code is WarningCode.FEW_POINTS]
    assert ["/detect will not find it" in detail for detail in details] == [True, False]

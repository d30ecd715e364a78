from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.api.schemas import MAX_TOP_K
from app.domain.values import Answer, Box, Embeddings, Outcome, PixelArray, Reason, Upload
from app.errors import DeadlinePassed, FirstsightError, InvalidInput, InvalidPicture
from app.service.classify import SHORTLIST
from app.service.pools import Deadline
from tests.fakes import FakeEmbedder, model_set_for_tests
from tests.service.on_memory import BLUE, GREEN, PINK, RED, WHITE, Service, drawing


def classify_batch(service: Service, *pictures: bytes, classes: frozenset[str] | None = None) -> list[Answer | FirstsightError]:
    uploads = [Upload(data) for data in pictures]
    return asyncio.run(service.classify_one.batch(uploads, top_k=5, classes=classes, deadline=Deadline.never()))


def test_an_enrolled_thing_is_recognised_in_another_picture(service: Service) -> None:
    example = service.enrol("acme", drawing(RED)).examples[0]
    answer = service.classify(drawing(PINK))
    assert (answer.outcome, answer.decision, answer.reason) == (Outcome.MATCH, "acme", None)
    assert answer.candidates[0].accepted
    assert [evidence.example_id for evidence in answer.candidates[0].evidence] == [example.id]


def test_something_else_is_unknown(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    answer = service.classify(drawing(GREEN))
    assert (answer.outcome, answer.decision, answer.reason) == (Outcome.UNKNOWN, None, Reason.BELOW_THRESHOLD)
    assert not answer.candidates[0].accepted


def test_without_classes_there_is_nothing_to_answer(service: Service) -> None:
    answer = service.classify(drawing(RED))
    assert (answer.outcome, answer.reason, answer.candidates) == (Outcome.UNKNOWN, Reason.NO_CLASSES, ())


def test_an_answer_names_its_gallery_and_its_model_set(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    answer = service.classify(drawing(RED))
    assert (answer.version, answer.model) == (1, service.model_set.id)


def test_candidates_are_the_best_few_best_first(service: Service) -> None:
    for name, colour in {"red": RED, "pink": PINK, "green": GREEN, "blue": BLUE}.items():
        service.enrol(name, drawing(colour))
    answer = service.classify(drawing(RED), top_k=2)
    assert [candidate.class_name for candidate in answer.candidates] == ["red", "pink"]


def test_the_decision_does_not_depend_on_how_many_candidates_are_shown(service: Service) -> None:
    service.enrol("red", drawing(RED))
    service.enrol("nearly the same red", drawing((232, 18, 20)))
    few, many = (service.classify(drawing(RED), top_k=top_k) for top_k in (1, 5))
    assert few.reason is many.reason is Reason.AMBIGUOUS


def test_a_class_accepted_from_far_down_is_the_decision_however_few_are_shown(service: Service) -> None:
    # All reds are nearer to pink than green is, and none is accepted.
    for number in range(40):
        service.enrol(f"red {number}", drawing((200 + number, 20, 20)))
        asyncio.run(service.classes.configure(f"red {number}", threshold=1.0, deadline=Deadline.never()))
    service.enrol("green", drawing(GREEN))
    asyncio.run(service.classes.configure("green", threshold=-1.0, deadline=Deadline.never()))
    few, many = (service.classify(drawing(PINK), top_k=top_k) for top_k in (1, MAX_TOP_K))
    assert few.decision == many.decision == "green"


def test_the_best_is_the_most_probable_though_another_is_more_similar(make_service: Callable[..., Service]) -> None:
    model_set = model_set_for_tests()
    from_the_cohort_alone = replace(model_set.calibration, threshold_floor=-1.0, threshold_ceiling=1.0)
    service = make_service(model_set=replace(model_set, calibration=from_the_cohort_alone))
    # Grey is nearer to everything than white is, the cohort too, so its threshold is higher.
    service.enrol("grey", drawing((140, 120, 125)))
    service.enrol("white", drawing(WHITE))
    pale = drawing((232, 26, 26), WHITE)
    white, grey = service.classify(pale).candidates
    assert grey.similarity > white.similarity
    assert service.classify(pale, top_k=1).candidates == (white,)


def test_evidence_names_the_nearest_of_many_examples(service: Service) -> None:
    red = service.enrol("acme", drawing(RED)).examples[0]
    service.enrol("acme", *(drawing(colour) for colour in (GREEN, BLUE, WHITE)))
    evidence = service.classify(drawing(RED)).candidates[0].evidence
    assert len(evidence) == 3
    assert evidence[0].example_id == red.id


def test_only_the_named_classes_are_asked(service: Service) -> None:
    service.enrol("red", drawing(RED))
    service.enrol("green", drawing(GREEN))
    answer = service.classify(drawing(RED), classes=["green"])
    assert [candidate.class_name for candidate in answer.candidates] == ["green"]
    assert answer.outcome is Outcome.UNKNOWN


def test_a_class_that_is_not_enrolled_cannot_be_asked(service: Service) -> None:
    service.enrol("red", drawing(RED))
    with pytest.raises(InvalidInput, match="'nobody'") as refusal:
        service.classify(drawing(RED), classes=["red", "nobody"])
    assert refusal.value.field == "classes"


def test_a_users_threshold_decides(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    asyncio.run(service.classes.configure("acme", threshold=1.0, deadline=Deadline.never()))
    answer = service.classify(drawing(PINK))
    assert answer.decision is None
    assert answer.candidates[0].threshold == 1.0


def test_only_the_box_is_classified(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    two_things = Upload(drawing(RED, GREEN), Box(0, 0, 64, 32))
    answer = asyncio.run(service.classify_one(two_things, top_k=5, classes=None, deadline=Deadline.never()))
    assert answer.decision == "acme"
    assert service.classify(two_things.data).decision is None


def test_a_passed_deadline_is_said(service: Service) -> None:
    with pytest.raises(DeadlinePassed):
        asyncio.run(service.classify_one(Upload(drawing(RED)), top_k=5, classes=None, deadline=Deadline(0.0, lambda: 1.0)))


def test_a_batch_answers_each_picture_on_its_own(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    red, broken, green = classify_batch(service, drawing(RED), b"no picture", drawing(GREEN))
    assert red == service.classify(drawing(RED))
    assert isinstance(broken, InvalidPicture)
    assert green == service.classify(drawing(GREEN))


def test_a_batch_is_refused_whole_for_a_class_that_is_not_enrolled(service: Service) -> None:
    with pytest.raises(InvalidInput, match="'nobody'"):
        classify_batch(service, drawing(RED), classes=frozenset({"nobody"}))


def test_a_batch_that_meets_a_fault_of_ours_leaves_nothing_running(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: FakeEmbedder, pictures: PixelArray) -> Embeddings:
        raise MemoryError

    async def classify_all() -> int:
        with pytest.raises(MemoryError):
            await service.classify_one.batch([Upload(drawing(RED))] * 20, top_k=5, classes=None, deadline=Deadline.never())
        return len(asyncio.all_tasks())

    monkeypatch.setattr(FakeEmbedder, "__call__", broken)
    assert asyncio.run(classify_all()) == 1  # the one that counts


def test_no_more_can_be_shown_than_are_decided_among() -> None:
    assert SHORTLIST >= MAX_TOP_K

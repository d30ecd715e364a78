from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.representatives import similarities_to_rest
from app.domain.values import ClassState, FloatArray, Outcome
from app.errors import InvalidInput, NameTaken, NotFound, UnknownClass, UnknownExample, VersionConflict
from app.service import classes
from app.service.classes import MAX_METADATA_BYTES, ExamplePage, ListedExample
from app.service.pools import Deadline
from tests.service.on_memory import BLUE, GREEN, PINK, RED, Service, drawing
from tests.service.test_enrol import OvertakenStore

NEVER = Deadline.never()


def configure(service: Service, class_name: str, **changes: Any) -> ClassState:
    return asyncio.run(service.classes.configure(class_name, **changes, deadline=NEVER))


def remove(service: Service, class_name: str, **options: Any) -> int:
    return asyncio.run(service.classes.remove(class_name, **options, deadline=NEVER))


def remove_example(service: Service, class_name: str, example_id: str, **options: Any) -> int:
    return asyncio.run(service.classes.remove_example(class_name, example_id, **options, deadline=NEVER))


def list_examples(service: Service, class_name: str, limit: int, cursor: str | None) -> ExamplePage:
    return asyncio.run(service.classes.examples(class_name, limit, cursor, deadline=NEVER))


def read_example(service: Service, class_name: str, example_id: str) -> ListedExample:
    return asyncio.run(service.classes.example(class_name, example_id, deadline=NEVER))


def test_pages_hold_every_class_once_by_name(service: Service) -> None:
    for name in "dbéac":
        service.enrol(name, drawing(RED))
    names, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = service.classes.page(2, cursor)
        names += [state.name for state in page.classes]
        cursor, pages = page.next_cursor, pages + 1
    assert (names, pages) == (["a", "b", "c", "d", "é"], 3)


def test_a_full_last_page_has_no_next_one(service: Service) -> None:
    service.enrol("a", drawing(RED))
    assert service.classes.page(1, None).next_cursor is None


def test_a_page_goes_on_where_its_cursor_was_though_that_class_is_gone(service: Service) -> None:
    for name in "abc":
        service.enrol(name, drawing(RED))
    first = service.classes.page(1, None)
    remove(service, "a")
    assert [state.name for state in service.classes.page(5, first.next_cursor).classes] == ["b", "c"]


@pytest.mark.parametrize("cursor", ["!", "a", "_w", "é"])
def test_a_cursor_of_ones_own_making_is_refused(service: Service, cursor: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        service.classes.page(5, cursor)
    assert refusal.value.field == "cursor"


def test_what_is_not_enrolled_is_unknown_to_every_call(service: Service) -> None:
    calls: list[Callable[[], object]] = [
        lambda: service.classes.get("nobody"),
        lambda: list_examples(service, "nobody", 5, None),
        lambda: read_example(service, "nobody", "0"),
        lambda: configure(service, "nobody", threshold=0.5),
        lambda: remove(service, "nobody"),
        lambda: remove_example(service, "nobody", "0"),
    ]
    for call in calls:
        with pytest.raises(UnknownClass):
            call()


def test_a_class_can_be_renamed_and_answers_under_its_new_name(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    renamed = configure(service, "acme", new_name="Acme Ltd", metadata={"sku": 7})
    assert renamed == service.classes.get("Acme Ltd")
    assert (renamed.version, renamed.metadata) == (2, {"sku": 7})
    assert service.classify(drawing(RED)).decision == "Acme Ltd"
    with pytest.raises(UnknownClass):
        service.classes.get("acme")


def test_a_name_that_is_taken_stays_with_its_class(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    service.enrol("other", drawing(GREEN))
    with pytest.raises(NameTaken):
        configure(service, "acme", new_name="other")


def test_a_new_name_that_is_the_old_one_changes_nothing_else(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    assert configure(service, "acme", new_name="acme", threshold=0.5).threshold == 0.5


def test_a_threshold_can_be_set_and_given_back(service: Service) -> None:
    computed = service.enrol("acme", drawing(RED)).threshold
    assert configure(service, "acme", threshold=0.9).threshold == 0.9
    assert configure(service, "acme", metadata={"a": 1}).threshold == 0.9
    assert configure(service, "acme", threshold=None).threshold == computed
    assert service.classes.get("acme").metadata == {"a": 1}


@pytest.mark.parametrize("threshold", [1.01, -1.01, float("nan")])
def test_a_threshold_is_a_similarity(service: Service, threshold: float) -> None:
    service.enrol("acme", drawing(RED))
    with pytest.raises(InvalidInput) as refusal:
        configure(service, "acme", threshold=threshold)
    assert refusal.value.field == "threshold"


def test_metadata_have_a_limit_in_bytes(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    fitting = "é" * ((MAX_METADATA_BYTES - len('{"k":""}')) // 2)  # two bytes each
    configure(service, "acme", metadata={"k": fitting})
    with pytest.raises(InvalidInput) as refusal:
        configure(service, "acme", metadata={"k": fitting + "x"})
    assert (refusal.value.field, refusal.value.limit) == ("metadata", MAX_METADATA_BYTES)


def test_a_change_that_expects_an_older_version_is_refused(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    configure(service, "acme", threshold=0.9, expected=1)
    with pytest.raises(VersionConflict):
        configure(service, "acme", threshold=0.8, expected=1)
    with pytest.raises(VersionConflict):
        remove(service, "acme", expected=1)
    assert service.classes.get("acme").threshold == 0.9


def test_a_change_that_was_overtaken_is_made_again(make_service: Callable[..., Service]) -> None:
    service = make_service(store=OvertakenStore())
    service.enrol("acme", drawing(RED))
    changed = configure(service, "acme", metadata={"a": 1})
    assert (changed.threshold, changed.metadata, changed.version) == (0.9, {"a": 1}, 3)


def test_a_change_that_was_overtaken_is_refused_if_it_expected_the_older_version(make_service: Callable[..., Service]) -> None:
    service = make_service(store=OvertakenStore())
    service.enrol("acme", drawing(RED))
    with pytest.raises(VersionConflict):
        configure(service, "acme", metadata={"a": 1}, expected=1)


def test_a_removed_class_no_longer_answers(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    assert remove(service, "acme") == 2
    assert service.classify(drawing(RED)).candidates == ()
    assert service.classes.page(5, None).classes == ()


def test_a_removed_class_can_be_enrolled_again(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    remove(service, "acme")
    assert service.enrol("acme", drawing(RED)).stored


def test_examples_are_paged_by_id_with_their_fit_to_the_others(service: Service) -> None:
    service.enrol("acme", drawing(RED), drawing(PINK), drawing(GREEN))
    first = list_examples(service, "acme", 2, None)
    rest = list_examples(service, "acme", 2, first.next_cursor)
    listed = first.examples + rest.examples
    assert [one.example for one in listed] == list(service.classes.get("acme").examples)
    assert rest.next_cursor is None
    assert [read_example(service, "acme", one.example.id) for one in listed] == list(listed)


def test_an_odd_example_fits_its_class_least(service: Service) -> None:
    green = service.enrol("acme", drawing(GREEN)).examples[0]
    service.enrol("acme", drawing(RED), drawing(PINK))
    listed = list_examples(service, "acme", 5, None).examples
    assert min(listed, key=lambda one: one.similarity or 0).example.id == green.id


def test_examples_are_compared_off_the_event_loop(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def compare(support: FloatArray, members: slice) -> list[float]:
        threads.append(threading.current_thread().name.split("_")[0])
        return similarities_to_rest(support, members)

    example = service.enrol("acme", drawing(RED), drawing(PINK)).examples[0]
    monkeypatch.setattr(classes, "similarities_to_rest", compare)
    list_examples(service, "acme", 5, None)
    read_example(service, "acme", example.id)
    assert threads == ["inference", "inference"]


def test_a_lone_example_has_nothing_to_fit(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    assert list_examples(service, "acme", 5, None).examples[0].similarity is None


def test_without_an_example_the_class_is_as_if_it_had_never_been_given(make_service: Callable[..., Service]) -> None:
    service, fresh = make_service(), make_service()
    service.enrol("acme", drawing(RED), drawing(BLUE))
    green = service.enrol("acme", drawing(GREEN)).examples[0]
    fresh.enrol("acme", drawing(RED), drawing(BLUE))
    assert remove_example(service, "acme", green.id) == 3
    one, other = service.classes.get("acme").model, fresh.classes.get("acme").model
    assert one is not None
    assert other is not None
    assert one.representatives.tobytes() == other.representatives.tobytes()
    assert one.threshold == other.threshold


def test_a_class_without_examples_stays_and_never_answers(service: Service) -> None:
    only = service.enrol("acme", drawing(RED)).examples[0]
    remove_example(service, "acme", only.id)
    assert service.classes.get("acme").examples == ()
    assert service.classify(drawing(RED)).outcome is Outcome.UNKNOWN
    assert service.enrol("acme", drawing(RED)).stored


def test_an_unknown_example_is_said(service: Service) -> None:
    service.enrol("acme", drawing(RED))
    for call in (lambda: read_example(service, "acme", "0"), lambda: remove_example(service, "acme", "0")):
        with pytest.raises(UnknownExample):
            call()
    with pytest.raises(UnknownExample):
        asyncio.run(service.classes.crop("acme", "0", deadline=NEVER))


def test_the_crop_of_an_example_can_be_looked_at(service: Service) -> None:
    example = service.enrol("acme", drawing(RED)).examples[0]
    assert asyncio.run(service.classes.crop("acme", example.id, deadline=NEVER)) == drawing(RED)


def test_a_crop_that_is_not_kept_is_not_found(make_service: Callable[..., Service]) -> None:
    service = make_service(keep_crops=False)
    example = service.enrol("acme", drawing(RED)).examples[0]
    with pytest.raises(NotFound):
        asyncio.run(service.classes.crop("acme", example.id, deadline=NEVER))

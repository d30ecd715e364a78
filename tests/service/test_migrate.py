from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from app.domain.values import ClassState
from app.errors import IncompatibleStore
from app.service.pools import Deadline
from tests.conftest import Logged
from tests.fakes import FakePointFinder, model_set_for_tests, point_settings_for_tests
from tests.service.on_memory import BLUE, GREEN, RED, Service, drawing, printed
from tests.values import plain

MakeService = Callable[..., Service]

OTHER_POINTS = FakePointFinder(replace(point_settings_for_tests(), most=5))


def migrate(service: Service) -> list[tuple[int, int]]:
    progress: list[tuple[int, int]] = []
    asyncio.run(service.migrate(lambda done, todo: progress.append((done, todo))))
    service.galleries.start()
    return progress


def enrolled(make_service: MakeService, **options: bool) -> Service:
    service = make_service(**options)
    service.enrol("red", drawing(RED))
    service.enrol("green", drawing(GREEN), drawing(BLUE))
    return service


def same_vectors(state: ClassState, other: ClassState) -> bool:
    pairs = zip(state.examples, other.examples, strict=True)
    return all(np.array_equal(one.embedding, two.embedding) for one, two in pairs)


def test_under_the_same_model_set_nothing_is_done(make_service: MakeService) -> None:
    before = enrolled(make_service)
    assert migrate(make_service(store=before.store)) == [(0, 0)]
    assert before.version == 2


def test_under_other_networks_every_class_is_embedded_again(make_service: MakeService) -> None:
    before = enrolled(make_service)
    other_views = replace(model_set_for_tests(networks="other networks"), view_shares=(0.5,))
    after = make_service(store=before.store, model_set=other_views)
    assert migrate(after) == [(0, 2), (1, 2), (2, 2)]
    fresh = make_service(model_set=other_views)
    fresh.enrol("green", drawing(GREEN), drawing(BLUE))
    assert same_vectors(after.classes.get("green"), fresh.classes.get("green"))
    assert not same_vectors(after.classes.get("green"), before.classes.get("green"))
    assert after.classify(drawing(RED)).decision == "red"


def test_under_another_calibration_alone_only_class_models_are_fitted_again(make_service: MakeService) -> None:
    before = enrolled(make_service, keep_crops=False)
    stricter = model_set_for_tests(calibration="stricter")
    stricter = replace(stricter, calibration=replace(stricter.calibration, threshold_floor=0.8))
    after = make_service(store=before.store, model_set=stricter)
    migrate(after)
    assert after.classes.get("red").threshold == 0.8
    assert same_vectors(after.classes.get("red"), before.classes.get("red"))


def test_what_a_user_has_set_is_kept(make_service: MakeService) -> None:
    before = enrolled(make_service)
    asyncio.run(before.classes.configure("red", threshold=0.95, metadata={"a": 1}, deadline=Deadline.never()))
    after = make_service(store=before.store, model_set=model_set_for_tests(networks="other networks"))
    migrate(after)
    assert (after.classes.get("red").threshold, after.classes.get("red").metadata) == (0.95, {"a": 1})


def test_a_migration_that_was_cut_short_goes_on_where_it_stopped(make_service: MakeService) -> None:
    store = enrolled(make_service).store
    other = model_set_for_tests(networks="other networks")

    def stop_after_one(done: int, todo: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(make_service(store=store, model_set=other).migrate(stop_after_one))
    assert migrate(make_service(store=store, model_set=other)) == [(0, 1), (1, 1)]


def test_a_class_without_examples_needs_nothing(make_service: MakeService) -> None:
    before = make_service()
    example = before.enrol("red", drawing(RED)).examples[0]
    asyncio.run(before.classes.remove_example("red", example.id, deadline=Deadline.never()))
    after = make_service(store=before.store, model_set=model_set_for_tests(networks="other networks"))
    assert migrate(after) == [(0, 0)]


def test_other_networks_are_refused_where_crops_are_missing_and_nothing_is_changed(make_service: MakeService) -> None:
    store = make_service().store
    make_service(store=store).enrol("green", drawing(GREEN))
    make_service(store=store, keep_crops=False).enrol("red", drawing(RED))
    before = store.snapshot()
    with pytest.raises(IncompatibleStore, match="'red'"):
        migrate(make_service(store=store, model_set=model_set_for_tests(networks="other networks")))
    assert store.snapshot().version == before.version


def finding_other_points(make_service: MakeService, before: Service) -> Service:
    # Other views too, by which an embedding that was made again would be seen: these networks are said to be the same.
    model_set = replace(model_set_for_tests(points="other points"), view_shares=(0.5,))
    return make_service(store=before.store, model_set=model_set, find_points=OTHER_POINTS)


def points_of(service: Service, class_name: str) -> list[int]:
    return [len(example.points) for example in service.classes.get(class_name).examples]


def test_under_other_points_alone_only_points_are_found_again(make_service: MakeService) -> None:
    before = make_service()
    before.enrol("print", printed(1), printed(2))
    before.enrol("red", drawing(RED))
    after = finding_other_points(make_service, before)

    assert migrate(after) == [(0, 2), (1, 2), (2, 2)]

    fresh = make_service(find_points=OTHER_POINTS)
    fresh.enrol("print", printed(1), printed(2))
    assert plain(after.classes.get("print").examples) == plain(fresh.classes.get("print").examples)
    assert min(points_of(before, "print")) > 5
    assert (points_of(after, "print"), points_of(after, "red")) == ([5, 5], [0])
    assert same_vectors(after.classes.get("print"), before.classes.get("print"))
    assert migrate(finding_other_points(make_service, after)) == [(0, 0)]


def test_under_other_networks_points_are_found_again_too(make_service: MakeService) -> None:
    before = make_service()
    before.enrol("print", printed())
    others = model_set_for_tests(networks="other networks", points="other points")
    after = make_service(store=before.store, model_set=others, find_points=OTHER_POINTS)
    migrate(after)
    assert points_of(after, "print") == [5]


def test_under_another_calibration_alone_points_stay(make_service: MakeService) -> None:
    before = make_service(keep_crops=False)
    before.enrol("print", printed())
    stricter = model_set_for_tests(calibration="stricter")
    after = make_service(store=before.store, model_set=stricter, find_points=OTHER_POINTS)
    migrate(after)
    assert plain(after.classes.get("print").examples) == plain(before.classes.get("print").examples)
    assert min(points_of(after, "print")) > 5


def test_without_crops_other_points_leave_none_and_are_told_of_once(make_service: MakeService, logged: Logged) -> None:
    before = make_service(keep_crops=False)
    before.enrol("print", printed(1), printed(2))
    before.enrol("more", printed(3))
    kept = make_service(store=before.store)
    kept.enrol("more", printed(4))
    after = finding_other_points(make_service, kept)

    assert migrate(after) == [(0, 2), (1, 2), (2, 2)]

    assert (points_of(after, "print"), sorted(points_of(after, "more"))) == ([0, 0], [0, 5])
    assert same_vectors(after.classes.get("print"), before.classes.get("print"))
    warnings = [line for line in logged() if line["level"] == "warning"]
    assert [(line["event"], line["examples"]) for line in warnings] == [("points cannot be found again", 3)]


def test_where_every_crop_is_stored_nothing_is_told(make_service: MakeService, logged: Logged) -> None:
    migrate(finding_other_points(make_service, enrolled(make_service)))
    assert logged() == []


def test_a_class_that_another_replica_migrates_meanwhile_is_left_to_it(make_service: MakeService) -> None:
    before, others = enrolled(make_service), model_set_for_tests(networks="other networks")
    slow, quick = (make_service(store=before.store, model_set=others) for _ in range(2))
    progress: list[tuple[int, int]] = []

    async def overtaken() -> None:
        def report(done: int, todo: int) -> None:
            progress.append((done, todo))

        stale = slow.migrate._stale_classes()  # as the slow one sees it before the quick one has begun
        await quick.migrate(lambda done, todo: None)
        slow.migrate._stale_classes = iter([stale, []]).__next__  # type: ignore[method-assign]
        await slow.migrate(report)

    asyncio.run(overtaken())
    assert progress == [(0, 2), (1, 2), (2, 2), (0, 0)]
    assert before.version == 4  # each class once more, and by one of them

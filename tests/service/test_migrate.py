from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from app.domain.values import ClassState, Example, no_regions
from app.errors import IncompatibleStore
from app.service.pools import Deadline
from tests.conftest import Logged
from tests.fakes import FakeDetector, FakePointFinder, model_set_for_tests, point_settings_for_tests
from tests.service.on_memory import BLUE, GREEN, PINK, RED, Service, drawing, printed
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


def regions_of(service: Service, class_name: str) -> list[int]:
    return [len(example.regions) for example in service.classes.get(class_name).examples]


def without_regions(state: ClassState) -> list[Example]:
    return [replace(example, regions=no_regions()) for example in state.examples]


def test_a_detector_that_comes_later_sees_what_is_there_without_a_new_upload(make_service: MakeService) -> None:
    before = enrolled(make_service)
    after = make_service(store=before.store, detector=FakeDetector())

    assert migrate(after) == [(0, 2), (1, 2), (2, 2)]

    fresh = make_service(detector=FakeDetector())
    fresh.enrol("red", drawing(RED))
    fresh.enrol("green", drawing(GREEN), drawing(BLUE))
    for name in ("red", "green"):
        assert plain(after.classes.get(name).examples) == plain(fresh.classes.get(name).examples)
        assert plain(after.classes.get(name).model) == plain(fresh.classes.get(name).model)
    assert (regions_of(after, "red"), regions_of(after, "green")) == ([3], [3, 3])
    assert migrate(make_service(store=before.store, detector=FakeDetector())) == [(0, 0)]


def test_a_detector_that_comes_later_changes_nothing_else(make_service: MakeService) -> None:
    before = make_service()
    before.enrol("print", printed(1), printed(2))
    asyncio.run(before.classes.configure("print", threshold=0.95, metadata={"a": 1}, deadline=Deadline.never()))
    # Other views and points too, by which an embedding or points that were made again would be seen.
    model_set = replace(model_set_for_tests(detector="fake detector"), view_shares=(0.5,))
    after = make_service(store=before.store, model_set=model_set, find_points=OTHER_POINTS, detector=FakeDetector())
    migrate(after)
    was, now = before.classes.get("print"), after.classes.get("print")
    assert plain(without_regions(now)) == plain(was.examples)
    assert now.model is not None
    assert was.model is not None
    assert plain(now.model.representatives) == plain(was.model.representatives)
    assert (now.threshold, now.metadata) == (0.95, {"a": 1})


def test_another_detector_sees_all_examples_again(make_service: MakeService) -> None:
    before = make_service(detector=FakeDetector())
    before.enrol("red", drawing(RED))
    other = model_set_for_tests(detector="another detector")
    after = make_service(store=before.store, model_set=other, detector=FakeDetector(turned=True))
    assert migrate(after) == [(0, 1), (1, 1)]
    (was,), (now,) = before.classes.get("red").examples, after.classes.get("red").examples
    assert plain(now.regions) == plain(was.regions[:, ::-1])


def test_a_detector_that_goes_leaves_what_it_saw_and_asks_nobody(make_service: MakeService) -> None:
    before = make_service(detector=FakeDetector())
    before.enrol("red", drawing(RED))
    without = make_service(store=before.store)
    assert migrate(without) == [(0, 0)]
    assert plain(without.classes.get("red")) == plain(before.classes.get("red"))
    assert not without.collection.gallery.knows_regions
    # It comes back, and nothing has to be seen again.
    back = make_service(store=before.store, detector=FakeDetector())
    assert migrate(back) == [(0, 0)]
    assert back.collection.gallery.knows_regions


def test_what_is_enrolled_while_a_detector_was_gone_is_seen_when_it_is_back(make_service: MakeService) -> None:
    before = make_service(detector=FakeDetector())
    before.enrol("red", drawing(RED))
    without = make_service(store=before.store)
    without.enrol("red", drawing(PINK))
    assert sorted(regions_of(without, "red")) == [0, 3]
    model = without.classes.get("red").model
    assert model is not None
    assert (model.provenance.detector, len(model.regions)) == ("", 0)
    back = make_service(store=before.store, detector=FakeDetector())
    assert migrate(back) == [(0, 1), (1, 1)]
    assert regions_of(back, "red") == [3, 3]


def test_another_calibration_without_a_detector_keeps_what_one_has_seen(make_service: MakeService) -> None:
    before = make_service(detector=FakeDetector())
    before.enrol("red", drawing(RED))
    after = make_service(store=before.store, model_set=model_set_for_tests(calibration="stricter"))
    assert migrate(after) == [(0, 1), (1, 1)]
    assert plain(after.classes.get("red").examples) == plain(before.classes.get("red").examples)


def test_under_other_networks_a_detector_sees_examples_too(make_service: MakeService) -> None:
    before = enrolled(make_service)
    others = model_set_for_tests(networks="other networks", points="other points", detector="fake detector")
    after = make_service(store=before.store, model_set=others, detector=FakeDetector())
    migrate(after)
    assert (regions_of(after, "red"), regions_of(after, "green")) == ([3], [3, 3])


def test_what_a_detector_cannot_see_keeps_no_regions_and_is_told_of_once(make_service: MakeService, logged: Logged) -> None:
    before = make_service(keep_crops=False, detector=FakeDetector())
    before.enrol("print", printed(1), printed(2))
    kept = make_service(store=before.store, detector=FakeDetector())
    kept.enrol("print", printed(3))
    other = model_set_for_tests(detector="another detector")
    after = make_service(store=before.store, model_set=other, detector=FakeDetector(turned=True))

    assert migrate(after) == [(0, 1), (1, 1)]

    assert sorted(regions_of(after, "print")) == [0, 0, 3]  # what the first one saw cannot be compared with what this one sees
    warnings = [line for line in logged() if line["level"] == "warning"]
    assert [(line["event"], line["examples"]) for line in warnings] == [("the detector cannot see all examples", 2)]
    assert migrate(make_service(store=before.store, model_set=other, detector=FakeDetector(turned=True))) == [(0, 0)]

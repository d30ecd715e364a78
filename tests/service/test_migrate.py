from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from app.domain.values import ClassState
from app.errors import IncompatibleStore
from app.service.pools import Deadline
from tests.fakes import model_set_for_tests
from tests.service.on_memory import BLUE, GREEN, RED, Service, drawing

MakeService = Callable[..., Service]


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

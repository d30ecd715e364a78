from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.domain.changes import Snapshot
from app.domain.detection import Spotting
from app.domain.gallery import Gallery
from app.domain.model_set import DetectorSettings
from app.domain.values import Box, ClassState, PixelArray
from app.service.spot import Spotter
from tests.fakes import FakeDetector, region_calibration_for_tests
from tests.values import DETECTOR, NETWORKS, model_of, unit

# As the fake sees things: by their colour against grey, and a 1.
CLASSES = {"red": (230, 20, 20), "green": (20, 200, 20)}
WHOLE = Box(0, 0, 200, 100)


def scene(left: int, colour: tuple[int, int, int] = CLASSES["red"]) -> PixelArray:
    """A thing of 20 pixels on grey, 40 down."""
    pixels = np.full((100, 200, 3), 128, np.uint8)
    pixels[40:60, left : left + 20] = colour
    return pixels


def spotted(
    pixels: PixelArray, view: Box, *, views: int = 1, looked_from: float = 0.05, among: frozenset[str] | None = None
) -> list[Spotting]:
    known = {name: unit([np.append(np.array(colour) - 128, 1)]).astype(np.float16) for name, colour in CLASSES.items()}
    states = tuple(ClassState(name, 1, (), model_of((1, 0), regions=regions)) for name, regions in sorted(known.items()))
    gallery = Gallery.from_snapshot(Snapshot(1, states), NETWORKS, DETECTOR)
    calibration = replace(region_calibration_for_tests(), looked_from=looked_from)
    spotter = Spotter(detector=FakeDetector(), settings=DetectorSettings(0.5, calibration))
    return spotter(pixels, view, views=views, gallery=gallery, among=among)


def test_what_is_seen_lies_in_longest_sides_of_the_scene() -> None:
    for view in (WHOLE, Box(100, 0, 100, 100)):
        (one,) = spotted(scene(150), view)
        assert one.class_names == ("red", "green")
        assert one.region.quad * 200 == pytest.approx(np.array([[150, 40], [170, 40], [170, 60], [150, 60]]))
        assert one.region.objectness == pytest.approx(0.9)


def test_what_a_tile_cuts_is_not_seen_in_it() -> None:
    tile = Box(0, 0, 100, 100)
    assert len(spotted(scene(70), tile)) == 1
    assert spotted(scene(85), tile) == []  # it goes on in the next
    assert len(spotted(scene(0), tile)) == 1  # the scene itself ends there


@pytest.mark.parametrize(("looked_from", "seen"), [(0.0, 1), (0.85, 1), (0.95, 0)])
def test_what_is_less_likely_a_thing_than_the_line_is_not_worth_a_look(looked_from: float, seen: int) -> None:
    assert len(spotted(scene(150), WHOLE, looked_from=looked_from)) == seen


def test_only_classes_that_are_asked_about_are_named() -> None:
    (one,) = spotted(scene(150), WHOLE, among=frozenset({"green", "nobody"}))
    assert one.class_names == ("green",)
    assert spotted(scene(150), WHOLE, among=frozenset()) == []

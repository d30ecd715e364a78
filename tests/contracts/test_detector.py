"""What every detector promises: the one of the tests and ONNX Runtime alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from app.adapters.model_set import DetectorParts
from app.adapters.networks import OnnxDetector
from app.domain.posterior import Regions, overlaps
from app.domain.values import PixelArray
from app.service.ports import Detector
from tests.fakes import FakeDetector
from tests.model_sets import DETECTOR_SIDES_PX
from tests.tiny_network import tiny_detector
from tests.values import plain


@pytest.fixture(params=["fake", "onnx", "onnx with two threads"])
def detector(request: pytest.FixtureRequest) -> Detector:
    if request.param == "fake":
        return FakeDetector()
    parts = DetectorParts(tiny_detector(), DETECTOR_SIDES_PX, dim=4, width=0.5)
    return OnnxDetector(parts, threads=1 if request.param == "onnx" else 2)


def thing(
    width: int, height: int, *, left: int, top: int, side: int = 24, colour: tuple[int, int, int] = (230, 20, 20)
) -> PixelArray:
    """A square of a colour on grey."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[top : top + 24, left : left + 24] = colour
    return pixels


def likeliest(regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    best = regions.likeliest(1)
    return best.boxes, best.embeddings[0]


def test_there_are_sides_and_they_rise(detector: Detector) -> None:
    assert list(detector.sides_px) == sorted(set(detector.sides_px))
    assert len(detector.sides_px) >= 1


@pytest.mark.parametrize("shape", [(8, 8), (200, 8), (8, 200), (61, 103), (400, 300)])
def test_a_picture_of_any_shape_has_regions_in_its_pixels(detector: Detector, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for side_px in detector.sides_px:
        regions = detector(pixels, side_px)
        assert len(regions) >= 1
        assert regions.boxes.dtype == regions.objectness.dtype == regions.embeddings.dtype == np.float32
        assert np.linalg.norm(regions.embeddings, axis=1) == pytest.approx(np.ones(len(regions)), abs=1e-5)
        assert ((regions.objectness >= 0) & (regions.objectness <= 1)).all()
        assert (regions.boxes >= 0).all()
        assert (regions.boxes <= np.array([shape[1], shape[0]] * 2)).all()


@pytest.mark.parametrize("size", [(100, 60), (60, 100)])
def test_a_thing_is_found_where_it_is(detector: Detector, size: tuple[int, int]) -> None:
    for side_px in detector.sides_px:
        boxes, _ = likeliest(detector(thing(*size, left=10, top=20), side_px))
        assert overlaps(np.array([[10, 20, 34, 44]], np.float32), boxes)[0, 0] > 0.7


def test_what_is_alike_lies_near_and_what_is_not_does_not(detector: Detector) -> None:
    side_px = detector.sides_px[0]
    _, red = likeliest(detector(thing(100, 60, left=10, top=20), side_px))
    _, again = likeliest(detector(thing(80, 80, left=40, top=8), side_px))
    _, green = likeliest(detector(thing(100, 60, left=10, top=20, colour=(20, 200, 20)), side_px))
    assert red @ again > 0.95 > 0.5 > red @ green


def test_the_same_picture_is_seen_the_same_every_time(detector: Detector) -> None:
    pictures = [thing(100, 60, left=left, top=20) for left in range(0, 70, 10)]
    alone = [plain(detector(picture, detector.sides_px[-1])) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda picture: plain(detector(picture, detector.sides_px[-1])), pictures))
    assert together == alone

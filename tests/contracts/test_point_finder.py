"""What everything that finds points promises. A new one joins by a line in FINDERS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from app.adapters.local_features import SiftPoints
from app.domain.model_set import PointSettings
from app.domain.values import PixelArray
from app.service.ports import PointFinder
from tests.fakes import FakePointFinder, point_settings_for_tests
from tests.values import plain

FINDERS: dict[str, Callable[[PointSettings], PointFinder]] = {"fake": FakePointFinder, "sift": SiftPoints}


@pytest.fixture(params=FINDERS)
def find_points(request: pytest.FixtureRequest) -> PointFinder:
    return FINDERS[request.param](point_settings_for_tests())


def squares(height: int = 128, width: int = 128) -> PixelArray:
    """Squares of 4 pixels, black or white at random."""
    cells = np.random.default_rng(0).integers(0, 2, (-(-height // 4), -(-width // 4), 1), dtype=np.uint8) * 255
    return cells.repeat(4, axis=0).repeat(4, axis=1).repeat(3, axis=2)[:height, :width]


def test_equal_pixels_have_equal_points(find_points: PointFinder) -> None:
    assert plain(find_points(squares())) == plain(find_points(squares()))


def test_pixels_are_taken_as_they_lie_in_memory(find_points: PointFinder) -> None:
    part = squares(128, 200)[:, 8:136]  # of a larger picture, as a box is
    part.flags.writeable = False  # as pictures come out of a decoder
    assert plain(find_points(part)) == plain(find_points(part.copy()))


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_a_flat_picture_has_none(find_points: PointFinder, grey: int) -> None:
    assert len(find_points(np.full((64, 64, 3), grey, np.uint8))) == 0


@pytest.mark.parametrize("most", [1, 5, 40])
def test_no_more_are_found_than_asked_for(find_points: PointFinder, most: int) -> None:
    assert len(find_points(squares(), most=most)) == most


@pytest.mark.parametrize("shape", [(8, 8), (8, 400), (400, 8), (61, 37)])
def test_places_lie_in_a_picture_of_any_size(find_points: PointFinder, shape: tuple[int, int]) -> None:
    height, width = shape
    x, y = find_points(squares(height, width)).places[:, :2].T / 65535 * max(shape)
    assert np.all(x <= width)
    assert np.all(y <= height)


def test_words_are_those_of_the_code_book(find_points: PointFinder) -> None:
    words = find_points(squares()).words
    assert len(words) > 0
    assert words.max() < len(point_settings_for_tests().words)

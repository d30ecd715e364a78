from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from app.domain.values import Box
from app.domain.views import crop, view_boxes

sides = some.integers(1, 4000)
shares = some.lists(some.floats(0.01, 0.99), max_size=3)


def test_views_are_the_whole_then_corners_and_middle() -> None:
    assert view_boxes(10, 20, [0.5]) == [
        Box(0, 0, 10, 20),
        Box(0, 0, 5, 10),
        Box(5, 0, 5, 10),
        Box(0, 10, 5, 10),
        Box(5, 10, 5, 10),
        Box(2, 5, 5, 10),
    ]


def test_without_shares_the_picture_is_its_only_view() -> None:
    assert view_boxes(10, 20, []) == [Box(0, 0, 10, 20)]


def test_equal_views_of_a_tiny_picture_count_once() -> None:
    assert view_boxes(8, 8, [0.99]) == [Box(0, 0, 8, 8)]


@given(width=sides, height=sides, shares=shares)
def test_views_lie_inside_the_picture(width: int, height: int, shares: list[float]) -> None:
    for box in view_boxes(width, height, shares):
        assert box.x >= 0
        assert box.y >= 0
        assert 1 <= box.width <= width - box.x
        assert 1 <= box.height <= height - box.y


def test_crop_is_what_the_box_frames() -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert crop(pixels, Box(x=1, y=2, width=3, height=2)).tolist() == pixels[2:4, 1:4].tolist()

from __future__ import annotations

import numpy as np
import pytest

from app.domain.posterior import Regions
from app.domain.regions import GREY, SHARES, alone, embedding_at, side_for, whole_in
from app.domain.values import Box


def test_a_crop_lies_alone_in_the_middle_of_grey_at_each_size() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (20, 60, 3), dtype=np.uint8)
    shown = alone(crop)
    assert len(shown) == len(SHARES)
    for (square, box), share in zip(shown, SHARES, strict=True):
        left, top, right, bottom = map(int, box)
        height, width = square.shape[:2]
        assert height == width == round(60 / share)
        assert (left, top) == ((width - 60) // 2, (width - 20) // 2)
        assert square[top:bottom, left:right].tolist() == crop.tolist()
        outside = np.ones((height, width), np.bool_)
        outside[top:bottom, left:right] = False
        assert set(square[outside].ravel().tolist()) == {GREY}


def test_the_embedding_of_what_is_shown_is_that_of_the_region_that_has_it_best() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 6], [50, 50, 60, 60]], np.float32)
    embeddings = np.eye(4, dtype=np.float32)
    # Overlaps of 1, 0.8 and 0.6 with the first box, by the roots of objectness: 0.3, 0.72 and 0.6.
    found = Regions(boxes, np.array([0.09, 0.81, 1.0, 1.0], np.float32), embeddings)
    assert embedding_at(found, np.array([0.0, 0, 10, 10])).tolist() == embeddings[1].tolist()
    assert embedding_at(found, np.array([80.0, 80, 90, 90])).tolist() == embeddings[3].tolist()  # none has it: the nearest


@pytest.mark.parametrize(
    ("view", "views", "side_px"),
    [
        ((300, 200), 1, 320),
        ((320, 320), 1, 320),
        ((321, 200), 1, 512),
        ((200, 768), 1, 512),
        ((512, 512), 5, 320),  # what is small in it is large in a tile
    ],
)
def test_a_scene_without_tiles_is_seen_as_large_as_it_is_as_far_as_that_goes(
    view: tuple[int, int], views: int, side_px: int
) -> None:
    assert side_for(Box(0, 0, *view), views, (320, 512)) == side_px


def test_what_a_tile_cuts_is_left_to_the_view_that_has_it_whole() -> None:
    # A tile of 100 px on the left edge of a scene of 200, half way down it. From left to right: at the edge of the scene, in the
    # middle, at the right edge of the tile, a pixel from it, at its top.
    boxes = np.array([[0, 40, 20, 60], [40, 40, 60, 60], [80, 40, 100, 60], [80, 40, 99, 60], [40, 0, 60, 20]], np.float32)
    assert whole_in(Box(0, 50, 100, 100), boxes, 200, 200).tolist() == [0, 1]
    assert whole_in(Box(0, 0, 100, 100), boxes, 100, 100).tolist() == [0, 1, 2, 3, 4]  # nothing goes on past a whole scene


@pytest.mark.parametrize("view", [Box(0, 0, 200, 200), Box(0, 0, 100, 100)])
def test_boxes_too_small_to_be_looked_at_take_the_place_of_no_other(view: Box) -> None:
    boxes = np.array([[10, 10, 18, 18], [10, 10, 17, 30], [10, 0, 30, 0]], np.float32)
    assert whole_in(view, boxes, 200, 200).tolist() == [0]

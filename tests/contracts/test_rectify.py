"""What everything that makes a place upright promises. A new one joins by a line in RECTIFIERS."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from app.adapters.warp import rectify
from app.domain.values import PixelArray
from app.service.ports import Rectify
from tests.fakes import rectify_nearest

RECTIFIERS: dict[str, Rectify] = {"fake": rectify_nearest, "opencv": rectify}
SIDE_PX = 64
CELL_PX = SIDE_PX // 4


@pytest.fixture(params=RECTIFIERS)
def upright(request: pytest.FixtureRequest) -> Rectify:
    return RECTIFIERS[request.param]


def chart(side_px: int = 128) -> PixelArray:
    """4 x 4 cells, each of a colour of its own."""
    cells = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cells.repeat(side_px // 4, axis=0).repeat(side_px // 4, axis=1)


def quad_of(*corners: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(corners, np.float64)


def rectangle(left: float, top: float, width: float, height: float) -> NDArray[np.float64]:
    return quad_of((left, top), (left + width, top), (left + width, top + height), (left, top + height))


def drawn_at(quad: NDArray[np.float64], *, width: int = 320, height: int = 240) -> PixelArray:
    """The chart in a grey picture, its corners where the quad says: Pillow asks of each pixel where it comes from."""
    side = 128
    flat = [(0, 0), (side, 0), (side, side), (0, side)]
    rows = [[x, y, 1, 0, 0, 0, -u * x, -u * y] for (x, y), (u, _) in zip(quad, flat, strict=True)]
    rows += [[0, 0, 0, x, y, 1, -v * x, -v * y] for (x, y), (_, v) in zip(quad, flat, strict=True)]
    numbers = np.linalg.solve(rows, np.array(flat, np.float64).T.ravel())
    return np.asarray(
        Image.fromarray(chart(side)).transform(
            (width, height), Image.Transform.PERSPECTIVE, tuple(numbers), Image.Resampling.NEAREST, fillcolor=(90, 90, 90)
        )
    )


def cells_of(square: PixelArray) -> NDArray[np.int64]:
    """The colour of the middle of each cell, from a quarter to three quarters of it: (4, 4, 3)."""
    cells = square.reshape(4, CELL_PX, 4, CELL_PX, 3)[:, CELL_PX // 4 : -CELL_PX // 4, :, CELL_PX // 4 : -CELL_PX // 4]
    return np.rint(cells.mean(axis=(1, 3))).astype(np.int64)


def assert_is_chart(square: PixelArray, expected: ArrayLike | None = None) -> None:
    np.testing.assert_allclose(cells_of(square), cells_of(chart(SIDE_PX)) if expected is None else expected, atol=2)


PLACES = {
    "a square": rectangle(40, 60, 128, 128),
    "flattened": rectangle(10, 20, 300, 70),
    "on its corner": quad_of((160, 10), (270, 120), (160, 230), (50, 120)),
    "seen from the left": quad_of((60, 20), (220, 70), (220, 170), (60, 220)),
    "seen from above": quad_of((100, 40), (220, 50), (300, 220), (30, 200)),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_place_comes_back_upright(upright: Rectify, case: str) -> None:
    assert_is_chart(upright(drawn_at(PLACES[case]), PLACES[case], SIDE_PX))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quad_that_begins_at_another_corner_turns_the_picture(upright: Rectify, turns: int) -> None:
    quad = PLACES["seen from the left"]
    turned = upright(drawn_at(quad), np.roll(quad, -turns, axis=0), SIDE_PX)
    assert_is_chart(turned, np.rot90(cells_of(chart(SIDE_PX)), turns))


@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (9, 400), (8, 8)])
@pytest.mark.parametrize("side_px", [32, 224])
def test_a_square_of_the_asked_size_comes_out_of_any_picture(upright: Rectify, shape: tuple[int, int], side_px: int) -> None:
    height, width = shape
    square = upright(np.full((height, width, 3), (10, 120, 250), np.uint8), rectangle(0, 0, width, height), side_px)
    assert (square.shape, square.dtype) == ((side_px, side_px, 3), np.uint8)
    assert (square == (10, 120, 250)).all()


@pytest.mark.parametrize("turns", range(4))
def test_a_place_as_large_as_it_is_wanted_comes_back_pixel_for_pixel(upright: Rectify, turns: int) -> None:
    row, column = np.indices((60, 60))
    ramps = np.stack([4 * column, 4 * row, 2 * (row + column)], axis=-1).astype(np.uint8)  # half a pixel beside is 2 beside
    quad = np.roll(rectangle(10, 12, 32, 32), -turns, axis=0)
    off = upright(ramps, quad, 32) - np.rot90(ramps[12:44, 10:42], turns).astype(float)
    assert np.abs(off.mean(axis=(0, 1))).max() < 0.2


def test_outside_of_the_picture_its_edge_goes_on(upright: Rectify) -> None:
    # Of the square only the bottom right quarter lies in the picture: left of it are its first columns, above its first rows.
    square = upright(chart(), rectangle(-128, -128, 256, 256), SIDE_PX)
    half = SIDE_PX // 2
    inside, margin = square[half:, half:], half - 2
    corner, first_row, first_column = chart()[0, 0], chart(half)[0], chart(half)[:, 0]
    assert (square[:margin, :margin] == corner).all()
    middle = slice(2, None, half // 4)  # of each cell, clear of its borders
    assert (square[:margin, half:][:, middle] == first_row[middle]).all()
    assert (square[half:, :margin][middle] == first_column[middle][:, np.newaxis]).all()
    assert (inside[middle, middle] == chart(half)[middle, middle]).all()


def test_pixels_are_taken_as_they_lie_in_memory(upright: Rectify) -> None:
    quad = PLACES["seen from above"]
    scene = drawn_at(quad)
    part = np.pad(scene, ((5, 5), (7, 7), (0, 0)))[5:-5, 7:-7]  # of a larger picture, as a box is
    part.flags.writeable = False  # as pictures come out of a decoder
    assert (upright(part, quad, SIDE_PX) == upright(scene, quad, SIDE_PX)).all()

"""What OpenCV adds to tests/contracts/test_rectify.py: pixels between pixels."""

from __future__ import annotations

import numpy as np

from app.adapters.warp import rectify
from app.domain.values import PixelArray


def whole(pixels: PixelArray) -> np.ndarray:
    height, width = pixels.shape[:2]
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def test_what_is_shrunk_by_half_is_averaged() -> None:
    row, column = np.indices((128, 128))
    checkerboard = ((row + column) % 2 * 255).astype(np.uint8)[..., np.newaxis].repeat(3, axis=2)
    assert abs(rectify(checkerboard, whole(checkerboard), 64).astype(int) - 127).max() <= 1


def test_what_is_enlarged_is_smooth() -> None:
    stripes = (np.arange(16) % 2 * 255).astype(np.uint8)[np.newaxis, :, np.newaxis].repeat(16, axis=0).repeat(3, axis=2)
    steps = np.abs(np.diff(rectify(stripes, whole(stripes), 128)[..., 0].astype(int), axis=1))
    assert 0 < steps.max() <= 255 / 8 + 2  # from one stripe to the next in the eight pixels that are between their middles

"""What a detector is shown: of an example its crop alone, of a scene its views; and which of its regions are of the thing shown.

Evaluation shows it the same (`training/evaluate/finders.py`), so that what is measured is what ships.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.domain.boxes import MIN_SIDE_PX
from app.domain.posterior import Regions, overlaps
from app.domain.values import Box, FloatArray, PixelArray

GREY = 128  # around a picture in the detector's square, as in training
SHARES = (0.35, 0.6, 0.9)  # of a square's side that the longer side of an example takes
SHOWN = 0.5  # overlap with the box of what is shown from which a region is of it
CUT_PX = 0.02  # of a view's longer side: a region that comes so near to where the view was cut is of something that goes on there


def alone(pixels: PixelArray) -> list[tuple[PixelArray, FloatArray]]:
    """A crop (h, w, 3) in the middle of a grey square at each of `SHARES`, and its box (4,) there."""
    height, width = pixels.shape[:2]
    shown = []
    for share in SHARES:
        side = round(max(width, height) / share)
        left, top = (side - width) // 2, (side - height) // 2
        square = np.full((side, side, 3), GREY, np.uint8)
        square[top : top + height, left : left + width] = pixels
        shown.append((square, np.array([left, top, left + width, top + height], np.float32)))
    return shown


def embedding_at(regions: Regions, box: FloatArray) -> FloatArray:
    """Of the region that has a box (4,) best and most likely; where none has it, of the one whose middle is nearest."""
    shares = overlaps(box[np.newaxis], regions.boxes)[0]
    fits = shares >= SHOWN
    if fits.any():
        return np.asarray(regions.embeddings[np.argmax(np.where(fits, shares * np.sqrt(regions.objectness), -1))])
    middles = (regions.boxes[:, :2] + regions.boxes[:, 2:]) / 2
    return np.asarray(regions.embeddings[np.argmin(np.abs(middles - (box[:2] + box[2:]) / 2).sum(1))])


def side_for(view: Box, views: int, sides_px: Sequence[int]) -> int:
    """Which of a detector's sides, rising, a view of a scene is given at.

    Of several views each is given at the smallest: what is small in the whole is large in a tile. The only view of a scene is
    given at the smallest that does not shrink it, or at the largest.
    """
    if views > 1:
        return sides_px[0]
    return next((side for side in sides_px if side >= max(view.width, view.height)), sides_px[-1])


def whole_in(view: Box, boxes: FloatArray, width: int, height: int) -> NDArray[np.int64]:
    """Positions of the boxes (m, 4), in pixels of a view, that can be looked at: none too small for it, or clipped to a line, and
    none that the view cuts from a scene of width x height.

    Tiles overlap: what one of them cuts is whole in another, or in the view of all.
    """
    is_large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= MIN_SIDE_PX
    if (view.width, view.height) == (width, height):  # all of the scene
        return np.flatnonzero(is_large)
    margin = CUT_PX * max(view.width, view.height)
    goes_on = np.array([view.x > 0, view.y > 0, view.x + view.width < width, view.y + view.height < height])
    gaps = np.concatenate([boxes[:, :2], np.array([view.width, view.height]) - boxes[:, 2:]], axis=1)  # (m, 4) to each edge
    return np.flatnonzero(is_large & ~(goes_on & (gaps < margin)).any(axis=1))

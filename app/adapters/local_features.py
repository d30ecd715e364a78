"""Points of a picture by OpenCV's SIFT (Lowe, IJCV 2004), their descriptors as root-SIFT (Arandjelovic and Zisserman, CVPR 2012).

The same pixels give the same bytes: detection has no randomness, and OpenCV's own threads are off, as the service runs its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.domain.model_set import PointSettings
from app.domain.prints import CodeBook
from app.domain.values import PixelArray, Points

DESCRIPTOR_LENGTH = 512  # of a descriptor as it is stored; its entries then use the range of a byte
GRID = 6  # cells a side that points are spread over
CELL_SHARE = 1.3  # a cell keeps its best points up to so many times an even share, before weaker ones elsewhere are passed over
SHARPENED_SHARE = 1 / 64  # of the longest side: standard deviation of the blur that is taken off; docs/experiments.md
SPARE = 3  # points to choose from for each that is kept; docs/experiments.md
UNITS = 65535  # of a longest side
TURN = 65536  # units of an angle

cv2.setNumThreads(1)


class SiftPoints:
    """Finds points. May be called from several threads."""

    def __init__(self, settings: PointSettings) -> None:
        self._settings = settings
        self._code_book = CodeBook(settings.words)

    @property
    def side_px(self) -> int:
        return self._settings.side_px

    def __call__(
        self, pixels: PixelArray, *, side_px: int | None = None, most: int | None = None, sharpen: bool = False
    ) -> Points:
        side_px = side_px or self._settings.side_px
        grey = _scaled(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8), side_px)
        if sharpen:
            grey = _sharpened(grey, side_px * SHARPENED_SHARE)
        most = most or self._settings.most
        sift = cv2.SIFT.create(nfeatures=SPARE * most, contrastThreshold=self._settings.contrast)
        found = sift.detect(grey)
        if not found:
            return Points.none()
        # Chosen before they are described: of equally strong points OpenCV keeps all, and a net has thousands.
        chosen = [found[position] for position in _spread(found, grey.shape, most)]
        described, raw = sift.compute(grey, chosen)
        descriptors = _root(raw)
        return Points(_places_of(described, max(grey.shape)), descriptors, self._code_book.word_of(descriptors))


def _scaled(grey: PixelArray, side_px: int) -> PixelArray:
    """Longest side to `side_px`: small pictures are enlarged, because SIFT wants blobs of a few pixels."""
    height, width = grey.shape
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA), np.uint8)


def _sharpened(grey: PixelArray, sigma_px: float) -> PixelArray:
    """Unsharp mask: the picture, and once more what it has above its blurred self."""
    blurred = cv2.GaussianBlur(grey, (0, 0), sigma_px)
    return np.asarray(cv2.addWeighted(grey, 2.0, blurred, -1.0, 0.0), np.uint8)


def _spread(found: Sequence[cv2.KeyPoint], shape: tuple[int, ...], most: int) -> NDArray[np.int64]:
    """Positions of the `most` strongest, strongest first; those past an even share of their cell of a grid come last."""
    weakness = np.array([-point.response for point in found])
    places = np.array([point.pt for point in found])
    column, row = (places * GRID // np.array([shape[1], shape[0]])).astype(np.int64).clip(0, GRID - 1).T
    crowded = _rank_within(row * GRID + column, weakness) >= CELL_SHARE * most / GRID**2
    return np.lexsort((weakness, crowded))[:most]


def _rank_within(groups: NDArray[np.int64], keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """The position of each in the order of `keys` among those of its own group."""
    order = np.lexsort((keys, groups))
    starts = np.searchsorted(groups[order], groups[order])
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - starts
    return ranks


def _root(descriptors: NDArray[Any]) -> NDArray[np.uint8]:
    """SIFT (n, 128) -> the square roots of its shares: Euclidean distance then compares histograms by Hellinger's."""
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return np.asarray(np.minimum(np.rint(DESCRIPTOR_LENGTH * np.sqrt(shares)), 255), np.uint8)


def _places_of(found: Sequence[cv2.KeyPoint], longest_px: int) -> NDArray[np.uint16]:
    measures = np.array([(*point.pt, point.size) for point in found]) * (UNITS / longest_px)  # (n, 3)
    angles = np.array([point.angle for point in found]) * (TURN / 360)
    places = np.column_stack([measures.clip(0, UNITS), angles % TURN])
    return np.asarray(np.rint(places).astype(np.int64) % TURN, np.uint16)  # an angle of nearly a turn is 0

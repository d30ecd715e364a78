"""A place in a picture, seen from straight in front."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from app.domain.values import PixelArray

OVERSAMPLING = 2  # pixels read for each that is wanted, along a side: enough that what is shrunk by half does not flicker

cv2.setNumThreads(1)


def rectify(pixels: PixelArray, quad: NDArray[np.float64], side_px: int) -> PixelArray:
    """Pixels (h, w, 3) -> (side, side, 3): what a convex quad (4, 2) encloses, its first corner at the top left.

    Where the quad reaches outside of the picture, the picture's edge goes on.
    """
    side = OVERSAMPLING * side_px
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]])
    middle = 0.5  # OpenCV counts pixels by their middles, a quad by their edges
    matrix = cv2.getPerspectiveTransform((square - middle).astype(np.float32), (quad - middle).astype(np.float32))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    upright = cv2.warpPerspective(pixels, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(upright, (side_px, side_px), interpolation=cv2.INTER_AREA), np.uint8)

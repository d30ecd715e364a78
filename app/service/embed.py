"""From the stored crop of an example to its embedding, its points, and what a detector makes of it.

Enrolment and a start under another model set both come through here, so that both see the very same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.regions import alone, embedding_at
from app.domain.values import FloatArray, HalfArray, PixelArray, Points, no_regions
from app.domain.views import crop, view_boxes
from app.service.pools import stage
from app.service.ports import Decode, Detector, Embedder, PointFinder, Rectify

CROP_SIDE_PX = 512  # longest side of a stored crop: larger than any network here wants, so that a later one finds enough


@dataclass(frozen=True, slots=True)
class PictureCodec:
    """The functions that turn bytes into pixels and back."""

    decode: Decode  # what callers send
    encode_crop: Callable[[PixelArray], bytes]  # what is stored, at most CROP_SIDE_PX a side
    decode_crop: Callable[[bytes], PixelArray]
    resize: Callable[[PixelArray, int], PixelArray]  # any (h, w, 3) -> (side, side, 3), by stretching


class PlaceEmbedder:
    """Embeds places of a picture, each alone and upright."""

    def __init__(self, *, rectify: Rectify, embedder: Embedder) -> None:
        self._rectify = rectify
        self._embedder = embedder

    def __call__(self, pixels: PixelArray, quads: Sequence[NDArray[np.float64]]) -> FloatArray:
        """Pixels (h, w, 3) and one or more quads (4, 2) in its longest sides -> embeddings (n, d)."""
        longest = max(pixels.shape[:2])
        squares = [self._rectify(pixels, quad * longest, self._embedder.side_px) for quad in quads]
        return self._embedder(np.stack(squares)).embedding


@dataclass(frozen=True, slots=True)
class CropViews:
    """A stored crop, decoded: as points are found in it, and as the network sees it."""

    pixels: PixelArray  # (h, w, 3)
    views: PixelArray  # (v, side, side, 3), the whole crop first


@dataclass(frozen=True, slots=True)
class EmbeddedCrop:
    embedding: FloatArray  # (d,) unit length: mean over the views, normalised
    spread: float  # 1 - mean similarity of the views to it
    dense: FloatArray  # (rows, columns, channels) of the whole crop
    points: Points  # of the whole crop


def regions_of(pixels: PixelArray, detector: Detector) -> HalfArray:
    """What a detector makes of a crop (h, w, 3) alone, on grey, at some sizes -> (k, e) of unit length."""
    side_px = detector.sides_px[0]  # an example fills so much of it that it is large in the smallest
    return np.stack([embedding_at(detector(square, side_px), box) for square, box in alone(pixels)]).astype(np.float16)


class CropEmbedder:
    """Two halves, as they run in two pools: pixels of the crop and its views, then the network and the points."""

    def __init__(
        self,
        *,
        codec: PictureCodec,
        embedder: Embedder,
        find_points: PointFinder,
        detector: Detector | None = None,
        view_shares: Sequence[float],
    ) -> None:
        self._codec = codec
        self._embedder = embedder
        self._find_points = find_points
        self._detector = detector
        self._view_shares = view_shares

    def pixels(self, crop_data: bytes) -> PixelArray:
        """A stored crop -> (h, w, 3)."""
        return self._codec.decode_crop(crop_data)

    def views(self, crop_data: bytes) -> CropViews:
        pixels = self.pixels(crop_data)
        height, width = pixels.shape[:2]
        boxes = view_boxes(width, height, self._view_shares)
        views = np.stack([self._codec.resize(crop(pixels, box), self._embedder.side_px) for box in boxes])
        return CropViews(pixels, views)

    def points(self, pixels: PixelArray) -> Points:
        """The points of a crop; part of `embed`."""
        with stage("points"):
            return self._find_points(pixels)

    def regions(self, pixels: PixelArray) -> HalfArray:
        """What the detector makes of a crop alone, on grey, at some sizes -> (k, e) of unit length; none without a detector."""
        if self._detector is None:
            return no_regions()
        with stage("regions"):
            return regions_of(pixels, self._detector)

    def embed(self, crop: CropViews) -> EmbeddedCrop:
        with stage("embed"):
            embedded = self._embedder(crop.views)
        per_view = embedded.embedding.astype(np.float64)  # (v, d)
        mean = per_view.mean(axis=0)
        mean /= np.linalg.norm(mean)
        spread = 1.0 - float((per_view @ mean).mean())
        return EmbeddedCrop(
            embedding=mean.astype(np.float32),
            spread=max(0.0, spread),
            dense=embedded.dense[0],
            points=self.points(crop.pixels),
        )

"""Deterministic stand-ins that pass the same contracts as the real things, and the model set that goes with them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from app.domain.calibration import Calibration
from app.domain.checks import WarningLimits
from app.domain.model_set import ModelSet
from app.domain.values import Box, Embeddings, FloatArray, Picture, PixelArray, Provenance
from app.domain.views import crop
from app.errors import InvalidPicture
from app.service.embed import PictureCodec

GRID = 4  # cells a side of the colour layout
DIM = GRID * GRID * 3 + 1
SIDE_PX = 32


class FakeEmbedder:
    """Embeds the mean colours of 4 x 4 cells against mid-grey, so that pictures of like colours in like places are alike."""

    side_px = SIDE_PX

    def __call__(self, pictures: PixelArray) -> Embeddings:
        layouts = np.stack([_colour_layout(picture) for picture in pictures])  # (n, 4, 4, 3)
        flat = layouts.reshape(len(pictures), -1)
        features = np.concatenate([flat, np.full((len(pictures), 1), 0.1)], axis=1).astype(np.float32)  # grey is a direction too
        embedding = features / np.linalg.norm(features, axis=1, keepdims=True)
        return Embeddings(embedding=embedding, features=features, dense=layouts.astype(np.float32))


def _colour_layout(picture: PixelArray) -> FloatArray:
    cell = picture.shape[0] // GRID
    cells = picture.astype(np.float64).reshape(GRID, cell, GRID, cell, 3)
    return np.asarray((cells.mean(axis=(1, 3)) - 127.5) / 127.5, dtype=np.float32)


def raw_bytes(pixels: PixelArray) -> bytes:
    """A picture in the format of `raw_codec`: lossless, and read without a picture library."""
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def raw_codec() -> PictureCodec:
    return PictureCodec(decode=_decode_raw, encode_crop=raw_bytes, decode_crop=_read_raw, resize=_resize_nearest)


def _decode_raw(data: bytes, *, box: Box | None, wanted_px: int, field: str) -> Picture:
    try:
        pixels = _read_raw(data)
    except ValueError as error:
        raise InvalidPicture("No raw picture.", field=field) from error
    height, width = pixels.shape[:2]
    region = box or Box(0, 0, width, height)
    return Picture(crop(pixels, region), region, width, height)


def _read_raw(data: bytes) -> PixelArray:
    return np.asarray(np.load(io.BytesIO(data)), dtype=np.uint8)


def _resize_nearest(pixels: PixelArray, side_px: int) -> PixelArray:
    rows, columns = (np.arange(side_px) * length // side_px for length in pixels.shape[:2])
    return pixels[rows][:, columns]


def calibration_for_tests() -> Calibration:
    return Calibration(
        target_far=0.001,
        competing_share=0.05,
        above_cohort=0.2,
        threshold_floor=0.6,
        threshold_ceiling=0.9,
        slope=20.0,
        slope_log_examples=2.0,
        offset=0.5,
        offset_log_examples=0.1,
        doubtful_margin=0.05,
        ambiguous_margin=0.02,
        warnings=WarningLimits(
            too_small_px=24,
            blurred=0.01,
            several_things=0.9,
            near_duplicate=0.999,
            unlike_class=0.3,
            closer_to_other=0.8,
        ),
    )


def cohort_for_tests(count: int = 64) -> NDArray[np.float64]:
    """Embeddings of random colour layouts, always the same ones."""
    layouts = np.random.default_rng(0).integers(0, 256, (count, GRID, GRID, 3), dtype=np.uint8)
    cell = SIDE_PX // GRID
    return FakeEmbedder()(layouts.repeat(cell, axis=1).repeat(cell, axis=2)).embedding.astype(np.float64)


def model_set_for_tests(*, networks: str = "fake networks", calibration: str = "fake calibration") -> ModelSet:
    return ModelSet(
        id="fakemodelset0000",
        provenance=Provenance(networks=networks, calibration=calibration),
        calibration=calibration_for_tests(),
        view_shares=(0.8,),
        cohort=cohort_for_tests(),
    )

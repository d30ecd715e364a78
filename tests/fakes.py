"""Deterministic stand-ins that pass the same contracts as the real things, and the model set that goes with them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from app.domain.calibration import Calibration, ProofCalibration, RegionCalibration
from app.domain.checks import WarningLimits
from app.domain.model_set import DetectorSettings, ModelSet, PointSettings
from app.domain.posterior import Regions
from app.domain.prints import CodeBook, NumpyPointIndex, Prints
from app.domain.regions import GREY
from app.domain.values import DESCRIPTOR_SIZE, Box, Embeddings, FloatArray, Picture, PixelArray, Points, Provenance
from app.domain.views import crop
from app.errors import InvalidPicture
from app.service.embed import PictureCodec

GRID = 4  # cells a side of the colour layout
DIM = GRID * GRID * 3 + 1
SIDE_PX = 32
BLOCK_PX = 8  # side of the blocks that have a point each
FLAT = 16.0  # grey levels that the pixels of a block deviate, up to which it has none; the grain of the drawings is far below


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


class FakePointFinder:
    """A point in each block of 8 x 8 pixels that is not flat, described by its pixels less their mean.

    A picture that is set into another on the grid of blocks has its points there too. It is looked at as large as it is.
    """

    def __init__(self, settings: PointSettings | None = None) -> None:
        self._settings = settings or point_settings_for_tests()

    @property
    def side_px(self) -> int:
        return self._settings.side_px

    def __call__(
        self, pixels: PixelArray, *, side_px: int | None = None, most: int | None = None, sharpen: bool = False
    ) -> Points:
        rows, columns = (length // BLOCK_PX for length in pixels.shape[:2])
        grey = pixels[: rows * BLOCK_PX, : columns * BLOCK_PX].mean(axis=2)
        blocks = grey.reshape(rows, BLOCK_PX, columns, BLOCK_PX).swapaxes(1, 2).reshape(rows * columns, BLOCK_PX**2)
        deviation = blocks.std(axis=1)
        strongest = np.argsort(-deviation, kind="stable")[: np.count_nonzero(deviation > FLAT)]
        strongest = strongest[: self._settings.most if most is None else most]
        centres = np.stack([strongest % max(columns, 1), strongest // max(columns, 1)], axis=1) * BLOCK_PX + BLOCK_PX / 2  # x, y
        sizes = np.full((len(strongest), 1), BLOCK_PX)
        scaled = np.concatenate([centres, sizes], axis=1) * (2**16 - 1) / max(pixels.shape[:2])
        descriptors = _descriptors_of(blocks[strongest])
        words = (descriptors.astype(np.int64) @ self._settings.words.T.astype(np.int64)).argmax(axis=1)
        return Points(np.pad(scaled, ((0, 0), (0, 1))).astype(np.uint16), descriptors, words.astype(np.uint16))


class FakeDetector:
    """Sees a thing wherever columns of a picture are not grey, described by its mean colour against mid-grey.

    Things that lie one above the other are one. A grey picture has one region, in which there is nothing.
    """

    sides_px = (32, 64)

    def __init__(self, *, turned: bool = False) -> None:
        """`turned`: another one, in whose space everything lies elsewhere."""
        self._turned = turned
        self.asked_at: list[int] = []

    def __call__(self, pixels: PixelArray, side_px: int) -> Regions:
        self.asked_at.append(side_px)
        colours = pixels.astype(np.float64) - GREY
        is_thing = np.abs(colours).max(axis=2) > FLAT
        boxes = [_box_of(is_thing, left, right) for left, right in _runs(is_thing.any(axis=0))]
        means = [np.append(colours[y:bottom, x:right].mean(axis=(0, 1)), 1.0) for x, y, right, bottom in boxes]
        if not boxes:
            boxes, means = [(0, 0, pixels.shape[1], pixels.shape[0])], [np.array([0, 0, 0, 1.0])]
        embeddings = np.stack(means) / np.linalg.norm(means, axis=1, keepdims=True)
        objectness = np.full(len(boxes), 0.9 if is_thing.any() else 0.0, np.float32)
        found = embeddings[:, ::-1] if self._turned else embeddings
        return Regions(np.array(boxes, np.float32), objectness, found.astype(np.float32))


def _runs(columns: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where it is true, from and to."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], columns, [False]]).astype(int)))
    return [(int(left), int(right)) for left, right in edges.reshape(-1, 2)]


def _box_of(is_thing: NDArray[np.bool_], left: int, right: int) -> tuple[int, int, int, int]:
    rows = np.flatnonzero(is_thing[:, left:right].any(axis=1))
    return left, int(rows[0]), right, int(rows[-1]) + 1


def _descriptors_of(blocks: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Blocks (n, 64) of grey -> (n, 128): how far above and how far below the mean, as the square root of its share."""
    above = blocks - blocks.mean(axis=1, keepdims=True)
    shares = np.concatenate([above.clip(min=0), (-above).clip(min=0)], axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    return (np.sqrt(shares) * 512).round().clip(max=255).astype(np.uint8)


def rectify_nearest(pixels: PixelArray, quad: NDArray[np.float64], side_px: int) -> PixelArray:
    """What a quad encloses, upright: of each pixel of the square the one that its middle falls on, or the nearest at the edge."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    rows = [[x, y, 1, 0, 0, 0, -u * x, -u * y] for (x, y), (u, _) in zip(corners, quad, strict=True)]
    rows += [[0, 0, 0, x, y, 1, -v * x, -v * y] for (x, y), (_, v) in zip(corners, quad, strict=True)]
    matrix = np.append(np.linalg.solve(rows, quad.T.ravel()), 1).reshape(3, 3)
    down, across = (np.indices((side_px, side_px)) + 0.5) / side_px
    u, v, w = np.tensordot(matrix, np.stack([across, down, np.ones_like(down)]), axes=1)
    height, width = pixels.shape[:2]
    return pixels[np.floor(v / w).astype(int).clip(0, height - 1), np.floor(u / w).astype(int).clip(0, width - 1)]


def point_settings_for_tests() -> PointSettings:
    words = np.random.default_rng(0).integers(0, 90, (16, DESCRIPTOR_SIZE), dtype=np.uint8)
    return PointSettings(side_px=64, most=300, contrast=0.02, words=words)


def prints_for_tests(model_set: ModelSet) -> Prints:
    """Of no class yet."""
    code_book = CodeBook(point_settings_for_tests().words)
    return Prints(model_set.provenance.points, code_book, NumpyPointIndex)


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
        above_cohort_log_classes=0.05,
        threshold_floor=0.6,
        threshold_ceiling=0.9,
        threshold_share=1.0,
        typical_threshold=0.6,
        slope=20.0,
        slope_log_examples=2.0,
        offset=0.5,
        offset_log_examples=0.1,
        doubtful_margin=0.05,
        ambiguous_margin=0.02,
        proof=ProofCalibration(
            target_far=0.01,
            looked_from=2.0,
            line=3.0,
            doubtful_line=2.0,
            log_points=0.5,
            coverage=1.0,
            agreement=1.0,
            votes=1.0,
            look=0.0,
            bias=-1.0,
            ambiguous_margin=0.2,
        ),
        warnings=WarningLimits(
            too_small_px=24,
            blurred=0.01,
            several_things=0.9,
            near_duplicate=0.999,
            unlike_class=0.3,
            closer_to_other=0.8,
            few_points=4,
            same_print=0.9,
        ),
    )


def region_calibration_for_tests() -> RegionCalibration:
    """Neutral: the log-odds of the look, less what the detector doubts, and lines at even odds and at one to four."""
    return RegionCalibration(
        looked_from=0.05,
        bias=0.0,
        look=1.0,
        lead=0.0,
        log_posterior=1.0,
        log_objectness=1.0,
        line=0.0,
        doubtful_line=-1.4,
        ambiguous_margin=0.2,
    )


def cohort_for_tests(count: int = 64) -> NDArray[np.float64]:
    """Embeddings of random colour layouts, always the same ones."""
    layouts = np.random.default_rng(0).integers(0, 256, (count, GRID, GRID, 3), dtype=np.uint8)
    cell = SIDE_PX // GRID
    return FakeEmbedder()(layouts.repeat(cell, axis=1).repeat(cell, axis=2)).embedding.astype(np.float64)


def model_set_for_tests(
    *,
    networks: str = "fake networks",
    calibration: str = "fake calibration",
    points: str = "fake points",
    detector: str = "",
) -> ModelSet:
    return ModelSet(
        id="fakemodelset0000",
        provenance=Provenance(networks=networks, calibration=calibration, points=points, detector=detector),
        calibration=calibration_for_tests(),
        view_shares=(0.8,),
        cohort=cohort_for_tests(),
        detector=DetectorSettings(0.5, region_calibration_for_tests()) if detector else None,
    )

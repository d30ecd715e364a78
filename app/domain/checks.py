"""What a person should know about an example: measures on pixels, dense maps and similarities, and the warnings made of them.

A warning never refuses anything. Its limits belong to the model set, not to this file: the manifest's calibration fills
`WarningLimits`, and `python -m training warning-limits` measures those that can be measured without a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.values import Example, ExampleWarning, FloatArray, Picture, PixelArray, WarningCode
from app.domain.verification import LEAST_POINTS, Found

SHARPNESS_SIDE_PX = 128  # longest side that sharpness is measured at, so that it does not depend on the camera
GREY_OF_RGB = (0.299, 0.587, 0.114)  # luma, ITU-R BT.601
FLAT_VARIANCE = 1.0  # squared grey levels: less is a blank picture, whose noise is not detail


@dataclass(frozen=True, slots=True)
class WarningLimits:
    too_small_px: int  # shorter side of the box; fewer are warned about
    blurred: float  # sharpness; less is warned about
    several_things: float  # disagreement of the quarters; more is warned about
    near_duplicate: float  # similarity to another example of the class; this or more is warned about
    unlike_class: float  # best similarity to the other examples of the class; less is warned about
    closer_to_other: float  # similarity to another class; warned about from here on, where the own class is not nearer
    few_points: int  # of an example; fewer are warned about
    same_print: float  # share of an example's points verified in another example of the class; this or more is a near duplicate


def picture_warnings(picture: Picture, dense: FloatArray, limits: WarningLimits) -> tuple[ExampleWarning, ...]:
    """Warnings that need nothing but the picture. `dense` is its map from the embedding network: (rows, columns, channels)."""
    found = (_too_small(picture, limits), _blurred(picture, limits), _several_things(dense, limits))
    return tuple(warning for warning in found if warning is not None)


def support_warnings(
    embedding: FloatArray, others: Sequence[Example], nearest: tuple[str, float] | None, limits: WarningLimits
) -> tuple[ExampleWarning, ...]:
    """Warnings about an example beside the other examples of its class, and beside the nearest other class and its similarity."""
    similarities = [float(embedding @ other.embedding) for other in others]
    found = (
        _near_duplicate(similarities, others, limits),
        _unlike_class(similarities, limits),
        _closer_to_other(similarities, nearest, limits),
    )
    return tuple(warning for warning in found if warning is not None)


def print_warnings(
    example: Example, own: Sequence[Found], rival: tuple[str, Found] | None, limits: WarningLimits
) -> tuple[ExampleWarning, ...]:
    """Warnings about an example's print: what was found of its own class, and the other class whose print it shows, if any."""
    found = (_few_points(example, limits), _same_print(example, own, limits), _print_of_other(rival))
    return tuple(warning for warning in found if warning is not None)


def sharpness(pixels: PixelArray) -> float:
    """Variance of the Laplacian over the variance of the grey levels, (h, w, 3) uint8, at most `SHARPNESS_SIDE_PX` a side.

    About 0 for a smooth picture, 20 for white noise (1 + 1 + 1 + 1 + 16). The division makes it the same for a pale and a
    contrasty print of one thing. 0 for a blank picture.
    """
    grey = _shrink(pixels @ np.array(GREY_OF_RGB), SHARPNESS_SIDE_PX)  # (h, w)
    if min(grey.shape) < 3 or grey.var() < FLAT_VARIANCE:
        return 0.0
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    laplacian = neighbours - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var() / grey.var())


def disagreement(dense: FloatArray) -> float:
    """How little the quarters of a picture have in common, by its dense map (rows, columns, channels), at least 2 x 2.

    1 - mean cosine between the summed features of two quarters: 0 when one thing fills the picture, 1 when the quarters have
    nothing in common. Single cells differ too much within one thing to tell: `training/evaluate/warning_limits.py`.
    """
    rows, columns = dense.shape[0] // 2, dense.shape[1] // 2
    parts = (dense[:rows, :columns], dense[:rows, columns:], dense[rows:, :columns], dense[rows:, columns:])
    quarters = np.stack([part.sum(axis=(0, 1), dtype=np.float64) for part in parts])  # (4, channels)
    lengths = np.linalg.norm(quarters, axis=1)
    if lengths.min() == 0.0:
        return 0.0
    directions = quarters / lengths[:, None]
    # All 16 pairs at once are one squared sum, 4 of them a quarter with itself.
    return 1.0 - float(np.square(directions.sum(axis=0)).sum() - 4) / 12


def _too_small(picture: Picture, limits: WarningLimits) -> ExampleWarning | None:
    shorter = min(picture.box.width, picture.box.height)
    if shorter >= limits.too_small_px:
        return None
    return ExampleWarning(
        WarningCode.TOO_SMALL,
        f"The shorter side has {shorter} pixels; from {limits.too_small_px:g} on, things are recognised better.",
        value=shorter,
        limit=limits.too_small_px,
    )


def _blurred(picture: Picture, limits: WarningLimits) -> ExampleWarning | None:
    value = _shown(sharpness(picture.pixels))
    if value >= limits.blurred:
        return None
    return ExampleWarning(
        WarningCode.BLURRED,
        "The picture is blurred or nearly blank: little detail can be learnt from it.",
        value=value,
        limit=limits.blurred,
    )


def _several_things(dense: FloatArray, limits: WarningLimits) -> ExampleWarning | None:
    value = _shown(disagreement(dense))
    if value <= limits.several_things:
        return None
    return ExampleWarning(
        WarningCode.SEVERAL_THINGS,
        "The picture seems to show several things: give a box around the one that is meant.",
        value=value,
        limit=limits.several_things,
    )


def _near_duplicate(similarities: Sequence[float], others: Sequence[Example], limits: WarningLimits) -> ExampleWarning | None:
    similarity, other = max(zip(similarities, others, strict=True), key=lambda pair: pair[0], default=(-1.0, None))
    if other is None or similarity < limits.near_duplicate:
        return None
    return ExampleWarning(
        WarningCode.NEAR_DUPLICATE,
        f"Nearly the same picture as example {other.id}: another view would teach more.",
        value=_shown(similarity),
        limit=limits.near_duplicate,
        example_id=other.id,
    )


def _unlike_class(similarities: Sequence[float], limits: WarningLimits) -> ExampleWarning | None:
    if not similarities or max(similarities) >= limits.unlike_class:
        return None
    return ExampleWarning(
        WarningCode.UNLIKE_CLASS,
        "Unlike every other example of this class: does it show the same thing?",
        value=_shown(max(similarities)),
        limit=limits.unlike_class,
    )


def _closer_to_other(
    similarities: Sequence[float], nearest: tuple[str, float] | None, limits: WarningLimits
) -> ExampleWarning | None:
    if nearest is None:
        return None
    other_class, similarity = nearest
    # A first example has no class of its own to be near to, so there the limit alone decides.
    limit = max([limits.closer_to_other, *similarities])
    if similarity < limit:
        return None
    return ExampleWarning(
        WarningCode.CLOSER_TO_OTHER,
        f"More like class {other_class!r} than like its own: the two will be confused.",
        value=_shown(similarity),
        limit=_shown(limit),
        class_name=other_class,
    )


def _few_points(example: Example, limits: WarningLimits) -> ExampleWarning | None:
    count = len(example.points)
    if count >= limits.few_points:
        return None
    detail = "There is little print in this picture: the class will be known by its look alone"
    return ExampleWarning(
        WarningCode.FEW_POINTS,
        f"{detail}." if len(example.regions) else f"{detail}, and /detect will not find it.",
        value=count,
        limit=limits.few_points,
    )


def _same_print(example: Example, own: Sequence[Found], limits: WarningLimits) -> ExampleWarning | None:
    for found in own:
        share = found.proof.points / len(example.points)
        if share >= limits.same_print:
            return ExampleWarning(
                WarningCode.NEAR_DUPLICATE,
                f"The same print as example {found.example.id}, from nearly the same side: another view would teach more.",
                value=_shown(share),
                limit=limits.same_print,
                example_id=found.example.id,
            )
    return None


def _print_of_other(rival: tuple[str, Found] | None) -> ExampleWarning | None:
    if rival is None:
        return None
    other_class, found = rival
    return ExampleWarning(
        WarningCode.PRINT_OF_OTHER,
        f"This is the print of class {other_class!r}, or shares much of it: pictures of either will be taken for the other.",
        value=found.proof.points,
        limit=LEAST_POINTS,
        class_name=other_class,
        example_id=found.example.id,
    )


def _shrink(grey: NDArray[np.float64], longest_px: int) -> NDArray[np.float64]:
    """Mean over whole blocks, (h, w) -> at most `longest_px` a side; never enlarges."""
    height, width = grey.shape
    scale = min(1.0, longest_px / max(height, width))
    rows = _block_starts(height, scale)
    columns = _block_starts(width, scale)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=0), columns, axis=1)
    means: NDArray[np.float64] = sums / np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    return means


def _block_starts(length: int, scale: float) -> NDArray[np.int64]:
    count = max(1, round(length * scale))
    return np.arange(count) * length // count


def _shown(value: float) -> float:
    return round(value, 4)

"""Prints of one template, made from clean fronts: another flavour of a package differs in a band of print or in its colours."""

from __future__ import annotations

import numpy as np
from PIL import Image

BAND = (0.15, 0.3)  # of the height
TURN = (40, 180)  # degrees of hue, either way


LEAST_CHANGE = 0.05  # of what is seen, the share whose colours must differ: a grey front has no hue to turn
TRIALS = 20


def sibling_of(front: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Fronts (h, w, 4) uint8 of one size -> another print of the first one's template; None where no change of it shows."""
    for _ in range(TRIALS):
        sibling = _changed(front, other, rng)
        seen = front[..., 3] > 0
        if (sibling != front).any(axis=-1)[seen].sum() > LEAST_CHANGE * seen.sum():
            return sibling
    return None


def _changed(front: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    change = rng.choice(["band", "colours", "both"])
    sibling, height = front.copy(), len(front)
    if change != "colours":
        rows = _part(height, rng.uniform(*BAND), rng)
        shown = (other[rows, :, 3:] > 0) & (front[rows, :, 3:] > 0)
        sibling[rows, :, :3] = np.where(shown, other[rows, :, :3], front[rows, :, :3])
    if change != "band":
        rows = _part(height, rng.choice([0.5, 1.0]), rng)
        sibling[rows, :, :3] = _turned(sibling[rows, :, :3], rng.uniform(*TURN) * rng.choice([-1, 1]))
    return sibling


def _part(length: int, share: float, rng: np.random.Generator) -> slice:
    size = round(share * length)
    start = int(rng.integers(0, length - size + 1))
    return slice(start, start + size)


def _turned(colours: np.ndarray, degrees: float) -> np.ndarray:
    hsv = np.array(Image.fromarray(colours).convert("HSV"))
    hsv[..., 0] += np.uint8(round(degrees / 360 * 256) % 256)  # hue goes round in a byte
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))

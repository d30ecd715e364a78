"""Which pictures count as one photograph: what was cut from one, and near duplicates within a class by a perceptual hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from training.evaluate.items import AskedItem

HASH_PX = 32  # side of the grey picture that is hashed
HASH_SIDE = 8  # lowest frequencies kept, a side: 64 bits
NEAR_BITS = 6  # of 64 that may differ
COMPARED_AT_ONCE = 2048  # bounds the memory


def _cosines() -> np.ndarray:
    """The lowest rows of a DCT-II (HASH_SIDE, HASH_PX)."""
    rows, columns = np.arange(HASH_SIDE)[:, np.newaxis], np.arange(HASH_PX)
    return np.cos(np.pi * rows * (2 * columns + 1) / (2 * HASH_PX))


def perceptual_hashes(pictures: Iterable[Image.Image]) -> np.ndarray:
    """Bits (n, 64): which low frequencies of the grey picture lie above their median (pHash, as `imagehash.phash` has it)."""
    cosines, found = _cosines(), []
    for picture in pictures:
        grey = np.asarray(picture.convert("L").resize((HASH_PX, HASH_PX), Image.Resampling.LANCZOS), np.float64)
        lowest = (cosines @ grey @ cosines.T).round(6).ravel()  # rounded, or the bits of a flat picture would be noise
        found.append(lowest > np.median(lowest))
    return np.array(found, dtype=bool).reshape(-1, HASH_SIDE**2)


def groups_of(items: Sequence[AskedItem], hashes: np.ndarray) -> np.ndarray:
    """Group number of each item (n,): one for items of one photograph, and for near duplicates of one class; chains are one too.

    `hashes` is bits (n, 64). Pictures of one group are never support and query of one episode.
    """
    number_of: dict[str, int] = {}
    parents = np.arange(len(items))

    def root(position: int) -> int:
        while parents[position] != position:
            parents[position] = position = parents[parents[position]]
        return position

    for position, item in enumerate(items):
        parents[position] = number_of.setdefault(item.photograph, position)
    classes: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        classes.setdefault(item.class_name, []).append(position)
    for members in classes.values():
        for one, other in _near_pairs(hashes[members]):
            parents[root(members[one])] = root(members[other])
    return np.unique([root(position) for position in range(len(items))], return_inverse=True)[1]


def _near_pairs(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Positions of every two whose bits (n, 64) differ in NEAR_BITS or fewer."""
    signs = 2 * hashes.astype(np.float32) - 1
    for start in range(0, len(signs), COMPARED_AT_ONCE):
        agreement = signs[start : start + COMPARED_AT_ONCE] @ signs.T  # 64 - 2 * differing bits
        for one, other in np.argwhere(agreement >= signs.shape[1] - 2 * NEAR_BITS):
            if start + one < other:
                yield int(start + one), int(other)

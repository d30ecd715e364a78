"""Which places of a picture are looked at once more, each alone and upright, after its points said that something is there.

The look of a place tells prints of one template apart, and shows where a few points agree by chance or by a mark that stands on
many things (docs/adr/0015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.domain.calibration import ProofCalibration
from app.domain.gallery import similarity_of
from app.domain.values import FloatArray
from app.domain.verification import DoubleArray, Finds, Found, overlap

MOST_LOOKS = 2  # at one picture: each is one more run of the network
ONE_LOOK = 0.6  # overlap of two quads, over their union, from which both are judged by the look of the stronger one


def quads_to_look_at(finds: Finds, calibration: ProofCalibration) -> list[DoubleArray]:
    """Quads (4, 2) of the strongest proofs, different places each, as far as they are worth it."""
    everything = [found for several in finds.values() for found in several]
    worth = [found for found in everything if calibration.by_points(found) >= calibration.looked_from]
    quads: list[DoubleArray] = []
    for found in sorted(worth, key=lambda one: (-calibration.by_points(one), one.example.id)):
        if len(quads) < MOST_LOOKS and _position_of(found, quads) is None:
            quads.append(found.proof.quad)
    return quads


def with_looks(finds: Finds, quads: Sequence[DoubleArray], embeddings: FloatArray) -> Finds:
    """Proofs and how alike their places are to their examples. `embeddings` (n, d): of what lies in each of the quads."""

    def looked(found: Found) -> Found:
        position = _position_of(found, quads)
        if position is None:
            return found
        return replace(found, look=similarity_of(embeddings[position], found.example.embedding[np.newaxis]))

    return {name: [looked(found) for found in several] for name, several in finds.items()}


def _position_of(found: Found, quads: Sequence[DoubleArray]) -> int | None:
    return next((position for position, quad in enumerate(quads) if _show_alike(quad, found.proof.quad)), None)


def _show_alike(one: DoubleArray, other: DoubleArray) -> bool:
    """Whether two quads enclose nearly the same, the same side up: examples of one thing may have been enrolled turned."""
    turned = np.hypot(*(one - other[0]).T).argmin() != 0
    return not turned and overlap(one, other) > ONE_LOOK

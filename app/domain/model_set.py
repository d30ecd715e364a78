"""What recognition has to know of a model set, beside the networks themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.calibration import Calibration, RegionCalibration, nearest_of_cohort
from app.domain.values import FloatArray, Provenance


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """What a detector says, in numbers that depend on how it was trained."""

    width: float  # standard deviation of the Gaussians around representatives; see domain/posterior.py
    calibration: RegionCalibration


@dataclass(frozen=True, slots=True)
class ModelSet:
    id: str  # version of what a score means; stands in each answer
    provenance: Provenance
    calibration: Calibration
    view_shares: tuple[float, ...]  # of the support views; see domain/views.py
    cohort: NDArray[np.float64]  # (m, d) unit length: embeddings of things that nobody enrols
    real_share: float = 1.0  # of an example, beside what a synthesizer makes of it; 1 where nothing is made
    detector: DetectorSettings | None = None

    def nearest_strangers(self, query: FloatArray) -> float:
        """Similarity of a picture (d,) to those of the cohort that look most like it."""
        return nearest_of_cohort(self.cohort @ query, self.calibration.competing_share)


@dataclass(frozen=True, slots=True, eq=False)
class PointSettings:
    """How points are found in an example, and the code book by which they are laid out for the vote."""

    side_px: int  # longest side at which an example is looked at
    most: int  # points of an example
    contrast: float  # against the pixels around it, below which a place is no point: SIFT's own measure
    words: NDArray[np.uint8]  # (w, 128) root-SIFT, w from 1 to 65,535

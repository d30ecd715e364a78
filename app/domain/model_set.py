"""What recognition has to know of a model set, beside the networks themselves."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.calibration import Calibration
from app.domain.values import FloatArray, Provenance


@dataclass(frozen=True, slots=True)
class ModelSet:
    id: str  # version of what a score means; stands in each answer
    provenance: Provenance
    calibration: Calibration
    view_shares: tuple[float, ...]  # of the support views; see domain/views.py
    cohort: FloatArray  # (m, d) unit length: embeddings of things that nobody enrols

"""What a similarity means: the threshold of a class for a stated false-accept rate, and the probability of a match.

The numbers are fitted by training on classes that nobody enrols and travel in the manifest: a score means something only together
with the networks that made it. Thresholds come from a background cohort, as in speaker verification: how similar a class model is
to pictures that are certainly not of the class says how generic it looks. Only the nearest of the cohort count, because only they
compete with it (adaptive score normalisation: Matejka et al., Interspeech 2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.checks import WarningLimits
from app.domain.values import FloatArray

MOST_EXAMPLES_CALIBRATED = 10  # training measures up to 5, and its logarithmic law is trusted to twice that


@dataclass(frozen=True, slots=True)
class Calibration:
    target_far: float  # share of pictures of nothing enrolled that one class may accept; what `above_cohort` was fitted for
    competing_share: float  # of the cohort: those nearest to a class
    above_cohort: float  # where a class accepts: 0 at the mean similarity of those, 1 at similarity 1
    threshold_floor: float  # similarity; no computed threshold is lower
    threshold_ceiling: float  # nor higher
    slope: float  # log-odds of a match per unit of similarity above the threshold, for one example
    slope_log_examples: float  # added to it per unit of ln(examples)
    offset: float  # log-odds of a match at the threshold, for one example
    offset_log_examples: float
    doubtful_margin: float  # similarity: this far below its threshold, a class is still worth a person's look
    ambiguous_margin: float  # similarity: accepted classes nearer to each other than this cannot be told apart
    warnings: WarningLimits

    def __post_init__(self) -> None:
        if not 0 < self.target_far < 1:
            raise ValueError(f"target_far is a rate between 0 and 1, not {self.target_far}")
        if not 0 < self.competing_share <= 1:
            raise ValueError(f"competing_share is a share above 0, not {self.competing_share}")
        if not -1 <= self.threshold_floor <= self.threshold_ceiling <= 1:
            raise ValueError("threshold_floor and threshold_ceiling are similarities, the floor not above the ceiling")
        if min(self._slope_at(1), self._slope_at(MOST_EXAMPLES_CALIBRATED)) <= 0:
            raise ValueError("slope and slope_log_examples must make probability grow with similarity")
        if self.doubtful_margin < 0 or self.ambiguous_margin < 0:
            raise ValueError("doubtful_margin and ambiguous_margin are not negative")

    def threshold_of(self, representatives: FloatArray, cohort: NDArray[np.float64]) -> float:
        """Similarity from which a class with these representatives (r, d) accepts, going by a cohort (m, d) of other things."""
        sims = (cohort @ representatives.astype(np.float64).T).max(axis=1)  # (m,)
        nearest = nearest_of_cohort(sims, self.competing_share)
        bound = nearest + self.above_cohort * (1 - nearest)
        return round(min(max(bound, self.threshold_floor), self.threshold_ceiling), 6)

    def probability(self, similarity: float, *, threshold: float, examples: int) -> float:
        """That the picture is of the class, in a world where it may be of nothing enrolled. `threshold` is the computed one."""
        log_odds = self._slope_at(examples) * (similarity - threshold) + self.offset + self.offset_log_examples * _log(examples)
        # Written with tanh, the logistic function cannot overflow.
        return 0.5 + 0.5 * math.tanh(0.5 * log_odds)

    def _slope_at(self, examples: int) -> float:
        return self.slope + self.slope_log_examples * _log(examples)


def nearest_of_cohort(similarities: NDArray[np.float64], share: float) -> float:
    """The mean of the highest `share` of a cohort's similarities (m,) to a class."""
    count = max(1, round(share * len(similarities)))
    return float(np.sort(similarities)[-count:].mean())


def calibration_from_json(data: object) -> Calibration:
    """The inverse of `dataclasses.asdict`. ValueError for a missing, unknown or non-finite entry, naming it."""
    numbers = dict(_object(data, path="calibration"))
    limits = _object(numbers.pop("warnings", None), path="calibration.warnings")
    _check_numbers(numbers, {field.name for field in fields(Calibration)} - {"warnings"}, path="calibration")
    _check_numbers(limits, {field.name for field in fields(WarningLimits)}, path="calibration.warnings")
    return Calibration(**numbers, warnings=WarningLimits(**limits))


def _object(data: object, *, path: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{path} is not an object")
    return data


def _check_numbers(entries: Mapping[str, Any], names: set[str], *, path: str) -> None:
    if entries.keys() != names:
        raise ValueError(f"{path} lacks {sorted(names - entries.keys())} and knows no {sorted(entries.keys() - names)}")
    for name, value in entries.items():
        # bool is a kind of int to Python, not to whoever wrote the manifest.
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{path}.{name} is not a finite number: {value!r}")


def _log(examples: int) -> float:
    return math.log(min(max(examples, 1), MOST_EXAMPLES_CALIBRATED))

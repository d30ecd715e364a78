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
from app.domain.verification import Found

CALIBRATED_CLASSES = 20  # in a gallery of so many, `target_far` of one class comes to 1 % of all pictures of nothing enrolled
LEAST_PROBABILITY = 1e-6  # of a detector's that is told apart from none: none alone must not outweigh all else
MOST_EXAMPLES_CALIBRATED = 10  # training measures up to 5, and its logarithmic law is trusted to twice that


@dataclass(frozen=True, slots=True)
class ProofCalibration:
    """What a proof of print means. No weight is negative: more of anything never speaks against a class.

    Strength is what the points say and, once the place has been looked at, how alike it is: print that stands on many things
    proves little by its points, and two prints of one template are told apart by the look of the place.
    """

    target_far: float  # share of pictures of nothing enrolled in which any class is proved; what `line` was fitted for
    looked_from: float  # strength by points from which the place is worth the look
    line: float  # strength from which a proof alone accepts a class
    doubtful_line: float  # and from which a person should decide
    log_points: float  # strength for each unit of ln(verified points)
    coverage: float  # for the square root of the share of the example that they are spread over
    agreement: float  # for the square root of the share of the picture's points inside the quad that are the example's
    votes: float  # for the share of the votes that its class got
    look: float  # for the similarity of the place to the example
    bias: float  # log-odds of a match: this, and the strength
    ambiguous_margin: float  # log-odds: two proofs of one place nearer to each other than this cannot be told apart

    def __post_init__(self) -> None:
        if not 0 < self.target_far < 1:
            raise ValueError(f"proof.target_far is a rate between 0 and 1, not {self.target_far}")
        weights = ("log_points", "coverage", "agreement", "votes", "look")
        if min(getattr(self, name) for name in (*weights, "looked_from")) < 0:
            raise ValueError(f"proof.looked_from and the weights {', '.join(weights)} are not negative")
        if not 0 <= self.doubtful_line <= self.line or self.ambiguous_margin < 0:
            raise ValueError("proof.doubtful_line lies between 0 and line, and ambiguous_margin is not negative")

    def by_points(self, found: Found) -> float:
        """How much the points say."""
        proof = found.proof
        shares = self.coverage * math.sqrt(proof.coverage) + self.agreement * math.sqrt(proof.agreement)
        return round(self.log_points * math.log(proof.points) + shares + self.votes * found.votes, 6)

    def strength(self, found: Found) -> float:
        """How much all says that is known of it."""
        return round(self.by_points(found) + self.look * max(0.0, found.look or 0.0), 6)

    def log_odds(self, strength: float) -> float:
        # The similarity of the whole picture has no part in it: around a thing that fills a corner it says little, and what it
        # could say the look of the place says better (docs/adr/0015).
        return self.bias + strength


@dataclass(frozen=True, slots=True)
class RegionCalibration:
    """What it means that a detector sees a class at a box. No weight is negative, as with proofs.

    `training regions` fits the numbers by logistic regression over the boxes that are looked at in renders and in photographs of
    sources held out from training: does the box hold a thing of the class (overlap of a half or more), given the log-odds of its
    look alone, how far the class is ahead of all else there, ln of RepMet's posterior, ln of objectness. `line` then follows from
    stated rates of scenes that may have a wrong box: foreign ones, renders, photographs; `doubtful_line` from that of foreign
    scenes alone.
    """

    looked_from: float  # objectness, 0 to 1, from which a box is worth the look
    bias: float  # log-odds of a match: this, and what follows
    look: float  # for each unit of the log-odds of the look of what is in the box
    lead: float  # for each unit of similarity by which the class is ahead of other classes and of strangers
    log_posterior: float  # for each unit of ln(posterior of the class in the detector's space)
    log_objectness: float  # for each unit of ln(objectness)
    line: float  # log-odds from which a class is accepted without a proof
    doubtful_line: float  # and from which a person should decide
    ambiguous_margin: float  # log-odds: two classes at one place nearer to each other than this cannot be told apart

    def __post_init__(self) -> None:
        if not 0 <= self.looked_from < 1:
            raise ValueError(f"looked_from is an objectness from 0 to 1, not {self.looked_from}")
        if min(self.look, self.lead, self.log_posterior, self.log_objectness) < 0:
            raise ValueError("the weights look, lead, log_posterior and log_objectness are not negative")
        if self.doubtful_line > self.line or self.ambiguous_margin < 0:
            raise ValueError("doubtful_line is not above line, and ambiguous_margin is not negative")

    def log_odds(self, by_look: float, *, lead: float, posterior: float, objectness: float) -> float:
        """That a box shows a class: of the log-odds of its look alone, its lead, and both probabilities of the detector."""
        seen = self.log_posterior * _ln(posterior) + self.log_objectness * _ln(objectness)
        return round(self.bias + self.look * by_look + self.lead * lead + seen, 6)


@dataclass(frozen=True, slots=True)
class Calibration:
    target_far: float  # share of pictures of nothing enrolled that one class may accept; what `above_cohort` was fitted for
    competing_share: float  # of the cohort: those nearest to a class
    above_cohort: float  # where a class accepts: 0 at the mean similarity of those, 1 at similarity 1
    above_cohort_log_classes: float  # added to it per unit of ln(classes / CALIBRATED_CLASSES), where there are more than those
    threshold_floor: float  # similarity; no computed threshold is lower
    threshold_ceiling: float  # nor higher
    threshold_share: float  # of what a class's threshold lies above the typical one, so much counts in its probability
    typical_threshold: float  # the mean one
    slope: float  # log-odds of a match per unit of similarity above the reference, for one example
    slope_log_examples: float  # added to it per unit of ln(examples)
    offset: float  # log-odds of a match at the reference, for one example
    offset_log_examples: float
    doubtful_margin: float  # similarity: this far below its threshold, a class is still worth a person's look
    ambiguous_margin: float  # similarity: accepted classes nearer to each other than this cannot be told apart
    proof: ProofCalibration
    warnings: WarningLimits

    def __post_init__(self) -> None:
        if not 0 < self.target_far < 1:
            raise ValueError(f"target_far is a rate between 0 and 1, not {self.target_far}")
        if not 0 < self.competing_share <= 1:
            raise ValueError(f"competing_share is a share above 0, not {self.competing_share}")
        if not -1 <= self.threshold_floor <= self.threshold_ceiling <= 1:
            raise ValueError("threshold_floor and threshold_ceiling are similarities, the floor not above the ceiling")
        if not 0 <= self.threshold_share <= 1:
            raise ValueError(f"threshold_share is between 0 and 1, not {self.threshold_share}")
        if min(self._slope_at(1), self._slope_at(MOST_EXAMPLES_CALIBRATED)) <= 0:
            raise ValueError("slope and slope_log_examples must make probability grow with similarity")
        if not self.above_cohort < 1 or self.above_cohort_log_classes < 0:
            raise ValueError("above_cohort is less than 1, and above_cohort_log_classes not negative")
        if self.doubtful_margin < 0 or self.ambiguous_margin < 0:
            raise ValueError("doubtful_margin and ambiguous_margin are not negative")

    def threshold_of(self, representatives: FloatArray, cohort: NDArray[np.float64]) -> float:
        """Similarity from which a class with these representatives (r, d) accepts, going by a cohort (m, d) of other things."""
        sims = (cohort @ representatives.astype(np.float64).T).max(axis=1)  # (m,)
        nearest = nearest_of_cohort(sims, self.competing_share)
        bound = nearest + self.above_cohort * (1 - nearest)
        return round(min(max(bound, self.threshold_floor), self.threshold_ceiling), 6)

    def threshold_among(self, threshold: float, classes: int) -> float:
        """A computed threshold where so many classes compete: each must accept fewer, for all together to accept as few."""
        competition = self.above_cohort_log_classes * math.log(max(classes, CALIBRATED_CLASSES) / CALIBRATED_CLASSES)
        raised = threshold + competition * (1 - threshold) / (1 - self.above_cohort)
        return round(max(threshold, min(raised, self.threshold_ceiling)), 6)

    def reference_among(self, threshold: float, classes: int) -> float:
        """The similarity from which a class with this computed threshold counts its probability, where so many compete.

        A threshold is drawn by the few of a cohort that come nearest to a class. That bounds its false accepts, but says less of
        how alike its own pictures will be: so in the order of candidates it counts only in part (docs/adr/0017).
        """
        drawn = self.typical_threshold + self.threshold_share * (threshold - self.typical_threshold)
        return self.threshold_among(drawn, classes)

    def log_odds(self, similarity: float, *, reference: float, examples: int) -> float:
        """That the picture is of the class, in a world where it may be of nothing enrolled."""
        return self._slope_at(examples) * (similarity - reference) + self.offset + self.offset_log_examples * _log(examples)

    def _slope_at(self, examples: int) -> float:
        return self.slope + self.slope_log_examples * _log(examples)


def probability_of(log_odds: float) -> float:
    # Written with tanh, the logistic function cannot overflow.
    return 0.5 + 0.5 * math.tanh(0.5 * log_odds)


def nearest_of_cohort(similarities: NDArray[np.float64], share: float) -> float:
    """The mean of the highest `share` of a cohort's similarities (m,) to a class, or to a picture."""
    count = max(1, round(share * len(similarities)))
    return float(np.sort(similarities)[-count:].mean())


def calibration_from_json(data: object) -> Calibration:
    """The inverse of `dataclasses.asdict`. ValueError for a missing, unknown or non-finite entry, naming it."""
    numbers = dict(_object(data, path="calibration"))
    proofs = _object(numbers.pop("proof", None), path="calibration.proof")
    limits = _object(numbers.pop("warnings", None), path="calibration.warnings")
    _check_numbers(numbers, {field.name for field in fields(Calibration)} - {"proof", "warnings"}, path="calibration")
    _check_numbers(proofs, {field.name for field in fields(ProofCalibration)}, path="calibration.proof")
    _check_numbers(limits, {field.name for field in fields(WarningLimits)}, path="calibration.warnings")
    return Calibration(**numbers, proof=ProofCalibration(**proofs), warnings=WarningLimits(**limits))


def region_calibration_from_json(data: object) -> RegionCalibration:
    """As `calibration_from_json`."""
    path = "detector.calibration"
    numbers = _object(data, path=path)
    _check_numbers(numbers, {field.name for field in fields(RegionCalibration)}, path=path)
    try:
        return RegionCalibration(**numbers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


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


def _ln(probability: float) -> float:
    return math.log(max(probability, LEAST_PROBABILITY))


def _log(examples: int) -> float:
    return math.log(min(max(examples, 1), MOST_EXAMPLES_CALIBRATED))

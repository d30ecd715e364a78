"""How classes are scored from embeddings: the plain rule that every arm is measured by, and the one that a model set serves with.

A rule enrols the supports of an episode and gives back what scores queries; the highest score is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from app.domain.calibration import Calibration, probability_of
from app.domain.model_set import ModelSet
from app.domain.representatives import Synthesize, moved, no_synthesis, representatives_of

Scores = Callable[[np.ndarray], np.ndarray]  # queries (q, d), unit length -> scores (q, ways)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., d) of length 1."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


class Rule(Protocol):
    def enrol(self, vectors: np.ndarray, shown: np.ndarray) -> Scores:
        """Vectors (n, d) of unit length and which of them are shown (ways, shots) -> what scores queries."""
        ...


class NearestMean:
    """Cosine to the mean of the supports."""

    def enrol(self, vectors: np.ndarray, shown: np.ndarray) -> Scores:
        means = unit(vectors[shown].mean(1))  # (ways, shots, d) -> (ways, d)
        return lambda queries: queries @ means.T.astype(queries.dtype)


class Served:
    """Class models, thresholds and log-odds of the domain: what the service says by the look alone, without a proof of print.

    `decision.rank` orders by the same log-odds; here they are computed for all queries of an episode at once.
    """

    def __init__(self, model_set: ModelSet, synthesize: Synthesize = no_synthesis) -> None:
        self._synthesize, self._real_share = synthesize, model_set.real_share
        self._calibration: Calibration = model_set.calibration
        self._cohort = model_set.cohort
        self._models: dict[tuple[int, ...], tuple[np.ndarray, float]] = {}

    def enrol(self, vectors: np.ndarray, shown: np.ndarray) -> Scores:
        ways, shots = shown.shape
        models = [self._model_of(vectors, tuple(sorted(positions))) for positions in shown.tolist()]
        representatives = np.concatenate([representatives for representatives, _ in models])  # (ways * r, d)
        references = np.array([self._calibration.reference_among(threshold, ways) for _, threshold in models])

        def scores(queries: np.ndarray) -> np.ndarray:
            sims = (queries @ representatives.T).reshape(len(queries), ways, -1).max(2)
            # The law is linear, so that it takes whole arrays as it takes numbers.
            return self._calibration.log_odds(sims, reference=references, examples=shots)  # type: ignore[arg-type,return-value]

        return scores

    def _model_of(self, vectors: np.ndarray, shown: tuple[int, ...]) -> tuple[np.ndarray, float]:
        """Representatives (r, d) and threshold. With one shot the same few supports come again in every episode."""
        if shown not in self._models:
            support = vectors[list(shown)].astype(np.float32)
            representatives = representatives_of(moved(support, self._synthesize(support, 0), self._real_share))
            self._models[shown] = representatives, self._calibration.threshold_of(representatives, self._cohort)
        return self._models[shown]


class Moved:
    """Nearest mean of supports, each moved first towards the mean of what a synthesizer makes of it."""

    def __init__(self, synthesize: Synthesize, real_share: float) -> None:
        self._synthesize, self._real_share = synthesize, real_share

    def enrol(self, vectors: np.ndarray, shown: np.ndarray) -> Scores:
        support = vectors[shown.ravel()].astype(np.float32)
        nearer = moved(support, self._synthesize(support, 0), self._real_share)
        return NearestMean().enrol(nearer, np.arange(len(nearer)).reshape(shown.shape))


def probabilities_of(log_odds: np.ndarray) -> np.ndarray:
    """Log-odds (n,) -> probabilities (n,), by the domain's function."""
    return np.array([probability_of(one) for one in log_odds.tolist()])

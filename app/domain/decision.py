"""Similarities of classes -> candidates with probability and evidence -> match, doubtful or unknown, and the reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.domain.calibration import Calibration
from app.domain.gallery import similarity_of
from app.domain.values import Candidate, ClassState, Evidence, Example, FloatArray, Outcome, Reason

MOST_EVIDENCE = 3  # examples shown for a candidate; a person looks at one or two


def rank(scored: Sequence[tuple[ClassState, float]], calibration: Calibration) -> list[Candidate]:
    """Classes and their similarities to a picture -> candidates, most probable first, without evidence yet."""
    candidates = [_candidate_of(state, similarity, calibration) for state, similarity in scored]
    return sorted(candidates, key=lambda candidate: (-candidate.probability, -candidate.similarity, candidate.class_name))


def decide(candidates: Sequence[Candidate], calibration: Calibration) -> tuple[Outcome, str | None, Reason | None]:
    """Ranked candidates -> outcome, the decision on a match, the reason where there is none."""
    if not candidates:
        return Outcome.UNKNOWN, None, Reason.NO_CLASSES
    accepted = [candidate for candidate in candidates if candidate.accepted]
    if not accepted:
        is_near = any(candidate.similarity >= candidate.threshold - calibration.doubtful_margin for candidate in candidates)
        return Outcome.DOUBTFUL if is_near else Outcome.UNKNOWN, None, Reason.BELOW_THRESHOLD
    best, *others = accepted
    # In similarity, not probability: close to 1 probabilities crowd together however far apart the classes are. So the rival is
    # not just the next in rank: it is any that lies less than the margin behind the best, or is more similar than that.
    if any(best.similarity - other.similarity < calibration.ambiguous_margin for other in others):
        return Outcome.DOUBTFUL, None, Reason.AMBIGUOUS
    return Outcome.MATCH, best.class_name, None


def evidence_of(query: FloatArray, examples: Sequence[Example]) -> tuple[Evidence, ...]:
    """The examples of a class, one or more, nearest to a query (d,), nearest first."""
    sims = np.stack([example.embedding for example in examples]) @ query  # (k,)
    nearest = [examples[position] for position in np.argsort(-sims, kind="stable")[:MOST_EVIDENCE]]
    evidence = [Evidence(example.id, similarity_of(query, example.embedding[np.newaxis])) for example in nearest]
    return tuple(sorted(evidence, key=lambda shown: (-shown.similarity, shown.example_id)))


def _candidate_of(state: ClassState, similarity: float, calibration: Calibration) -> Candidate:
    if state.model is None or state.threshold is None:
        raise ValueError(f"class {state.name!r} has no class model and cannot be a candidate")
    return Candidate(
        class_name=state.name,
        similarity=similarity,
        # From the computed threshold: what a user asks of a class does not change what its similarity means.
        probability=calibration.probability(similarity, threshold=state.model.threshold, examples=len(state.examples)),
        accepted=similarity >= state.threshold,
        threshold=state.threshold,
        evidence=(),
    )

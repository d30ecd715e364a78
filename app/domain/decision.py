"""Similarities of classes, proofs of print -> candidates with probability and evidence -> match, doubtful or unknown, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.domain.calibration import Calibration, probability_of
from app.domain.gallery import similarity_of
from app.domain.values import Box, Candidate, ClassState, Evidence, Example, FloatArray, Outcome, Reason, Verified
from app.domain.verification import Finds, Found, Proof, overlap

MOST_EVIDENCE = 3  # examples shown for a candidate; a person looks at one or two
SAME_PLACE = 0.3  # overlap of two quads, over their union, from which they speak of one thing


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate without evidence yet, and what decided its place."""

    candidate: Candidate
    log_odds: float  # of the probability: it still tells apart where probabilities have all come to 1
    found: tuple[Found, ...]  # strongest proof first
    strength: float  # of that; 0 without any
    proved: bool  # strong enough to be accepted by that alone


def rank(scored: Sequence[tuple[ClassState, float]], finds: Finds, calibration: Calibration, *, classes: int) -> list[Ranked]:
    """Classes with their similarities to a picture, and what was found of their print -> candidates, most probable first.

    `classes` is the number of all that competed, of which only the best are scored.
    """
    ranked = [_ranked(state, similarity, finds.get(state.name, ()), calibration, classes) for state, similarity in scored]
    return sorted(ranked, key=lambda one: (-one.log_odds, -one.candidate.similarity, one.candidate.class_name))


def decide(ranked: Sequence[Ranked], calibration: Calibration) -> tuple[Outcome, str | None, Reason | None]:
    """Ranked candidates -> outcome, the decision on a match, the reason where there is none."""
    if not ranked:
        return Outcome.UNKNOWN, None, Reason.NO_CLASSES
    accepted = [one for one in ranked if one.candidate.accepted]
    if not accepted:
        is_near = any(_is_near(one, calibration) for one in ranked)
        return Outcome.DOUBTFUL if is_near else Outcome.UNKNOWN, None, Reason.BELOW_THRESHOLD
    best, *others = accepted
    if any(_rivals(best, other, calibration) for other in others):
        return Outcome.DOUBTFUL, None, Reason.AMBIGUOUS
    return Outcome.MATCH, best.candidate.class_name, None


def _is_near(one: Ranked, calibration: Calibration) -> bool:
    candidate = one.candidate
    nearly_alike = candidate.similarity >= candidate.threshold - calibration.doubtful_margin
    return nearly_alike or one.strength >= calibration.proof.doubtful_line


def _rivals(best: Ranked, other: Ranked, calibration: Calibration) -> bool:
    """Whether a second accepted class cannot be told from the best."""
    if best.proved and not other.proved:
        return False  # a proof decides between looks that are alike
    if best.proved:
        in_one_place = overlap(best.found[0].proof.quad, other.found[0].proof.quad) > SAME_PLACE
        return in_one_place and best.log_odds - other.log_odds < calibration.proof.ambiguous_margin
    # In similarity, not probability: close to 1 probabilities crowd together however far apart the classes are. So the rival is
    # not just the next in rank: it is any that lies less than the margin behind the best, or is more similar than that.
    return other.proved or best.candidate.similarity - other.candidate.similarity < calibration.ambiguous_margin


def evidence_of(query: FloatArray, examples: Sequence[Example], found: Sequence[Found], region: Box) -> tuple[Evidence, ...]:
    """The examples of a class, one or more: those proved first, then those nearest to a query (d,). `region`: what was asked."""
    sims = np.stack([example.embedding for example in examples]) @ query  # (k,)
    proofs = {one.example.id: one.proof for one in found}
    proved = [one.example for one in found]
    nearest = [examples[position] for position in np.argsort(-sims, kind="stable")[: MOST_EVIDENCE + len(proved)]]
    shown = (proved + [example for example in nearest if example.id not in proofs])[:MOST_EVIDENCE]
    evidence = [
        Evidence(
            example.id,
            similarity_of(query, example.embedding[np.newaxis]),
            None if example.id not in proofs else verified_of(proofs[example.id], region),
        )
        for example in shown
    ]
    return tuple(sorted(evidence, key=_order_of_evidence))


def verified_of(proof: Proof, region: Box) -> Verified:
    """A proof in pixels of the upright picture, of which `region` was asked."""
    longest = max(region.width, region.height)
    corners = tuple((round(region.x + x * longest, 1), round(region.y + y * longest, 1)) for x, y in proof.quad.tolist())
    return Verified(proof.points, round(proof.coverage, 4), corners)


def _order_of_evidence(shown: Evidence) -> tuple[int, float, str]:
    return (-shown.verified.points if shown.verified else 0, -shown.similarity, shown.example_id)


def _ranked(state: ClassState, similarity: float, found: Sequence[Found], calibration: Calibration, classes: int) -> Ranked:
    if state.model is None:
        raise ValueError(f"class {state.name!r} has no class model and cannot be a candidate")
    computed = calibration.threshold_among(state.model.threshold, classes)
    threshold = computed if state.user_threshold is None else state.user_threshold
    # From the computed threshold: what a user asks of a class does not change what its similarity means.
    reference = calibration.reference_among(state.model.threshold, classes)
    log_odds = calibration.log_odds(similarity, reference=reference, examples=len(state.examples))
    strengths = {one.example.id: calibration.proof.strength(one) for one in found}
    by_strength = sorted(found, key=lambda one: (-strengths[one.example.id], one.example.id))
    strength = strengths[by_strength[0].example.id] if found else 0.0
    proved = bool(found) and strength >= calibration.proof.line
    if found:
        log_odds = max(log_odds, calibration.proof.log_odds(strength))
    return Ranked(
        candidate=Candidate(
            class_name=state.name,
            similarity=similarity,
            probability=probability_of(log_odds),
            accepted=proved or similarity >= threshold,
            threshold=threshold,
            evidence=(),
        ),
        log_odds=log_odds,
        found=tuple(by_strength),
        strength=strength,
        proved=proved,
    )

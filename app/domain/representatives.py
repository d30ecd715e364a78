"""Examples -> class model. The same examples and the same model set make the same bytes, in whatever order the examples came.

Each example is first moved towards what a synthesizer makes of it: other pictures of the class as they may look (delta-encoder,
Schwartz et al., NeurIPS 2018). Then a class is kept as its mean, the best single guess from a few photographs, and a few centres
of groups of its examples, which catch what averages away (front and back of a pack, two versions of a logo). In the space of a
detector, where there is one, it is kept as what that makes of its examples, or the centres of groups of that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from app.domain.gallery import DECIMALS
from app.domain.model_set import ModelSet
from app.domain.values import ClassModel, Example, FloatArray, HalfArray, no_regions

MOST_CENTRES = 3  # beside the mean; with more, the largest of many similarities is large by chance too: docs/experiments.md
MOST_REGIONS = 8  # of a class in the detector's space: two examples at three sizes are kept as they are
TOWARDS_MEAN = 0.3  # of its way that a centre is moved to the mean: one picture alone says less of a class than all do
CLUSTERING_ROUNDS = 10  # spherical k-means on a few dozen examples settles in fewer

DoubleArray = NDArray[np.float64]

Synthesize = Callable[[FloatArray, int], FloatArray]  # support (k, d), seed -> made of each (k, m, d); service/ports.py


def no_synthesis(support: FloatArray, seed: int) -> FloatArray:
    """Makes nothing of an example but itself."""
    return support[:, np.newaxis]


def fit_class(examples: Sequence[Example], *, model_set: ModelSet, synthesize: Synthesize) -> ClassModel:
    """The class model of one or more examples."""
    ordered = sorted(examples, key=lambda example: example.id)
    support = np.stack([example.embedding for example in ordered])  # (k, d)
    representatives = representatives_of(moved(support, synthesize(support, _seed_of(ordered)), model_set.real_share))
    return ClassModel(
        representatives=representatives,
        spread=_spread_of(ordered, support),
        threshold=model_set.calibration.threshold_of(representatives, model_set.cohort),
        provenance=model_set.provenance,
        regions=regions_of(ordered) if model_set.provenance.detector else no_regions(),
    )


def moved(support: FloatArray, made: FloatArray, real_share: float) -> FloatArray:
    """Examples (k, d) towards the mean of what was made of each (k, m, d): `real_share` of the example stays. Unit length."""
    examples = support.astype(np.float64)
    return np.asarray(_unit(real_share * examples + (1 - real_share) * made.astype(np.float64).mean(axis=1)), np.float32)


def representatives_of(support: FloatArray) -> FloatArray:
    """Examples (k, d), unit length -> representatives (r, d): their mean, and the centres of groups of two or more examples."""
    examples = support.astype(np.float64)
    mean = _unit(examples.mean(axis=0))
    if len(examples) == 1:
        return mean[np.newaxis].astype(np.float32)  # the example again would add nothing
    centres = examples if len(examples) <= MOST_CENTRES else _centres(examples, mean, MOST_CENTRES)
    nearer = _unit((1 - TOWARDS_MEAN) * centres + TOWARDS_MEAN * mean)
    return np.concatenate([mean[np.newaxis], nearer]).astype(np.float32)


def regions_of(examples: Sequence[Example]) -> HalfArray:
    """Representatives (r, e) in the detector's space, r from 0 to 8, of examples in the order of their ids."""
    known = [example.regions for example in examples if len(example.regions)]
    if not known:
        return no_regions()
    regions = np.concatenate(known)
    if len(regions) <= MOST_REGIONS:
        return regions
    units = _unit(regions.astype(np.float64))
    return _centres(units, _unit(units.mean(axis=0)), MOST_REGIONS).astype(np.float16)


def similarities_to_rest(support: FloatArray, members: slice) -> list[float]:
    """How each of `members` of k >= 2 examples (k, d) fits the class without it: by the nearest other, or by the others' mean."""
    examples = support.astype(np.float64)
    asked = examples[members]  # (n, d)
    sims = asked @ examples.T  # (n, k)
    own = np.arange(len(examples))[members]
    sims[np.arange(len(asked)), own] = -1.0
    to_mean = (_means_of_others(examples)[members] * asked).sum(axis=1)
    return [round(float(sim), DECIMALS) for sim in np.maximum(sims.max(axis=1), to_mean)]


def _seed_of(ordered: Sequence[Example]) -> int:
    digest = hashlib.sha256("".join(example.id for example in ordered).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _spread_of(ordered: Sequence[Example], support: FloatArray) -> float:
    """1 - similarity of an example to the mean of the others, on average; of a lone example, that of its views."""
    if len(ordered) == 1:
        return ordered[0].spread
    examples = support.astype(np.float64)
    return float(1.0 - (_means_of_others(examples) * examples).sum(axis=1).mean())


def _means_of_others(examples: DoubleArray) -> DoubleArray:
    return _unit(examples.sum(axis=0) - examples)  # (k, d)


def _centres(examples: DoubleArray, mean: DoubleArray, count: int) -> DoubleArray:
    """Spherical k-means from the farthest points: no random start, so no seed and no dependence on order. -> (count, d)"""
    centres = _farthest(examples, mean, count)
    for _ in range(CLUSTERING_ROUNDS):
        nearest = (examples @ centres.T).argmax(axis=1)  # (k,)
        clusters = [examples[nearest == centre] for centre in range(count)]
        # A centre that lost its last example stays where it was.
        centres = np.stack([_unit(own.mean(axis=0)) if len(own) else old for own, old in zip(clusters, centres, strict=True)])
    return centres


def _farthest(examples: DoubleArray, mean: DoubleArray, count: int) -> DoubleArray:
    """The example least similar to the mean, then one by one the least similar to all picked before. -> (count, d)"""
    picked = [examples[(examples @ mean).argmin()]]
    closest = examples @ picked[0]  # (k,) similarity to the nearest picked so far
    while len(picked) < count:
        picked.append(examples[closest.argmin()])
        closest = np.maximum(closest, examples @ picked[-1])
    return np.stack(picked)


def _unit(vectors: DoubleArray) -> DoubleArray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    # Opposite examples cancel to a mean of length 0, which then is similar to nothing.
    return np.asarray(vectors / np.maximum(norms, np.finfo(np.float64).tiny))

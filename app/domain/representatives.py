"""Examples -> class model. The same examples and the same model set make the same bytes, in whatever order the examples came.

A class is kept as its mean and some of its own pictures: the mean is the best single guess from a few photographs, the pictures
themselves catch what averages away (front and back of a pack, two versions of a logo).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from app.domain.gallery import DECIMALS
from app.domain.model_set import ModelSet
from app.domain.values import ClassModel, Example, FloatArray

MOST_REPRESENTATIVES = 8  # the mean and up to seven more; memory and search time per class grow with it
CLUSTERING_ROUNDS = 10  # spherical k-means on a few dozen examples settles in fewer

DoubleArray = NDArray[np.float64]

Synthesize = Callable[[FloatArray, int], FloatArray]  # support (k, d), seed -> synthetic (m, d); service/ports.py, Synthesizer


def no_synthesis(support: FloatArray, seed: int) -> FloatArray:
    """The identity: a class is what its examples are."""
    return np.empty((0, support.shape[1]), np.float32)


def fit_class(examples: Sequence[Example], *, model_set: ModelSet, synthesize: Synthesize) -> ClassModel:
    """The class model of one or more examples."""
    ordered = sorted(examples, key=lambda example: example.id)
    support = np.stack([example.embedding for example in ordered])  # (k, d)
    representatives = representatives_of(support, synthesize(support, _seed_of(ordered)))
    return ClassModel(
        representatives=representatives,
        spread=_spread_of(ordered, support),
        threshold=model_set.calibration.threshold_of(representatives, model_set.cohort),
        provenance=model_set.provenance,
    )


def representatives_of(support: FloatArray, synthetic: FloatArray) -> FloatArray:
    """Support (k, d) and synthetic embeddings (m, d), unit length -> representatives (r, d), the mean of all of them first.

    After the mean come the examples themselves while there are few, and the centres of clusters of them beyond.
    """
    examples = support.astype(np.float64)
    mean = _unit(np.concatenate([examples, synthetic.astype(np.float64)]).mean(axis=0))
    if len(examples) == 1 and len(synthetic) == 0:
        return mean[np.newaxis].astype(np.float32)  # the example again would add nothing
    more = examples if len(examples) < MOST_REPRESENTATIVES else _centres(examples, mean, MOST_REPRESENTATIVES - 1)
    return np.concatenate([mean[np.newaxis], more]).astype(np.float32)


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

"""RepMet's own rule: boxes of classes by the posterior alone, as the paper scores them (Karlinsky et al., CVPR 2019, section 3).

The service asks its embedding, too, and takes the posterior as evidence (docs/adr/0025); this is what it is measured against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.posterior import SAME_BOX, Regions, kept_boxes, nearest_classes
from app.domain.values import FloatArray

OBJECTNESS_SHARE = 0.5  # exponent of objectness beside the class's probability


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Boxes of classes, best first."""

    class_numbers: NDArray[np.int64]  # (s,) columns of the similarities
    regions: NDArray[np.int64]  # (s,) where each stands in the regions
    similarities: FloatArray  # (s,) cosine to the nearest representative
    scores: FloatArray  # (s,) from 0 to 1: of the class and of there being a thing


def probabilities_of(similarities: FloatArray, width: float) -> FloatArray:
    """max_j exp(-d_j^2 / (2 width^2)), as d^2 = 2 - 2 cos of unit vectors, of any shape."""
    return np.asarray(np.exp((similarities - 1) / (width * width)))


def see(regions: Regions, similarities: FloatArray, *, width: float, least: float = 0.0, most: int = 100) -> Seen:
    """The `most` best boxes of classes whose score is above `least`; of one class each thing once.

    `similarities` (m, classes) are those of each region, -inf to a class that is not asked about. `width` is the standard
    deviation of the Gaussians, as the network was trained with.
    """
    nearest = nearest_classes(similarities)
    rows = np.repeat(np.arange(len(nearest)), [len(numbers) for numbers in nearest])
    numbers = np.concatenate([np.empty(0, np.int64), *nearest])
    cosines = similarities[rows, numbers]
    scores = probabilities_of(cosines, width) * regions.objectness[rows] ** OBJECTNESS_SHARE
    kept = [np.empty(0, np.int64)]
    for number in np.unique(numbers):
        own = np.flatnonzero((numbers == number) & (scores > least))
        kept.append(own[kept_boxes(regions.boxes[rows[own]], scores[own], largest_overlap=SAME_BOX, most=most)])
    found = np.concatenate(kept)
    found = found[np.argsort(-scores[found], kind="stable")][:most]
    return Seen(numbers[found], rows[found], cosines[found], scores[found])

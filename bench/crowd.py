"""Thousands of classes that nobody photographed: random unit vectors and points, committed like any other enrolment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.domain.changes import ExamplesAdded
from app.domain.model_set import ModelSet
from app.domain.values import Box, ClassModel, Example, Points
from app.service.ports import Store

CROP_BYTES = 30_000  # of a crop as enrolment stores it, so that the file has the size of a real one
POINTS = 300
DEVIATION = 12.0  # of a descriptor's numbers from those of its word: as far as those of real points lie


def fill(store: Store, model_set: ModelSet, count: int, words: NDArray[np.uint8]) -> None:
    for number in range(count):
        change = stranger(f"class {number:05}", model_set, words, seed=number)
        store.commit(change, expected=0, crops={change.examples[0].id: bytes(CROP_BYTES)})


def stranger(class_name: str, model_set: ModelSet, words: NDArray[np.uint8], *, seed: int) -> ExamplesAdded:
    """The enrolment of one example of a new class."""
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=model_set.cohort.shape[1]).astype(np.float32)
    vector /= np.linalg.norm(vector)
    points = points_about(words, rng)
    example = Example(id=f"{seed:032x}", box=Box(0, 0, 320, 320), embedding=vector, spread=0.1, points=points)
    model = ClassModel(representatives=vector[np.newaxis], spread=0.1, threshold=0.9, provenance=model_set.provenance)
    return ExamplesAdded(class_name, (example,), model)


def points_about(words: NDArray[np.uint8], rng: np.random.Generator) -> Points:
    chosen = rng.integers(len(words), size=POINTS)
    descriptors = words[chosen] + rng.normal(0, DEVIATION, (POINTS, words.shape[1]))
    places = rng.integers(0, 2**16, (POINTS, 4), dtype=np.uint16)
    return Points(places, descriptors.round().clip(0, 255).astype(np.uint8), chosen.astype(np.uint16))

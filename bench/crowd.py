"""Thousands of classes that nobody photographed: random unit vectors, committed like any other enrolment."""

from __future__ import annotations

import numpy as np

from app.domain.changes import ExamplesAdded
from app.domain.model_set import ModelSet
from app.domain.values import Box, ClassModel, Example
from app.service.ports import Store

CROP_BYTES = 30_000  # of a crop as enrolment stores it, so that the file has the size of a real one


def fill(store: Store, model_set: ModelSet, count: int) -> None:
    for number in range(count):
        change = stranger(f"class {number:05}", model_set, seed=number)
        store.commit(change, expected=0, crops={change.examples[0].id: bytes(CROP_BYTES)})


def stranger(class_name: str, model_set: ModelSet, *, seed: int) -> ExamplesAdded:
    """The enrolment of one example of a new class."""
    vector = np.random.default_rng(seed).normal(size=model_set.cohort.shape[1]).astype(np.float32)
    vector /= np.linalg.norm(vector)
    example = Example(id=f"{seed:032x}", box=Box(0, 0, 320, 320), embedding=vector, spread=0.1)
    model = ClassModel(representatives=vector[np.newaxis], spread=0.1, threshold=0.9, provenance=model_set.provenance)
    return ExamplesAdded(class_name, (example,), model)

"""Small values of the domain for tests: made in one line each, from vectors chosen by the test."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.domain.changes import ExamplesAdded
from app.domain.values import (
    DESCRIPTOR_SIZE,
    Box,
    ClassModel,
    ClassState,
    Example,
    FloatArray,
    HalfArray,
    Points,
    Provenance,
    no_regions,
)

NETWORKS = "networks of the tests"
DETECTOR = "detector of the tests"


def unit(vectors: ArrayLike) -> FloatArray:
    """The vectors, or the one vector, at unit length."""
    array = np.asarray(vectors, np.float32)
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def random_units(count: int, dim: int, *, seed: int = 0) -> FloatArray:
    return unit(np.random.default_rng(seed).standard_normal((count, dim)))


def random_points(count: int, *, seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    return Points(
        places=rng.integers(0, 2**16, (count, 4), dtype=np.uint16),
        descriptors=rng.integers(0, 2**8, (count, DESCRIPTOR_SIZE), dtype=np.uint8),
        words=rng.integers(0, 2**16, count, dtype=np.uint16),
    )


def root_sift(count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Descriptors (n, 128) as SIFT would have them, of length 512 to within a part in a thousand and about 0.64 similar."""
    shares = np.random.default_rng(seed).gamma(0.5, size=(count, DESCRIPTOR_SIZE))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.rint(512 * np.sqrt(shares)).clip(max=255).astype(np.uint8)


def random_regions(count: int, *, dim: int = 3, seed: int = 0) -> HalfArray:
    return random_units(count, dim, seed=seed).astype(np.float16) if count else no_regions()


def example_of(example_id: str, embedding: ArrayLike = (1, 0), *, points: int = 0, regions: int = 0) -> Example:
    return Example(
        example_id,
        Box(1, 2, 30, 40),
        unit(embedding),
        spread=0.125,
        points=random_points(points),
        regions=random_regions(regions, seed=points),
    )


def model_of(
    *representatives: ArrayLike, networks: str = NETWORKS, threshold: float = 0.6, regions: HalfArray | None = None
) -> ClassModel:
    """With `regions` it is one that the detector of the tests has made."""
    provenance = Provenance(networks, "calibration", "points", "" if regions is None else DETECTOR)
    known = no_regions() if regions is None else regions
    return ClassModel(unit(representatives), spread=0.25, threshold=threshold, provenance=provenance, regions=known)


def added(class_name: str, *embeddings: ArrayLike, ids: str = "e", networks: str = NETWORKS) -> ExamplesAdded:
    """Examples with these embeddings, `e0`, `e1`…, and a class model with one representative for each."""
    embeddings = embeddings or ((1, 0),)
    examples = tuple(example_of(f"{ids}{position}", embedding) for position, embedding in enumerate(embeddings))
    return ExamplesAdded(class_name, examples, model_of(*embeddings, networks=networks))


def class_of(name: str, *embeddings: ArrayLike, version: int = 1, networks: str = NETWORKS) -> ClassState:
    change = added(name, *embeddings, networks=networks)
    return ClassState(name, version, change.examples, change.model)


def plain(value: Any) -> Any:
    """A value as dictionaries, tuples and bytes, so that `==` compares arrays too, bit by bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return plain(asdict(value)) | {"type": type(value).__name__} if hasattr(value, "__dataclass_fields__") else value

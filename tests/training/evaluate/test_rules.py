"""The plain rule is the nearest mean; a model set's own is what the service decides by."""

from __future__ import annotations

import numpy as np
import pytest

from app.domain.decision import rank
from app.domain.model_set import ModelSet
from app.domain.representatives import fit_class, no_synthesis
from app.domain.values import ClassState
from tests.fakes import model_set_for_tests
from tests.values import example_of
from training.evaluate.rules import NearestMean, Served, probabilities_of, unit


def test_the_nearest_mean_scores_by_cosine() -> None:
    vectors = unit(np.array([[1, 0], [0, 1], [1, 1], [1, 0.2]]))
    scores = NearestMean().enrol(vectors, np.array([[0, 1], [3, 3]]))(vectors[[0]])
    # The mean of the axes lies at 45 degrees; (1, 0.2) at atan(0.2).
    assert scores == pytest.approx(np.array([[np.cos(np.pi / 4), np.cos(np.arctan(0.2))]]))


@pytest.fixture
def model_set() -> ModelSet:
    return model_set_for_tests()


@pytest.mark.parametrize("shots", [1, 3])
def test_the_own_rule_gives_the_probabilities_of_the_service(model_set: ModelSet, shots: int) -> None:
    rng = np.random.default_rng(0)
    dim, ways = model_set.cohort.shape[1], 4
    vectors = unit(rng.normal(size=(ways * shots + 6, dim)) + 0.5).astype(np.float32)
    shown, queries = np.arange(ways * shots).reshape(ways, shots), vectors[ways * shots :]
    found = probabilities_of(Served(model_set).enrol(vectors, shown)(queries).ravel()).reshape(6, ways)
    states = []  # what the service would have enrolled
    for name, positions in zip("abcd", shown, strict=True):
        examples = tuple(example_of(f"{position:03}", vectors[position]) for position in positions)
        states.append(ClassState(name, 1, examples, fit_class(examples, model_set=model_set, synthesize=no_synthesis)))
    for query, probabilities in zip(queries, found, strict=True):
        scored = [(state, float((state.model.representatives @ query).max())) for state in states if state.model]
        ranked = rank(scored, {}, model_set.calibration, classes=ways)
        by_name = {one.candidate.class_name: one.candidate.probability for one in ranked}
        assert [by_name[name] for name in "abcd"] == pytest.approx(probabilities.tolist(), abs=1e-5)

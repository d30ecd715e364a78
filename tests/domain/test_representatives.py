from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.domain.representatives import fit_class, moved, no_synthesis, representatives_of, similarities_to_rest
from app.domain.values import Box, ClassModel, Example, FloatArray
from tests.fakes import DIM, model_set_for_tests


def at(*degrees: float) -> FloatArray:
    """Unit vectors in the plane at these angles."""
    return np.array([[math.cos(math.radians(angle)), math.sin(math.radians(angle))] for angle in degrees], np.float32)


def examples_like(count: int, *, seed: int = 0) -> list[Example]:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    units = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return [Example(f"{number:032x}", Box(0, 0, 9, 9), unit, spread=0.125) for number, unit in enumerate(units)]


def fit(examples: list[Example]) -> ClassModel:
    return fit_class(examples, model_set=model_set_for_tests(), synthesize=no_synthesis)


def test_a_lone_example_is_its_own_only_representative() -> None:
    assert representatives_of(at(30)) == pytest.approx(at(30), abs=1e-7)


def test_the_mean_comes_first_and_then_the_examples_a_little_nearer_to_it() -> None:
    found = representatives_of(at(0, 60))
    assert found[0] == pytest.approx(at(30)[0], abs=1e-6)
    towards = 0.7 * at(0, 60) + 0.3 * at(30)
    assert found[1:] == pytest.approx(towards / np.linalg.norm(towards, axis=1, keepdims=True), abs=1e-6)


def test_opposite_examples_still_make_numbers() -> None:
    opposite = np.array([[1, 0], [-1, 0]], np.float32)  # their mean has no direction
    assert np.isfinite(representatives_of(opposite)).all()


def test_many_equal_examples_still_make_numbers() -> None:
    assert np.isfinite(representatives_of(at(*[30] * 20))).all()


def test_many_examples_are_represented_by_the_centres_of_their_groups() -> None:
    kinds = at(0, 120, 240)  # their mean is none of them
    found = representatives_of(at(*[angle + offset for angle in (0, 120, 240) for offset in (-2, 0, 2)]))
    assert len(found) == 4
    assert (kinds @ found[1:].T).max(axis=1) == pytest.approx(np.ones(3), abs=1e-3)


def test_an_example_is_moved_towards_the_mean_of_what_was_made_of_it() -> None:
    made = np.stack([at(50, 70), at(200, 200)])  # (examples, made, d)
    assert moved(at(0, 200), made, 1.0) == pytest.approx(at(0, 200), abs=1e-6)
    # Made at 50 and 70 is a mean at 60, a little shorter than 1, so halfway comes out short of 30 degrees.
    short = math.cos(math.radians(10))
    expected = math.degrees(math.atan2(short * math.sin(math.radians(60)), 1 + short * math.cos(math.radians(60))))
    assert moved(at(0, 200), made, 0.5) == pytest.approx(at(expected, 200), abs=1e-6)


def test_a_class_is_fitted_to_what_is_made_of_its_examples() -> None:
    examples, away = examples_like(2), examples_like(1, seed=9)[0].embedding

    def make_one_thing(support: FloatArray, seed: int) -> FloatArray:
        return np.broadcast_to(away, (len(support), 3, DIM))

    plain, half = model_set_for_tests(), replace(model_set_for_tests(), real_share=0.5)
    without, with_it = (fit_class(examples, model_set=one, synthesize=make_one_thing) for one in (plain, half))
    assert without.representatives.tobytes() == fit(examples).representatives.tobytes()
    assert (with_it.representatives @ away > without.representatives @ away + 0.1).all()


@given(count=some.integers(1, 20), seed=some.integers(0, 5))
def test_order_of_examples_does_not_matter(count: int, seed: int) -> None:
    examples = examples_like(count)
    shuffled = random.Random(seed).sample(examples, count)
    first, second = fit(examples), fit(shuffled)
    assert first.representatives.tobytes() == second.representatives.tobytes()
    assert (first.spread, first.threshold) == (second.spread, second.threshold)


def test_synthesis_is_seeded_by_the_examples_alone() -> None:
    seeds = []

    def spy(support: FloatArray, seed: int) -> FloatArray:
        seeds.append(seed)
        return no_synthesis(support, seed)

    examples = examples_like(3)
    for given_examples in (examples, examples[::-1], examples[:2]):
        fit_class(given_examples, model_set=model_set_for_tests(), synthesize=spy)
    assert seeds[0] == seeds[1] != seeds[2]


def test_spread_of_a_lone_example_is_that_of_its_views() -> None:
    assert fit(examples_like(1)).spread == 0.125


def test_spread_of_examples_is_how_far_each_is_from_the_others() -> None:
    examples = [
        Example(name, Box(0, 0, 9, 9), np.pad(vector, (0, DIM - 2)), spread=0.0)
        for name, vector in zip("abc", at(0, 0, 90), strict=True)
    ]
    # Two see a mean of others at 45 degrees; the third sees the two at 90 degrees.
    assert fit(examples).spread == pytest.approx(1 - 2 * math.cos(math.radians(45)) / 3, abs=1e-6)


def test_class_model_says_what_made_it() -> None:
    model_set = model_set_for_tests()
    model = fit(examples_like(2))
    assert model.provenance == model_set.provenance
    assert model.threshold == model_set.calibration.threshold_of(model.representatives, model_set.cohort)


def test_fit_to_the_class_without_oneself_is_by_the_nearest_or_by_the_mean() -> None:
    support = at(0, 40, 80)
    # 0 is nearest to 40; 40 lies in the mean of 0 and 80; 80 is nearest to 40.
    assert similarities_to_rest(support, slice(None)) == pytest.approx(
        [math.cos(math.radians(40)), 1.0, math.cos(math.radians(40))]
    )


def test_fit_is_asked_of_a_part_against_all_the_others() -> None:
    support = at(0, 40, 80)
    assert similarities_to_rest(support, slice(1, 3)) == similarities_to_rest(support, slice(None))[1:]


def seen_at(example_id: str, *degrees: float) -> Example:
    """An example whose regions lie at these angles of the plane."""
    return Example(example_id, Box(0, 0, 9, 9), np.eye(DIM, dtype=np.float32)[0], 0.1, regions=at(*degrees).astype(np.float16))


def seen_by(examples: list[Example], detector: str = "fake detector") -> ClassModel:
    return fit_class(examples, model_set=model_set_for_tests(detector=detector), synthesize=no_synthesis)


def test_a_few_examples_are_known_to_a_detector_as_it_saw_them() -> None:
    first, second = seen_at("a", 0, 10, 20), seen_at("b", 90, 100, 110)
    found = seen_by([second, first]).regions
    assert found.tolist() == np.concatenate([first.regions, second.regions]).tolist()


def test_many_examples_are_known_to_a_detector_by_eight_centres() -> None:
    groups = range(0, 360, 45)
    examples = [seen_at(f"{number}", *(angle + number for angle in groups)) for number in (-2, 0, 2)]
    found = seen_by(examples).regions
    assert (found.dtype, found.shape) == (np.float16, (8, 2))
    assert (at(*groups) @ found.T.astype(np.float32)).max(axis=1) == pytest.approx(np.ones(8), abs=2e-3)


def test_what_a_detector_knows_does_not_depend_on_the_order_of_examples() -> None:
    rng = np.random.default_rng(5)
    examples = [seen_at(f"{number}", *rng.uniform(0, 360, 3)) for number in range(20)]
    assert seen_by(examples).regions.tobytes() == seen_by(examples[::-1]).regions.tobytes()


def test_examples_that_no_detector_has_seen_add_nothing() -> None:
    unseen = Example("b", Box(0, 0, 9, 9), np.eye(DIM, dtype=np.float32)[0], 0.1)
    assert seen_by([seen_at("a", 0, 10), unseen]).regions.tolist() == at(0, 10).astype(np.float16).tolist()
    assert len(seen_by([unseen]).regions) == 0


def test_without_a_detector_a_class_model_is_what_it_was_before_there_were_any() -> None:
    without = seen_by([seen_at("a", 0, 10)], detector="")
    assert (without.provenance.detector, len(without.regions)) == ("", 0)

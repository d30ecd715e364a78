"""Arms are compared on the same episodes, what is shown is not asked, and nothing is chosen on what is reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from training import features  # noqa: E402
from training.delta_encoder import Base  # noqa: E402
from training.evaluate import feature_episodes, heads, spread, synthesis  # noqa: E402
from training.features import FeatureSet  # noqa: E402

SIZE, EACH = 8, 14


def toy(prefix: str, seed: int, *, classes: int, shown: int = 0, in_circle: bool = False) -> FeatureSet:
    """Classes around means, spread five times as far along one direction; `shown` of each for showing only, 0 for either."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(EACH)
    wide = torch.full((SIZE,), 0.3)
    wide[0] = 1.5
    vectors = torch.randn(classes, SIZE, generator=generator)[labels] + wide * torch.randn(len(labels), SIZE, generator=generator)
    first = (np.arange(len(labels)) % EACH < shown) if shown else np.ones(len(labels), bool)
    names = tuple(f"{prefix}/{number:03d}" for number in range(classes))
    views = np.repeat(vectors.numpy()[first][:, None], 2, 1)
    return FeatureSet(vectors.numpy(), labels.numpy(), names, first, ~first if shown else first, views, in_circle)


@pytest.mark.parametrize("shown", [0, 6])
def test_what_is_shown_is_not_asked(shown: int) -> None:
    found = toy("new", 0, classes=8, shown=shown)
    drawn = feature_episodes.draw(found, ways=3, shots=5, asked=9, episodes=50, seed=1)
    positions = torch.from_numpy(np.flatnonzero(found.may_show))[drawn.shown]  # (e, ways, k)
    for supports, queries, classes in zip(positions, drawn.asked, drawn.classes, strict=True):
        assert not set(supports.flatten().tolist()) & set(queries.flatten().tolist())
        assert (found.labels[supports.numpy()] == classes[:, None].numpy()).all()
        assert all(set(found.labels[own[own >= 0].numpy()]) == {int(label)} for own, label in zip(queries, classes, strict=True))
    assert not any(set(a.tolist()) & set(b.tolist()) for a, b in zip(drawn.classes, drawn.foreign, strict=True))


def test_neighbours_in_a_circle_are_not_asked() -> None:
    drawn = feature_episodes.draw(toy("new", 0, classes=4, in_circle=True), ways=2, shots=2, asked=15, episodes=50, seed=1)
    for shown, asked in zip(drawn.shown.flatten(0, 1), drawn.asked.flatten(0, 1), strict=True):
        near = {int(EACH * (row // EACH) + (row + step) % EACH) for row in shown for step in (-1, 0, 1)}
        assert not near & set(asked.tolist())
        assert (asked >= 0).sum() == EACH - 4


def test_a_list_is_a_function_of_its_seed() -> None:
    found = toy("new", 0, classes=6)
    lists = [feature_episodes.draw(found, ways=3, shots=2, asked=4, episodes=5, seed=seed).digest for seed in (1, 1, 2)]
    assert lists[0] == lists[1] != lists[2]


def test_right_answers_are_counted_by_class() -> None:
    found = toy("new", 0, classes=4)
    drawn = feature_episodes.draw(found, ways=2, shots=1, asked=3, episodes=4, seed=1)
    # A classifier that always says the first of its classes.
    values = feature_episodes.right_by_class(
        torch.zeros(4, 2, SIZE), torch.tensor([[1.0, 0.0]]).repeat(4, 1), torch.from_numpy(found.features), drawn
    )
    for episode, (first, second) in enumerate(drawn.classes.tolist()):
        assert values[episode, first] == 1
        assert values[episode, second] == 0
        assert np.isnan(values[episode]).sum() == 2


def knowledge() -> heads.Knowledge:
    found = toy("base", 3, classes=60)
    return heads.Knowledge(Base(torch.from_numpy(found.features), torch.from_numpy(found.labels)))


def test_the_discriminant_of_two_classes_is_fishers() -> None:
    means = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]])
    covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    weights, biases = heads.discriminant(means, torch.linalg.inv(covariance))
    # Fisher: the difference of the means through the inverse covariance; the border goes through the middle of the means.
    assert torch.allclose(weights[0, 0] - weights[0, 1], torch.linalg.solve(covariance, torch.tensor([1.0, 3.0])))
    middle = means[0].mean(0)
    assert weights[0, 0] @ middle + biases[0, 0] == pytest.approx(float(weights[0, 1] @ middle + biases[0, 1]), abs=1e-5)


def test_the_conditional_mean_is_that_of_gaussians() -> None:
    known = heads.Knowledge(Base(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)))
    known.__dict__.update(within=torch.tensor([[2.0]], dtype=torch.float64), between=torch.tensor([[3.0]], dtype=torch.float64))
    gain, precision = known.conditional(4, within=0.5, between=0.5)
    # Shrinking one number towards itself changes nothing: 3 / (3 + 2 / 4), and around it 2 + 3 - 3 * 3 / 3.5.
    assert gain.item() == pytest.approx(3 / 3.5)
    assert 1 / precision.item() == pytest.approx(5 - 9 / 3.5)


def test_what_is_seen_of_means_is_corrected_for_the_pictures_spread() -> None:
    found = knowledge()
    assert found.within.diagonal()[0] == pytest.approx(1.5**2, rel=0.15)
    assert found.between.diagonal().mean() == pytest.approx(1, rel=0.3)


def test_logistic_regression_is_at_its_minimum() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, labels = torch.randn(2, 12, 20, generator=generator), torch.arange(3).repeat_interleave(4)
    weights, _ = heads.logistic(vectors, labels, 3, 2.0, rounds=500)
    weights.requires_grad_()
    losses = [
        weights[e].square().sum() / 2 + 2 * torch.nn.functional.cross_entropy(vectors[e] @ weights[e].T, labels, reduction="sum")
        for e in range(2)
    ]
    slope = torch.autograd.grad(sum(losses), weights)[0]  # type: ignore[arg-type]
    assert slope.abs().max() < 1e-3


def test_ridge_is_least_squares_with_a_penalty() -> None:
    shots = torch.randn(1, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    weights, _ = heads.ridge(shots, 0.5)
    vectors, wanted = shots[0].flatten(0, 1), torch.tensor([[0.5, -0.5]] * 3 + [[-0.5, 0.5]] * 3)
    expected = torch.linalg.solve(vectors.T @ vectors + 0.5 * torch.eye(5), vectors.T @ wanted)
    assert torch.allclose(weights[0].T, expected, atol=1e-4)


def test_calibrated_samples_have_the_mean_and_covariance_of_the_method() -> None:
    generator = torch.Generator().manual_seed(0)
    near = torch.randn(2, 400, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5])
    features_of_base = torch.cat([near[0], near[1] + 1, torch.randn(400, 3, generator=generator) + 50])
    method = heads.DistributionCalibration(features_of_base, torch.arange(3).repeat_interleave(400))
    shot = torch.zeros(3)
    drawn = method.sample(shot, 40_000, generator)
    expected = (near[0].T.cov() + near[1].T.cov()) / 2 + 0.21  # on every entry
    assert torch.allclose(drawn.mean(0), (near[0].mean(0) + near[1].mean(0) + 1) / 3, atol=0.05)
    assert torch.allclose(drawn.T.cov(), expected, atol=0.12)


def write_toys(folder: Path) -> synthesis.Config:
    features.write(toy("base", 1, classes=60), folder / "base.npz")
    features.write(toy("new", 2, classes=12, shown=6), folder / "new.npz")
    return synthesis.Config(
        base=folder / "base.npz", novel=folder / "new.npz", out=folder / "out.json", runs=folder / "runs",
        episodes=60, choosing=40, sampled=4, asked=6, hidden=16, ways=4,
    )  # fmt: skip


def test_nothing_that_is_reported_changes_with_the_names_of_novel_classes_or_what_is_chosen_by_them(tmp_path: Path) -> None:
    config = write_toys(tmp_path)
    study, knowledge_of_base, _ = synthesis.study_of(config)
    arm = next(arm for arm in synthesis.baselines(knowledge_of_base) if arm.name == "shrunk tied LDA")
    chosen = [study.choose(arm, shots) for shots in (1, 2, 5)]
    noise = replace(study.reported_on, asked={name: torch.randn_like(value) for name, value in study.reported_on.asked.items()})
    assert [replace(study, reported_on=noise).choose(arm, shots) for shots in (1, 2, 5)] == chosen


def test_the_discriminant_gains_where_one_direction_is_noise(tmp_path: Path) -> None:
    study, knowledge_of_base, _ = synthesis.study_of(write_toys(tmp_path))
    arms = {arm.name: arm for arm in synthesis.baselines(knowledge_of_base)}
    assert study.report(arms["shrunk tied LDA"])["1"]["gain"]["low"] > 0
    assert study.report(arms[synthesis.REFERENCE])["1"]["gain"] == {"mean": 0, "low": 0, "high": 0}


def test_deltas_of_no_mean_do_not_move_a_prototype_and_a_weight_of_one_is_the_shots_alone(tmp_path: Path) -> None:
    study, knowledge_of_base, _ = synthesis.study_of(write_toys(tmp_path))
    world = study.reported_on
    world.made["far"] = -world.shots["cl2n"]
    arm = synthesis.made_means("far", knowledge_of_base)[0]
    plain = study.values(synthesis.by_angle("", "cl2n"), world, 1, None)
    assert np.array_equal(study.values(arm, world, 1, 1.0), plain, equal_nan=True)
    assert np.nanmean(study.values(arm, world, 1, 0.2)) < np.nanmean(plain) - 0.2


def test_a_hint_that_says_where_the_threshold_lies_lowers_false_accepts(tmp_path: Path) -> None:
    study, knowledge_of_base, _ = synthesis.study_of(write_toys(tmp_path))
    for world in (study.chosen_on, study.reported_on):
        world.alike["noise"] = torch.randn(len(world.shots["cl2n"]), generator=torch.Generator().manual_seed(0))
    asked = spread.asked_of(study.reported_on, knowledge_of_base, 1)
    shift = torch.randn(asked.classes.shape, generator=torch.Generator().manual_seed(0))
    told = replace(
        asked, hints={"cohort": asked.hints["cohort"], "told": shift},
        known=asked.known + shift[:, :, None, None], foreign=asked.foreign + shift[:, :, None, None],
    )  # fmt: skip
    ones = (np.ones(len(told.classes)), np.ones(told.class_count))

    def false_accepts(rule: spread.Rule, of: spread.Asked) -> float:
        return spread.figures(*spread.both_sorted(rule, of), 0.0, *ones)[0]

    untold = spread.Rule(spread.GLOBAL, (), torch.ones(1))
    assert false_accepts(spread.fit_rule("told", ("told",), told), told) < false_accepts(untold, told) - 0.1
    assert false_accepts(spread.fit_rule("told", ("told",), told), told) == pytest.approx(false_accepts(untold, asked), abs=0.05)


def test_figures_of_a_small_case_by_hand() -> None:
    known = spread.Sorted(np.linspace(1, 0.05, 20), np.zeros(20, int), np.zeros(20, int))
    foreign = spread.Sorted(np.array([0.72, 0.3, 0.12, 0.0]), np.zeros(4, int), np.ones(4, int))
    fpr, tpr, balanced = spread.figures(known, foreign, 0.5, np.ones(1), np.ones(2))
    # 19 of 20 known score 0.1 and more, as three of four foreign do; above the best foreign, 0.72, lie 0.75 to 1.
    assert fpr == 0.75
    assert tpr == pytest.approx(6 / 20)
    # At 0.5: known from 0.5 up, eleven; foreign, one.
    assert balanced == pytest.approx((11 / 20 + 3 / 4) / 2)


def test_the_whole_comparison_leaves_its_figures(tmp_path: Path) -> None:
    config = write_toys(tmp_path)
    flags = [word for name in ("base", "novel", "out", "runs", "episodes", "choosing", "sampled", "asked", "hidden", "ways")
             for word in (f"--{name}", str(getattr(config, name)))]  # fmt: skip
    synthesis.main([*flags, "--no-ablations", "--smoke"])
    found = json.loads(config.out.read_text())
    assert {"NCM", "CL2N", synthesis.REFERENCE, "Distribution Calibration", "residual, stored codes: mean"} <= found[
        "accuracy"
    ].keys()
    assert set(found["accuracy"]["paper, stored codes: mean"]) == {"1", "2", "5"}
    assert spread.GLOBAL in found["thresholds"]["1"]

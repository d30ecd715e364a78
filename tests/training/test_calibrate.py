"""Calibration finds what was put in, and the model set it writes is one that the service reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

import onnx  # noqa: E402

from app.adapters.model_set import read_model_set  # noqa: E402
from tests.training.packs import draw_training_packs, photograph, write_zip  # noqa: E402
from training import backbone, calibrate, discriminant, export, points  # noqa: E402


def measured(foreign: np.ndarray) -> calibrate.Measured:
    classes = foreign.shape[1]
    own = np.full((classes, calibrate.ASKED), 0.9)
    asked = np.full((classes, calibrate.ASKED, classes), 0.1)
    return calibrate.Measured(1, own, asked, foreign, np.full(classes, 0.2))


def test_what_is_fitted_lets_the_stated_share_of_foreign_pictures_pass() -> None:
    foreign = np.random.default_rng(0).uniform(0.2, 0.6, size=(5000, 20))  # from the cohort's nearest half the way to 1
    above_cohort = calibrate.fit_above_cohort([measured(foreign)], 0.01)
    assert above_cohort == pytest.approx(0.495, abs=0.001)  # the 99th percentile


def test_what_competition_adds_is_the_slope_of_the_tail_over_the_logarithm_of_the_rate() -> None:
    # Exponential tail: a rate fifty times lower lies ln(50) / 100 further up, in units of which 0.8 lead from the cohort to 1.
    foreign = 0.2 + np.random.default_rng(0).exponential(0.01, size=(100_000, 20))
    assert calibrate.fit_competition([measured(foreign)], 0.01) == pytest.approx(0.01 / 0.8, rel=0.03)


@pytest.mark.parametrize(("nearest", "ceiling"), [(0.2, calibrate.CEILING), (0.97, 1.0)])
def test_a_network_to_which_everything_is_alike_has_no_ceiling(nearest: float, ceiling: float) -> None:
    rng = np.random.default_rng(0)
    foreign = nearest + (1 - nearest) * rng.uniform(0, 0.5, size=(2000, 20))
    own = nearest + (1 - nearest) * rng.uniform(0.4, 1, size=(20, 1))
    asked = np.where(np.eye(20, dtype=bool)[:, np.newaxis], own[:, :, np.newaxis], nearest)
    measured = calibrate.Measured(1, own, asked, foreign, np.full(20, nearest))
    fitted = calibrate.fit([measured], calibrate.placeholder_model_set(np.eye(2)).calibration.warnings, target_far=0.01, seed=0)
    assert fitted.threshold_ceiling == ceiling
    assert (foreign >= calibrate.thresholds(measured, fitted)).mean() == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize(("own_above", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_a_threshold_counts_in_the_order_of_candidates_as_far_as_it_says_how_alike_a_class_is(
    own_above: float, share: float
) -> None:
    # The likeness of a class's own pictures goes with its threshold, or does not; that of others always is noise.
    rng = np.random.default_rng(0)
    nearest = np.linspace(0.2, 0.6, 50)
    asked = rng.normal(0.3, 0.05, size=(50, 40, 50)) + own_above * (nearest - 0.4)
    asked[np.arange(50), :, np.arange(50)] += 0.15
    each = calibrate.Measured(1, asked[np.arange(50), :, np.arange(50)], asked, asked.reshape(-1, 50), nearest)
    neutral = calibrate.placeholder_model_set(np.eye(2)).calibration
    assert calibrate.fit_threshold_share([each], replace(neutral, above_cohort=0.0, typical_threshold=0.4)) == share


def test_two_classes_compete_where_both_accept_though_neither_is_above_what_probability_is_counted_from() -> None:
    # Thresholds are the cohort's nearest, 0.2; references, all of the way to the typical threshold, lie at 0.9.
    asked = np.full((2, calibrate.ASKED, 2), 0.3)
    asked[np.arange(2), :, np.arange(2)] = 0.4
    foreign = np.tile([0.25, 0.1], (50, 1))  # only the first class accepts
    each = calibrate.Measured(1, asked[np.arange(2), :, np.arange(2)], asked, foreign, np.full(2, 0.2))
    drawn = {"above_cohort": 0.0, "threshold_floor": 0.0, "threshold_share": 0.0, "typical_threshold": 0.9}
    calibration = replace(calibrate.placeholder_model_set(np.eye(2)).calibration, **drawn)
    for _, margin, right, gap in calibrate.top_candidates([each], calibration, seed=0):
        assert (margin < 0).all()
        assert gap[right] == pytest.approx(0.1)
        assert np.isinf(gap[~right]).all()


def test_the_fitted_probability_is_the_one_that_drew_the_answers() -> None:
    rng = np.random.default_rng(0)
    found = []
    for shots in (1, 5):
        margin = rng.uniform(-0.5, 0.5, 20_000)
        log_odds = (8 + 2 * np.log(shots)) * margin + 0.5 - 0.25 * np.log(shots)
        right = rng.random(20_000) < 1 / (1 + np.exp(-log_odds))
        found.append((np.full(20_000, shots), margin, right, np.full(20_000, np.inf)))
    assert calibrate.fit_probability(found) == pytest.approx((8, 2, 0.5, -0.25), abs=0.3)


def test_probabilities_are_off_by_how_sure_they_are_of_what_is_wrong() -> None:
    """Half of what is asked is foreign and as alike as what is known: half of the answers are right, whatever is claimed."""
    asked = np.full((4, calibrate.ASKED, 4), 0.1)
    asked[np.arange(4), :, np.arange(4)] = 0.8
    foreign = np.tile([0.8, 0.1, 0.1, 0.1], (50, 1))
    each = calibrate.Measured(2, asked[np.arange(4), :, np.arange(4)], asked, foreign, np.full(4, 0.2))
    plain = {"slope": 10.0, "slope_log_examples": 0.0, "offset": 0.0, "offset_log_examples": 0.0, "above_cohort": 0.0}
    calibration = replace(
        calibrate.placeholder_model_set(np.eye(2)).calibration,
        **plain,
        threshold_floor=0.0,
        threshold_share=0.0,
        typical_threshold=0.8,
    )
    errors = {
        claimed: calibrate.calibration_errors([each], replace(calibration, offset=offset), seed=0)[2]
        for claimed, offset in ((0.5, 0.0), (0.9, float(np.log(9))))
    }
    assert errors == {0.5: pytest.approx(0.0, abs=1e-6), 0.9: pytest.approx(0.4, abs=1e-6)}


def test_the_ambiguous_margin_is_where_the_better_of_two_is_right_nine_times_in_ten() -> None:
    gap = np.linspace(0, 1, 10_000)
    right = np.random.default_rng(0).random(10_000) < np.minimum(1.0, 0.5 + gap)  # 0.9 at a gap of 0.4
    found = [(np.ones(10_000), np.zeros(10_000), right, gap)]
    assert calibrate.fit_ambiguous_margin(found) == pytest.approx(0.4, abs=0.15)


def test_a_calibrated_model_set_is_read_by_the_service(tmp_path: Path) -> None:
    packs, models = tmp_path / "packs", tmp_path / "models"
    draw_training_packs(packs)
    for pack in ("caltech101-dev", "imagenet-1-per-class"):
        write_zip(packs / pack / "images.zip", {f"train/x/{number}.webp": photograph(number) for number in range(8)})
    models.mkdir()
    torch.manual_seed(0)
    network = backbone.tiny_backbone().eval()
    pictures = torch.from_numpy(export.probe_pictures(64)).permute(0, 3, 1, 2).float()
    mean = discriminant.descriptions(network, pictures).mean(0)
    embedding = discriminant.Embedding(network, discriminant.Discriminant(mean, torch.eye(len(mean))))
    np.save(models / points.WORDS_FILE, np.zeros((2, 128), np.uint8))
    onnx.save(export.to_onnx(embedding, 64), str(models / "embedding.onnx"))

    calibrate.main(["--data", str(packs), "--models", str(models), "--cohort", "12", "--target-far", "0.1"])

    loaded = read_model_set(models)
    assert loaded.model_set.calibration.target_far == 0.1
    assert (loaded.points.most, loaded.points.words.shape) == (300, (2, 128))
    assert loaded.model_set.cohort.shape == (12, 16 + 32 + 2 * 48 + 192)

"""What is kept of the benchmark is what was trained, and it scores by supports that its delta-encoder moves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.training.packs import photograph  # noqa: E402
from training import benchmark, features, mini_imagenet, run  # noqa: E402
from training.evaluate import arms  # noqa: E402
from training.evaluate.rules import Moved, unit  # noqa: E402

WIDTH, SIZE = 8, 64


def draw_run(folder: Path, *, size: int = SIZE) -> benchmark.Config:
    """A network as a run leaves it, and features of three classes."""
    torch.manual_seed(0)
    state = mini_imagenet.ResNet10(width=WIDTH).state_dict()
    (folder / "run").mkdir()
    save_file({f"average.{name}": value.contiguous() for name, value in state.items()}, folder / "run" / "checkpoint.safetensors")
    (folder / "run" / "config.json").write_text(json.dumps({"sides_px": "32,48"}))
    labels, either = np.arange(3).repeat(6), np.ones(18, bool)
    vectors = np.random.default_rng(0).normal(size=(18, size)).astype(np.float32) + 2
    views = np.empty((18, 0, size), np.float32)
    features.write(
        features.FeatureSet(vectors, labels, ("a", "b", "c"), either, either, views, in_circle=False), folder / "base.npz"
    )
    return benchmark.Config(
        run=folder / "run", features=folder / "base.npz", out=folder / "kept", real_share=0.6, steps=2, episodes=2
    )


def test_the_network_is_kept_in_half_precision_with_the_mean_of_its_features(tmp_path: Path) -> None:
    config = draw_run(tmp_path)
    benchmark.keep(config)
    kept = load_file(config.out / benchmark.BACKBONE_FILE)
    mean = features.read(config.features).features.mean(0)
    assert kept["centre"].numpy() == pytest.approx(mean, abs=1e-6)
    assert {value.dtype for name, value in kept.items() if name != "centre"} == {torch.float16}
    assert run.read_metadata(config.out / benchmark.BACKBONE_FILE) == {"side_px": "48"}
    network, _ = mini_imagenet.read_network(config.out / benchmark.BACKBONE_FILE)
    trained, _ = mini_imagenet.read_network(config.run / "checkpoint.safetensors")
    picture = torch.rand(1, 3, 48, 48) * 255
    assert torch.allclose(network(picture), trained(picture), rtol=1e-2, atol=1e-3)


def test_the_folder_is_an_arm_whose_own_rule_moves_supports(tmp_path: Path) -> None:
    config = draw_run(tmp_path)
    benchmark.keep(config)
    opened = arms.arm_at(config.out)
    assert opened.embed([photograph(0)]).shape == (1, SIZE)
    assert isinstance(opened.own_rule, Moved)
    assert not opened.calibrated
    vectors = unit(np.random.default_rng(1).normal(size=(4, SIZE))).astype(np.float32)
    scores = opened.own_rule.enrol(vectors, np.array([[0, 1], [2, 3]]))(vectors)
    synthesis = benchmark.read_delta_encoder(config.out / benchmark.DELTA_FILE)
    assert synthesis.real_share == 0.6
    nearer = unit(0.6 * vectors + 0.4 * synthesis.synthesize(vectors, 0).mean(1))
    means = unit(nearer.reshape(2, 2, SIZE).mean(1))
    assert scores == pytest.approx(vectors @ means.T, abs=1e-5)


def test_without_a_delta_encoder_there_is_no_rule_but_the_nearest_mean(tmp_path: Path) -> None:
    config = draw_run(tmp_path)
    benchmark.keep(config)
    (config.out / benchmark.DELTA_FILE).unlink()
    assert arms.arm_at(config.out).own_rule is None


def test_features_of_another_network_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    config = draw_run(tmp_path, size=SIZE // 2)
    with pytest.raises(SystemExit, match="32 numbers a picture; the run's network gives 64"):
        benchmark.keep(config)
    assert not config.out.exists()


def test_another_file_is_no_delta_encoder(tmp_path: Path) -> None:
    config = draw_run(tmp_path)
    benchmark.keep(config)
    save_file({"bank": torch.zeros(3, 2)}, config.out / benchmark.DELTA_FILE)
    with pytest.raises(ValueError, match="does not hold a delta-encoder"):
        arms.arm_at(config.out)

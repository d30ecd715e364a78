"""The embedding network learns, and an interrupted run ends where an uninterrupted one does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import draw_training_packs  # noqa: E402
from training import backbone  # noqa: E402
from training.evaluate.arms import histogram  # noqa: E402


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    draw_training_packs(folder)
    return folder


def smoke(packs: Path, run: Path, *, steps: int = 6) -> list[dict[str, float]]:
    backbone.train(
        backbone.Config(data=packs, run=run, smoke=True, steps=steps, teach_weight=0, precision="fp32", device="cpu", batch=32)
    )
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_few_steps_lower_the_loss_and_leave_a_checkpoint_and_a_curve(packs: Path, tmp_path: Path) -> None:
    losses = [line["class"] for line in smoke(packs, tmp_path, steps=24) if "class" in line]
    assert sum(losses[-6:]) < sum(losses[:6])
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert (tmp_path / "curve.png").exists()


def test_an_interrupted_run_ends_with_the_losses_of_an_uninterrupted_one(
    packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = smoke(packs, tmp_path / "whole")
    draws = 0
    drawn = backbone.draw_batch

    def draw_until_killed(*arguments: object) -> object:
        nonlocal draws
        draws += 1
        if draws == 4:
            raise KeyboardInterrupt
        return drawn(*arguments)

    monkeypatch.setattr(backbone, "draw_batch", draw_until_killed)
    with pytest.raises(KeyboardInterrupt):
        smoke(packs, tmp_path / "cut")
    resumed = smoke(packs, tmp_path / "cut")

    assert [line["step"] for line in resumed if "class" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["class"] for line in resumed if "class" in line] == [line["class"] for line in whole if "class" in line]


def test_embeddings_have_unit_length_and_the_dense_map_a_sixteenth_of_the_side() -> None:
    network = backbone.tiny_backbone().eval()
    embedding, features, dense = network(torch.rand(2, 3, 64, 64) * 255)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-5)
    assert features.shape[0] == 2
    assert dense.shape[2:] == (4, 4)


def test_a_picture_of_one_colour_fills_one_place_of_the_colour_signature() -> None:
    signature = backbone.ColourSignature()
    signature.sharpness.data.fill_(100.0)
    black = torch.full((1, 3, 64, 64), -1.5)  # a corner of the palette
    shares = signature(black).square()[0, : len(signature.palette)]
    assert shares.max() > 0.99


def test_the_shape_signature_tells_upright_stripes_from_level_ones_and_ignores_contrast() -> None:
    signature = backbone.ShapeSignature()
    upright = torch.sin(torch.arange(64) * 0.8).expand(1, 3, 64, 64)
    level, faint = upright.transpose(2, 3), 0.5 * upright

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(signature(a), signature(b)))

    assert cosine(upright, faint) > 0.98
    assert cosine(upright, level) < 0.3


def test_cosface_without_margin_is_cross_entropy_over_scaled_cosines() -> None:
    embedding = torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    proxies, labels = torch.randn(3, 4), torch.tensor([0, 1, 2, 0, 1])
    cosines = torch.nn.functional.cosine_similarity(embedding[:, None], proxies[None], dim=2)
    expected = torch.nn.functional.cross_entropy(10 * cosines, labels)
    assert torch.allclose(backbone.cosface(embedding, proxies, labels, margin=0.0, scale=10.0), expected)
    assert backbone.cosface(embedding, proxies, labels, margin=0.2, scale=10.0) > expected


def test_supervised_contrast_of_two_tight_far_pairs_is_nearly_zero() -> None:
    embedding = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    assert backbone.supervised_contrast(embedding, torch.tensor([0, 0, 1, 1])) < 1e-6
    assert backbone.supervised_contrast(embedding, torch.tensor([0, 1, 0, 1])) > 10


def test_the_colour_histogram_is_the_one_that_pillow_would_make() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST)
    planes = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float()
    found = backbone.colour_histogram(planes)[0].numpy()
    assert float(found @ histogram([picture])[0]) > 0.95  # Pillow rounds hue and saturation to a byte first

"""The benchmark network learns from turned and upright pictures, and few-shot accuracy is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from safetensors.torch import save_file  # noqa: E402

from tests.training.packs import draw_training_packs  # noqa: E402
from training import mini_imagenet  # noqa: E402


def test_a_few_steps_leave_a_checkpoint_and_figures_on_the_validation_classes(tmp_path: Path) -> None:
    draw_training_packs(tmp_path / "packs")
    mini_imagenet.train(
        mini_imagenet.Config(data=tmp_path / "packs", run=tmp_path / "run", smoke=True, steps=3, precision="fp32", device="cpu")
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert {"val_1shot", "val_5shot"} <= lines[-1].keys()


def test_a_checkpoint_and_bare_weights_are_read_as_the_same_network(tmp_path: Path) -> None:
    network = mini_imagenet.ResNet10(width=8)
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights | {"centre": torch.ones(64)}, tmp_path / "weights.safetensors")
    save_file({f"average.{name}": tensor for name, tensor in weights.items()}, tmp_path / "checkpoint.safetensors")
    bare, centre = mini_imagenet.read_network(tmp_path / "weights.safetensors")
    averaged, nothing = mini_imagenet.read_network(tmp_path / "checkpoint.safetensors")
    picture = torch.rand(1, 3, 48, 48) * 255
    assert torch.equal(bare(picture), averaged(picture))
    assert (centre.tolist(), nothing.tolist()) == ([1.0] * 64, 0.0)
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="ResNet10"):
        mini_imagenet.read_network(tmp_path / "other.safetensors")


def test_sides_grow_with_progress() -> None:
    config = mini_imagenet.Config(sides_px="48,64,80", until="0.35,0.8")
    assert [mini_imagenet.side_at(config, progress) for progress in (0, 0.34, 0.35, 0.79, 0.8, 1)] == [48, 48, 64, 64, 80, 80]


def test_turned_pictures_stand_last_and_are_told_by_their_quarters() -> None:
    pictures = torch.rand(12, 3, 8, 8)
    found, quarters = mini_imagenet.turned(pictures, 0.5)
    assert quarters.tolist() == [0] * 6 + [1, 1, 2, 2, 3, 3]
    for picture, original, quarter in zip(found, pictures, quarters.tolist(), strict=True):
        assert torch.equal(picture, torch.rot90(original, quarter, (1, 2)))


def test_few_shot_accuracy_of_classes_far_apart_is_one_and_of_noise_is_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(8).repeat_interleave(40)
    far = torch.eye(8)[labels] + 0.01 * torch.randn(320, 8, generator=generator)
    noise = torch.randn(320, 8, generator=generator)
    assert mini_imagenet.few_shot(far, labels, ways=5, shots=1, episodes=20).min() == 1
    assert mini_imagenet.few_shot(noise, labels, ways=5, shots=1, episodes=200).mean() == pytest.approx(0.2, abs=0.03)


def test_features_of_a_picture_and_its_mirror_image_are_the_same() -> None:
    network = mini_imagenet.ResNet10(width=8).eval()
    pixels = torch.randint(0, 256, (2, 3, 84, 84), dtype=torch.uint8)
    found = mini_imagenet.features_of(network, pixels, 48)
    assert found.shape == (2, 64)
    assert torch.allclose(found, mini_imagenet.features_of(network, pixels.flip(3), 48), atol=1e-5)

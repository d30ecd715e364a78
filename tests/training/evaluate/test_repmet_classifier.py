"""Heads of the classification table learn classes apart, and only held-out pictures are asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import draw_training_packs  # noqa: E402
from training import data  # noqa: E402
from training.evaluate import intervals, repmet_classifier  # noqa: E402

CONFIG = repmet_classifier.Config(steps=24, classes=4, pictures=4, side_px=16, width=8, dim=8, device="cpu")


def pictures_of_classes(classes: int = 3, each: int = 20) -> data.PictureSet:
    """Each class is a colour, with noise."""
    inks = torch.tensor([(220, 30, 30), (30, 220, 30), (30, 30, 220)])[:classes]
    noise = torch.randint(-25, 26, (classes * each, 3, 84, 84), generator=torch.Generator().manual_seed(0))
    pixels = inks.repeat_interleave(each, 0)[:, :, None, None] + noise
    labels = torch.arange(classes).repeat_interleave(each)
    return data.PictureSet(pixels.to(torch.uint8), labels, torch.ones(len(labels)), tuple(f"c{n}" for n in range(classes)))


def test_a_tenth_of_each_class_is_held_out() -> None:
    learnt, asked = repmet_classifier.split(pictures_of_classes())
    assert (learnt.counts.tolist(), asked.counts.tolist()) == ([18] * 3, [2] * 3)
    assert torch.equal(asked.pixels[1], pictures_of_classes().pixels[19])


def test_every_head_learns_what_is_easy() -> None:
    learnt, asked = repmet_classifier.split(pictures_of_classes())
    found = repmet_classifier.evaluate(CONFIG, learnt, asked)
    assert list(found) == ["softmax", "prototypes", "triplets", "RepMet, 1 a class", "RepMet, 3 a class"]
    assert {name: values.mean() for name, values in found.items()} == pytest.approx(dict.fromkeys(found, 0.0))
    turned = replace(asked, labels=(asked.labels + 1) % 3)
    trained = repmet_classifier.train(CONFIG, learnt, lambda: repmet_classifier.RepMet(64, 8, 3, modes=3), "RepMet")
    assert [wrong.mean() for wrong in repmet_classifier.errors(CONFIG, *trained, learnt, turned)] == [1, 1]


def test_the_hardest_of_a_batch_make_the_loss_of_triplets() -> None:
    head = repmet_classifier.Triplets(2, 2)
    torch.nn.init.eye_(head.project.weight)
    torch.nn.init.zeros_(head.project.bias)
    angles = torch.deg2rad(torch.tensor([0.0, 40.0, 90.0, 100.0]))
    features, labels = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([0, 0, 1, 1])
    chord = lambda degrees: 2 * np.sin(np.deg2rad(degrees) / 2)  # noqa: E731
    losses = [max(0.0, chord(own) - chord(other) + 0.2) for own, other in ((40, 90), (40, 50), (10, 50), (10, 60))]
    assert float(head.loss(features, labels)) == pytest.approx(np.mean(losses), abs=1e-4)


def test_the_command_writes_errors_and_their_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 20)
    draw_training_packs(tmp_path)
    monkeypatch.setattr(repmet_classifier, "HELD_OUT", 3)
    flags = ["--data", str(tmp_path), "--steps", "1", "--classes", "2", "--pictures", "2", "--width", "8", "--device", "cpu"]
    repmet_classifier.main([*flags, "--out", str(tmp_path / "out.json")])
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["learnt"], result["asked"], result["classes"], result["times_scored"]) == (16, 8, 4, 1)
    assert result["errors"].keys() == {"softmax", "prototypes", "triplets", "RepMet, 1 a class", "RepMet, 3 a class"}
    assert "RepMet, 3 a class - softmax" in result["differences"]
    repmet_classifier.main([*flags, "--out", str(tmp_path / "none.json"), "--smoke"])
    assert not (tmp_path / "none.json").exists()

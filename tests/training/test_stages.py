"""The stages fit together: trained, discriminated, exported, served."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from safetensors.torch import load_file, save_file  # noqa: E402

from app.adapters.networks import OnnxEmbedder  # noqa: E402
from tests.training.packs import draw_training_packs, photograph, write_zip  # noqa: E402
from training import backbone, discriminant, export  # noqa: E402

SIDE_PX = "64"
TINY = {"dim": 16, "widths": (8, 16, 16), "blocks": 1, "features": 32}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder after a smoke run; the packs lie beside it."""
    draw_training_packs(tmp_path / "packs")
    write_zip(tmp_path / "packs" / "imagenet-1-per-class" / "images.zip", {f"train/x/{n}.webp": photograph(n) for n in range(4)})
    whole = backbone.Backbone
    monkeypatch.setattr(backbone, "Backbone", lambda **size: whole(**(size | TINY)))
    flags = {"--data": tmp_path / "packs", "--run": tmp_path / "run", "--teach-weight": 0, "--precision": "fp32", "--batch": 32}
    backbone.main(["--smoke", *(str(part) for flag in flags.items() for part in flag)])
    return tmp_path / "run"


def test_what_was_trained_is_what_the_service_opens(trained: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    discriminant.main(["--data", str(tmp_path / "packs"), "--run", str(trained), "--side-px", SIDE_PX])
    export.main(["--run", str(trained), "--models", str(models), "--side-px", SIDE_PX])

    served = OnnxEmbedder((models / "embedding.onnx").read_bytes())
    pictures = export.probe_pictures(served.side_px, count=2)
    with torch.no_grad():
        expected = export.Served(export.embedding_of(load_file(models / "embedding.safetensors")))(torch.from_numpy(pictures))[0]
    assert (expected.numpy() * served(pictures).embedding).sum(1) == pytest.approx([1, 1], abs=1e-3)
    backbone.load_weights(backbone.tiny_backbone(), load_file(models / "embedding.safetensors"))  # training can go on from it


def test_a_discriminant_of_other_weights_is_not_exported(trained: Path, tmp_path: Path) -> None:
    discriminant.main(["--data", str(tmp_path / "packs"), "--run", str(trained), "--side-px", SIDE_PX])
    later = load_file(trained / "checkpoint.safetensors")
    later["average.project.weight"] += 0.1
    save_file(later, trained / "checkpoint.safetensors")
    with pytest.raises(SystemExit, match="other weights"):
        export.main(["--run", str(trained), "--models", str(tmp_path / "models"), "--side-px", SIDE_PX])
    assert not (tmp_path / "models").exists()


def test_weights_of_another_network_are_refused(trained: Path) -> None:
    weights = backbone.averaged_weights(trained)
    del weights["stem.0.weight"]
    with pytest.raises(ValueError, match=r"lack \['stem.0.weight'\]"):
        backbone.from_weights(weights)

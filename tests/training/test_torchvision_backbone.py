"""A classification network of torchvision becomes an embedding that the service runs; its weights are named in the file."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from tests.torchvision_shim import import_torchvision

import_torchvision()

import onnx  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torchvision import models  # noqa: E402

from app.adapters.networks import OnnxEmbedder  # noqa: E402
from training import export, torchvision_backbone  # noqa: E402

SIDE_PX = 64


def export_to(folder: Path, name: str, weights: object = "none", *, side_px: int = SIDE_PX) -> Path:
    flags = {"--torchvision": name, "--weights": weights, "--models": folder, "--side-px": side_px}
    export.main([str(part) for flag in flags.items() for part in flag])
    return folder / "embedding.onnx"


def origin_of(path: Path) -> str:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}["weights"]


def planes(count: int, *, side_px: int = SIDE_PX, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(export.probe_pictures(side_px, count=count, seed=seed)).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize(
    ("name", "features", "channels"),
    [
        ("resnet18", 512, 512),
        ("mobilenet_v3_small", 1024, 576),
        ("regnet_y_400mf", 440, 440),
        ("shufflenet_v2_x0_5", 1024, 1024),
    ],
)
def test_the_service_can_run_a_network_without_its_classifier(tmp_path: Path, name: str, features: int, channels: int) -> None:
    embedder = OnnxEmbedder(export_to(tmp_path, name).read_bytes())
    found = embedder(export.probe_pictures(SIDE_PX, count=2))
    assert (embedder.side_px, found.embedding.shape, found.features.shape) == (SIDE_PX, (2, features), (2, features))
    assert found.dense.shape == (2, SIDE_PX // 32, SIDE_PX // 32, channels)
    assert np.allclose(np.linalg.norm(found.embedding, axis=1), 1, atol=1e-5)
    assert found.embedding[0] @ found.embedding[1] < 0.99  # two pictures are two things, also to a random start


@pytest.mark.parametrize(
    ("name", "channels", "rows"), [("convnext_tiny", 768, 7), ("efficientnet_b0", 1280, 7), ("swin_t", 768, 7)]
)
def test_the_dense_map_is_the_last_one_before_it_is_pooled(name: str, channels: int, rows: int) -> None:
    embedding, _ = torchvision_backbone.embedding_of(name, "none", 224)
    with torch.no_grad():
        _, features, dense = embedding(planes(1, side_px=224))
    assert (features.shape, dense.shape) == ((1, channels), (1, channels, rows, rows))


def test_tokens_lie_in_the_map_as_their_patches_lie_in_the_picture() -> None:
    embedding, _ = torchvision_backbone.embedding_of("vit_b_16", "none", 224)
    for layer in embedding.network.encoder.layers:  # what a token is made of then lies in its own patch alone
        torch.nn.init.zeros_(layer.self_attention.out_proj.weight)
    picture = planes(1, side_px=224)
    changed = picture.clone()
    changed[:, :, 16 * 3 : 16 * 4, 16 * 5 : 16 * 6] = 0
    with torch.no_grad():
        (_, features, dense), (_, _, other) = embedding(picture), embedding(changed)
    assert (features.shape, dense.shape) == ((1, 768), (1, 768, 14, 14))
    apart = (dense - other).abs().sum(1)[0]
    assert torch.nonzero(apart > 1e-4).tolist() == [[3, 5]]


def test_features_are_what_the_classifier_would_get_of_the_picture_as_torchvision_normalises_it(tmp_path: Path) -> None:
    whole = models.resnet18(weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    embedding, origin = torchvision_backbone.embedding_of("resnet18", str(tmp_path / "resnet18.pth"), SIDE_PX)
    pictures = planes(3)
    normalised = models.ResNet18_Weights.DEFAULT.transforms()  # resized and cut: here to what it is already
    normalised.resize_size = normalised.crop_size = [SIDE_PX]
    with torch.no_grad():
        assert torch.allclose(whole.fc(embedding(pictures)[1]), whole(normalised(pictures.byte())), rtol=1e-3, atol=1e-3)
    assert origin.startswith("resnet18.pth, SHA-256 ")


def test_weights_of_another_number_of_classes_are_taken_and_named_without_their_folder(tmp_path: Path) -> None:
    tuned = models.mobilenet_v3_small(weights=None, num_classes=7)
    save_file(tuned.state_dict(), tmp_path / "tuned.safetensors")
    path = export_to(tmp_path / "mine", "mobilenet_v3_small", tmp_path / "tuned.safetensors")
    assert origin_of(path).startswith("tuned.safetensors, SHA-256 ")
    assert str(tmp_path) not in str(onnx.load(path).metadata_props)


def test_weights_that_torchvision_fetches_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = models.resnet18(weights=None).state_dict()
    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", lambda *_, **__: fetched)
    assert origin_of(export_to(tmp_path, "resnet18", "imagenet")) == "torchvision's ResNet18_Weights.IMAGENET1K_V1"


def test_without_a_network_the_file_that_could_not_be_fetched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(SystemExit, match=r"--weights imagenet: https://\S+resnet18\S+ cannot be fetched .*no route to host"):
        export_to(tmp_path, "resnet18", "imagenet")


@pytest.mark.parametrize(
    ("name", "side_px", "said"),
    [
        ("resnet17", 64, "--torchvision resnet17: not one of .*resnet18"),
        ("squeezenet1_0", 64, "--torchvision squeezenet1_0: not one of"),
        ("vit_b_16", 96, "--side-px 96: vit_b_16 cannot take pictures of this side: .*224"),
        ("alexnet", 32, "--side-px 32: alexnet cannot take"),
        ("alexnet", 96, "--side-px 96: the network cannot be written as ONNX for this side"),
        ("resnet18", 4, "--side-px 4: the service takes networks of 8 pixels"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(tmp_path: Path, name: str, side_px: int, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        export_to(tmp_path / "mine", name, side_px=side_px)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("kind", ["missing", "no weights", "other network", "no tensors"])
def test_a_file_that_holds_no_weights_of_the_network_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    if kind == "no weights":
        path.write_text("hello")
    elif kind == "other network":
        torch.save(models.resnet34(weights=None).state_dict(), path)
    elif kind == "no tensors":
        torch.save([1, 2], path)
    said = "no state dict of resnet18" if kind in ("other network", "no tensors") else "nor a file of weights"
    with pytest.raises(SystemExit, match=f"--weights .*weights.pth: .*{said}"):
        export_to(tmp_path / "mine", "resnet18", path)


def test_a_torchvision_that_does_not_import_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(SystemExit, match="torchvision cannot be imported"):
        export_to(tmp_path, "resnet18")

"""What is served computes what was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from safetensors.torch import load_file  # noqa: E402

from app.adapters.networks import OnnxEmbedder  # noqa: E402
from training import backbone, discriminant, export  # noqa: E402

SIDE_PX = 64
DIMENSIONS = 24


@pytest.fixture(scope="module")
def embedding() -> discriminant.Embedding:
    torch.manual_seed(0)
    network = backbone.tiny_backbone().train()
    with torch.no_grad():  # norms that are not the identity
        network(torch.from_numpy(export.probe_pictures(SIDE_PX, seed=2)).permute(0, 3, 1, 2).float())
    embedding = discriminant.untrained(network).eval()
    size = len(embedding.discriminant.mean)
    embedding.discriminant.mean, embedding.discriminant.matrix = torch.randn(size) * 0.1, torch.randn(size, DIMENSIONS)
    return embedding


def test_onnx_agrees_with_torch_within_a_thousandth_of_cosine_distance(embedding: discriminant.Embedding) -> None:
    model = export.to_onnx(embedding, SIDE_PX)
    assert export.cosine_distance(embedding, model, export.probe_pictures(SIDE_PX, seed=1)) < export.WORST_COSINE_DISTANCE


def test_another_network_does_not_agree(embedding: discriminant.Embedding) -> None:
    torch.manual_seed(1)
    other = discriminant.Embedding(backbone.tiny_backbone(), embedding.discriminant).eval()
    assert export.cosine_distance(other, export.to_onnx(embedding, SIDE_PX), export.probe_pictures(SIDE_PX)) > 0.01


def test_the_service_can_run_what_is_exported(embedding: discriminant.Embedding) -> None:
    embedder = OnnxEmbedder(export.to_onnx(embedding, SIDE_PX).SerializeToString())
    pictures = export.probe_pictures(SIDE_PX, count=3)
    found = embedder(pictures)
    assert embedder.side_px == SIDE_PX
    assert found.embedding.shape == (3, DIMENSIONS)
    assert found.dense.shape == (3, 4, 4, 32)
    assert np.allclose(np.linalg.norm(found.embedding, axis=1), 1, atol=1e-5)


def test_weights_are_stored_in_half_the_bytes(embedding: discriminant.Embedding) -> None:
    weights = sum(parameter.numel() for parameter in embedding.state_dict().values())
    assert export.to_onnx(embedding, SIDE_PX).ByteSize() < 3 * weights + 30_000  # the graph itself takes some


def test_the_committed_weights_make_the_committed_onnx_file() -> None:
    models = Path(__file__).parents[2] / "models"
    embedding = export.embedding_of(load_file(models / "embedding.safetensors"))
    embedder = OnnxEmbedder((models / "embedding.onnx").read_bytes())
    pictures = export.probe_pictures(embedder.side_px, count=4)
    with torch.no_grad():
        expected = export.Served(embedding)(torch.from_numpy(pictures))[0].numpy()
    assert float((expected * embedder(pictures).embedding).sum(1).min()) > 1 - export.WORST_COSINE_DISTANCE

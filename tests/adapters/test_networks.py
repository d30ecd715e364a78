from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from app.adapters.model_set import read_model_set
from app.adapters.networks import OnnxEmbedder, open_embedder
from app.domain.gallery import similarity_of
from app.errors import CorruptModelSet, InvalidSettings
from tests.model_sets import write_model_set
from tests.tiny_network import CELL_PX, DIM, SIDE_PX, tiny_network

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
BLACK = np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8)


def test_sizes_come_from_the_network() -> None:
    embedder = OnnxEmbedder(tiny_network(side_px=64))
    assert (embedder.side_px, embedder.dim) == (64, DIM)


def test_outputs_are_those_of_the_graph() -> None:
    embedded = OnnxEmbedder(tiny_network())(BLACK)
    # On black only the bias of 1 is left, in every channel of every cell.
    assert embedded.features == pytest.approx(np.ones((1, DIM)))
    assert embedded.dense == pytest.approx(np.ones((1, SIDE_PX // CELL_PX, SIDE_PX // CELL_PX, DIM)))
    assert embedded.embedding == pytest.approx(np.full((1, DIM), DIM**-0.5))


@pytest.mark.parametrize("network", [b"", b"no network", tiny_network()[:-40]])
def test_a_file_that_is_no_network_is_refused(network: bytes) -> None:
    with pytest.raises(CorruptModelSet, match="cannot open"):
        OnnxEmbedder(network)


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(CorruptModelSet, match="not uint8"):
        OnnxEmbedder(tiny_network(input_type=TensorProto.FLOAT))


def test_a_model_set_opens_as_its_manifest_says(tmp_path: Path) -> None:
    embedder = open_embedder(read_model_set(write_model_set(tmp_path)), threads=1, device="cpu")
    assert (embedder.side_px, embedder.dim) == (SIDE_PX, DIM)


@pytest.mark.parametrize("wrong", [{"side_px": SIDE_PX * 2}, {"dim": DIM + 1}])
def test_a_network_of_other_sizes_than_its_manifest_says_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    loaded = replace(read_model_set(write_model_set(tmp_path)), **wrong)
    with pytest.raises(CorruptModelSet, match="its manifest says"):
        open_embedder(loaded, threads=1, device="cpu")


@pytest.mark.parametrize("scale", [2.0, 0.0, float("nan")])
def test_vectors_that_are_not_of_unit_length_never_leave(scale: float) -> None:
    embedder = OnnxEmbedder(tiny_network(scale=scale))
    with pytest.raises(CorruptModelSet, match="instead of 1"):
        embedder(BLACK)


@pytest.mark.parametrize("scale", [1.0008, 0.9992])
def test_vectors_of_half_precision_leave_at_unit_length(scale: float) -> None:
    embedding = OnnxEmbedder(tiny_network(scale=scale))(BLACK).embedding
    assert embedding.dtype == np.float32
    assert similarity_of(embedding[0], embedding) == 1.0


def test_auto_finds_something_to_run_on() -> None:
    assert OnnxEmbedder(tiny_network(), device="auto").device == ("cuda" if HAS_CUDA else "cpu")


@pytest.mark.skipif(HAS_CUDA, reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(InvalidSettings, match="FIRSTSIGHT_DEVICE"):
        OnnxEmbedder(tiny_network(), device="cuda")

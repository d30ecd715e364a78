from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from app.adapters.networks import OnnxEmbedder
from app.errors import CorruptModelSet, InvalidSettings
from tests.tiny_network import CELL_PX, DIM, SIDE_PX, tiny_network

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
BLACK = np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8)


def open_network(network: bytes, **options: Any) -> OnnxEmbedder:
    return OnnxEmbedder(network, **{"side_px": SIDE_PX, "dim": DIM, **options})


def test_outputs_are_those_of_the_graph() -> None:
    embedded = open_network(tiny_network())(BLACK)
    # On black only the bias of 1 is left, in every channel of every cell.
    assert embedded.features == pytest.approx(np.ones((1, DIM)))
    assert embedded.dense == pytest.approx(np.ones((1, SIDE_PX // CELL_PX, SIDE_PX // CELL_PX, DIM)))
    assert embedded.embedding == pytest.approx(np.full((1, DIM), DIM**-0.5))


@pytest.mark.parametrize("network", [b"", b"no network", tiny_network()[:-40]])
def test_a_file_that_is_no_network_is_refused(network: bytes) -> None:
    with pytest.raises(CorruptModelSet, match="cannot open"):
        open_network(network)


@pytest.mark.parametrize(
    ("network", "options"),
    [(tiny_network(input_type=TensorProto.FLOAT), {}), (tiny_network(side_px=64), {}), (tiny_network(), {"dim": DIM + 1})],
)
def test_a_network_of_another_kind_than_the_manifest_says_is_refused(network: bytes, options: dict[str, int]) -> None:
    with pytest.raises(CorruptModelSet, match="not"):
        open_network(network, **options)


@pytest.mark.parametrize("scale", [2.0, 0.0, float("nan")])
def test_vectors_that_are_not_of_unit_length_never_leave(scale: float) -> None:
    embedder = open_network(tiny_network(scale=scale))
    with pytest.raises(CorruptModelSet, match="instead of 1"):
        embedder(BLACK)


def test_auto_finds_something_to_run_on() -> None:
    assert open_network(tiny_network(), device="auto").device == ("cuda" if HAS_CUDA else "cpu")


@pytest.mark.skipif(HAS_CUDA, reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(InvalidSettings, match="FIRSTSIGHT_DEVICE"):
        open_network(tiny_network(), device="cuda")

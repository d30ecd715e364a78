from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from app.adapters.model_set import SynthesisParts, read_model_set
from app.adapters.networks import DeltaDecoder, OnnxEmbedder, open_embedder, open_synthesizer
from app.domain.gallery import similarity_of
from app.domain.representatives import fit_class, no_synthesis
from app.errors import CorruptModelSet, InvalidSettings
from tests.model_sets import some_deltas, write_model_set
from tests.tiny_network import CELL_PX, CODE, DIM, SIDE_PX, tiny_decoder, tiny_network
from tests.values import example_of

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


def support(count: int = 2) -> np.ndarray:
    vectors = np.random.default_rng(2).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def decoder_of(*, deltas: np.ndarray | None = None, made: int = 8, network: bytes | None = None) -> DeltaDecoder:
    return DeltaDecoder(SynthesisParts(network or tiny_decoder(), some_deltas() if deltas is None else deltas, made))


def test_each_delta_is_decoded_on_each_example() -> None:
    (delta,) = deltas = some_deltas(count=1)
    made = decoder_of(deltas=deltas)(support(), 0)
    directions = np.random.default_rng(1).normal(0, 0.5, (CODE, DIM)).astype(np.float32)
    expected = support() + delta @ directions
    assert made[:, 0] == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True), abs=1e-5)


@pytest.mark.parametrize(("examples", "each"), [(1, 8), (2, 4), (3, 2), (8, 1), (100, 1)])
def test_of_many_examples_fewer_pictures_each_are_made(examples: int, each: int) -> None:
    made = decoder_of()(support(examples), 0)
    assert made.shape == (examples, each, DIM)
    assert np.linalg.norm(made, axis=2) == pytest.approx(np.ones((examples, each)), abs=1e-5)


def test_no_more_is_made_than_there_are_deltas() -> None:
    assert decoder_of(made=50)(support(1), 0).shape == (1, 20, DIM)


def test_the_seed_draws_the_deltas() -> None:
    decode = decoder_of()
    assert decode(support(), 1).tobytes() == decode(support(), 1).tobytes()
    assert decode(support(), 1).tobytes() != decode(support(), 2).tobytes()


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (b"no network", "cannot open the delta decoder"),
        (tiny_network(), "not shots, codes and made"),
        (tiny_decoder(code=CODE + 1), "codes of 4 numbers"),
    ],
)
def test_a_decoder_of_another_kind_is_refused(network: bytes, complaint: str) -> None:
    with pytest.raises(CorruptModelSet, match=complaint):
        decoder_of(network=network)


def test_a_decoder_for_embeddings_of_another_size_is_refused(tmp_path: Path) -> None:
    write_model_set(tmp_path, deltas=some_deltas(), decoder=tiny_decoder(dim=DIM + 1))
    with pytest.raises(CorruptModelSet, match="embeddings of 7 numbers"):
        open_synthesizer(read_model_set(tmp_path))


@pytest.mark.parametrize("scale", [2.0, float("nan")])
def test_what_is_made_without_unit_length_never_leaves(scale: float) -> None:
    with pytest.raises(CorruptModelSet, match="delta decoder gave vectors of lengths"):
        decoder_of(network=tiny_decoder(scale=scale))(support(), 0)


def test_a_model_set_without_synthesis_makes_nothing(tmp_path: Path) -> None:
    assert open_synthesizer(read_model_set(write_model_set(tmp_path))) is no_synthesis


def test_two_banks_of_deltas_make_two_class_models_of_one_example(tmp_path: Path) -> None:
    models = []
    for seed in (0, 1):
        loaded = read_model_set(write_model_set(tmp_path / str(seed), deltas=some_deltas(seed)))
        examples = [example_of("a", support(1)[0])]
        models.append(fit_class(examples, model_set=loaded.model_set, synthesize=open_synthesizer(loaded)))
    first, second = models
    assert not np.allclose(first.representatives, second.representatives, atol=0.01)
    assert abs(first.threshold - second.threshold) > 0.001

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from app.adapters.model_set import DetectorParts, SynthesisParts, read_model_set
from app.adapters.networks import DeltaDecoder, OnnxDetector, OnnxEmbedder, open_detector, open_embedder, open_synthesizer
from app.domain.gallery import similarity_of
from app.domain.representatives import fit_class, no_synthesis
from app.errors import CorruptModelSet, InvalidSettings
from tests.model_sets import DETECTOR_SIDES_PX, some_deltas, write_model_set
from tests.tiny_network import CELL_PX, CODE, DIM, SIDE_PX, tiny_decoder, tiny_detector, tiny_network
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


def detector_of(
    network: bytes | None = None, sides_px: tuple[int, ...] = (64, 96), *, dim: int = 4, width: float = 0.5
) -> OnnxDetector:
    return OnnxDetector(DetectorParts(network or tiny_detector(), sides_px, dim, width))


def test_a_detector_looks_at_each_of_its_sides() -> None:
    detector = detector_of()
    assert detector.sides_px == (64, 96)
    # A line of a pixel is left in the square of 96, and blurred to two in that of 64.
    pixels = np.full((96, 96, 3), 128, np.uint8)
    pixels[40] = 0
    heights = [box[3] - box[1] for box in (detector(pixels, side_px).boxes[0] for side_px in (64, 96))]
    assert heights[1] == pytest.approx(1)
    assert heights[0] > 1.2


def test_what_a_detector_says_is_in_pixels_of_the_picture() -> None:
    pixels = np.full((60, 100, 3), 128, np.uint8)
    pixels[10:30, 20:40] = (230, 20, 20)
    regions = detector_of()(pixels, 96)
    assert regions.boxes[0] == pytest.approx([20, 10, 40, 30], abs=2)
    colour = np.array([102, -108, -108, 1]) / np.linalg.norm([102, -108, -108, 1])
    assert regions.embeddings[0] == pytest.approx(colour, abs=0.05)


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (b"no network", "cannot open the detector"),
        (tiny_network(), "not uint8"),
        (tiny_detector(with_boxes=False), r"not uint8 \(1, side, side, 3\) and objectness"),
        (tiny_detector("edge"), r"takes .*\[1, 'edge', 'edge', 3\]"),
        (tiny_detector(64), "takes 64 pixels a side and gives embeddings of 4 numbers; its manifest says 96 and 4"),
        (tiny_detector(width=0.4), "width 0.4; its manifest says 0.5"),
    ],
)
def test_a_detector_of_another_kind_is_refused(network: bytes, complaint: str) -> None:
    with pytest.raises(CorruptModelSet, match=complaint):
        detector_of(network)


def test_a_detector_of_another_size_than_its_manifest_says_is_refused() -> None:
    with pytest.raises(CorruptModelSet, match="its manifest says 64 and 5"):
        detector_of(dim=5)


def test_a_detector_may_leave_its_width_to_the_manifest() -> None:
    assert detector_of(tiny_detector(width=None), width=0.3).sides_px == (64, 96)


def test_a_detector_may_be_for_one_side_alone() -> None:
    assert len(detector_of(tiny_detector(64), (64,))(BLACK[0], 64)) == 3


@pytest.mark.parametrize("scale", [2.0, float("nan")])
def test_regions_without_unit_length_never_leave(scale: float) -> None:
    with pytest.raises(CorruptModelSet, match="detector gave vectors of lengths"):
        detector_of(tiny_detector(scale=scale))(BLACK[0], 64)


def test_a_model_set_opens_with_the_detector_it_has(tmp_path: Path) -> None:
    assert open_detector(read_model_set(write_model_set(tmp_path)), threads=1, device="cpu") is None
    detector = open_detector(read_model_set(write_model_set(tmp_path, detector=tiny_detector())), threads=1, device="cpu")
    assert detector is not None
    assert detector.sides_px == DETECTOR_SIDES_PX

"""What every embedder promises: the network of the tests and ONNX Runtime alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from app.adapters.networks import OnnxEmbedder
from app.domain.values import PixelArray
from app.service.ports import Embedder
from tests.fakes import FakeEmbedder
from tests.tiny_network import tiny_network


@pytest.fixture(params=["fake", "onnx", "onnx with two threads", "onnx on a GPU"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    match request.param:
        case "fake":
            return FakeEmbedder()
        case "onnx":
            return OnnxEmbedder(tiny_network())
        case "onnx on a GPU":
            embedder = OnnxEmbedder(tiny_network(), device="auto")
            if embedder.device != "cuda":
                pytest.skip("onnxruntime finds no GPU here")
            return embedder
        case _:
            return OnnxEmbedder(tiny_network(), threads=2)


def pictures_for(embedder: Embedder, count: int = 4) -> PixelArray:
    side_px = embedder.side_px
    return np.random.default_rng(1).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)


def test_every_picture_gets_a_unit_vector_its_features_and_a_map(embedder: Embedder) -> None:
    embedded = embedder(pictures_for(embedder, count=4))
    assert embedded.embedding.dtype == embedded.features.dtype == embedded.dense.dtype == np.float32
    assert embedded.embedding.ndim == embedded.features.ndim == 2
    assert embedded.dense.ndim == 4
    assert len(embedded.embedding) == len(embedded.features) == len(embedded.dense) == 4
    assert np.linalg.norm(embedded.embedding, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


def test_a_picture_is_the_same_bytes_in_any_batch(embedder: Embedder) -> None:
    pictures = pictures_for(embedder)
    together, reversed_order = embedder(pictures), embedder(pictures[::-1])
    for position, picture in enumerate(pictures):
        alone = embedder(picture[np.newaxis])
        for found in (together.embedding[position], reversed_order.embedding[-1 - position]):
            assert found.tobytes() == alone.embedding[0].tobytes()
        assert together.features[position].tobytes() == alone.features[0].tobytes()
        assert together.dense[position].tobytes() == alone.dense[0].tobytes()


def test_callers_side_by_side_get_what_each_would_get_alone(embedder: Embedder) -> None:
    pictures = pictures_for(embedder, count=16)
    with ThreadPoolExecutor(4) as pool:
        side_by_side = list(pool.map(lambda picture: embedder(picture[np.newaxis]).embedding[0], pictures))
    assert np.stack(side_by_side).tobytes() == embedder(pictures).embedding.tobytes()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_picture_has_an_embedding(embedder: Embedder, level: int) -> None:
    blank = np.full((1, embedder.side_px, embedder.side_px, 3), level, np.uint8)
    assert np.linalg.norm(embedder(blank).embedding) == pytest.approx(1, abs=1e-5)


def test_a_view_of_larger_pixels_embeds_like_its_copy(embedder: Embedder) -> None:
    wide = np.concatenate([pictures_for(embedder)] * 2, axis=2)
    view = wide[:, :, : embedder.side_px]
    assert embedder(view).embedding.tobytes() == embedder(view.copy()).embedding.tobytes()

from __future__ import annotations

import numpy as np
import pytest

from app.domain.values import Embeddings, PixelArray
from app.service.embed import CropEmbedder
from tests.fakes import SIDE_PX, FakeEmbedder, raw_codec
from tests.service.on_memory import GREEN, RED, drawing


class DirectionEmbedder:
    """Embeds a picture as the angle that its first pixel says, in degrees."""

    side_px = SIDE_PX

    def __call__(self, pictures: PixelArray) -> Embeddings:
        angles = np.radians(pictures[:, 0, 0, 0].astype(np.float64))
        embedding = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        return Embeddings(embedding=embedding, features=embedding, dense=pictures[:, :2, :2].astype(np.float32))


def views_of_angles(*degrees: int) -> PixelArray:
    return np.stack([np.full((SIDE_PX, SIDE_PX, 3), angle, np.uint8) for angle in degrees])


def test_views_are_squares_of_the_networks_side_the_whole_crop_first() -> None:
    embedder = CropEmbedder(codec=raw_codec(), embedder=FakeEmbedder(), view_shares=[0.5])
    views = embedder.views(drawing(RED, GREEN))
    assert views.shape == (6, SIDE_PX, SIDE_PX, 3)
    assert views[0].mean(axis=(0, 1)) == pytest.approx(np.mean([RED, GREEN], axis=0), abs=2)
    assert views[1].mean(axis=(0, 1)) == pytest.approx(RED, abs=2)  # the corner at the top left
    assert views[3].mean(axis=(0, 1)) == pytest.approx(GREEN, abs=2)  # and at the bottom left


def test_embedding_is_the_direction_of_the_mean_of_the_views() -> None:
    embedder = CropEmbedder(codec=raw_codec(), embedder=DirectionEmbedder(), view_shares=[])
    embedded = embedder.embed(views_of_angles(0, 60))
    assert embedded.embedding == pytest.approx(np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)]), abs=1e-6)
    assert embedded.spread == pytest.approx(1 - np.cos(np.pi / 6))  # both views are 30 degrees off


def test_views_that_agree_have_no_spread() -> None:
    embedder = CropEmbedder(codec=raw_codec(), embedder=DirectionEmbedder(), view_shares=[])
    assert embedder.embed(views_of_angles(20, 20, 20)).spread == pytest.approx(0, abs=1e-7)


def test_the_map_is_that_of_the_whole_crop() -> None:
    embedder = CropEmbedder(codec=raw_codec(), embedder=DirectionEmbedder(), view_shares=[])
    assert embedder.embed(views_of_angles(10, 20)).dense == pytest.approx(np.full((2, 2, 3), 10))

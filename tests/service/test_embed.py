from __future__ import annotations

import numpy as np
import pytest

from app.domain.regions import SHARES
from app.domain.values import Embeddings, PixelArray, no_regions
from app.service.embed import CropEmbedder, CropViews
from app.service.ports import Detector, Embedder
from tests.fakes import SIDE_PX, FakeDetector, FakeEmbedder, FakePointFinder, raw_codec
from tests.service.on_memory import GREEN, RED, drawing, printed
from tests.values import plain


class DirectionEmbedder:
    """Embeds a picture as the angle that its first pixel says, in degrees."""

    side_px = SIDE_PX

    def __call__(self, pictures: PixelArray) -> Embeddings:
        angles = np.radians(pictures[:, 0, 0, 0].astype(np.float64))
        embedding = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        return Embeddings(embedding=embedding, features=embedding, dense=pictures[:, :2, :2].astype(np.float32))


def crop_embedder(embedder: Embedder, *view_shares: float, detector: Detector | None = None) -> CropEmbedder:
    return CropEmbedder(
        codec=raw_codec(), embedder=embedder, find_points=FakePointFinder(), detector=detector, view_shares=view_shares
    )


def views_of_angles(*degrees: int) -> CropViews:
    views = np.stack([np.full((SIDE_PX, SIDE_PX, 3), angle, np.uint8) for angle in degrees])
    return CropViews(views[0], views)


def test_views_are_squares_of_the_networks_side_the_whole_crop_first() -> None:
    views = crop_embedder(FakeEmbedder(), 0.5).views(drawing(RED, GREEN)).views
    assert views.shape == (6, SIDE_PX, SIDE_PX, 3)
    assert views[0].mean(axis=(0, 1)) == pytest.approx(np.mean([RED, GREEN], axis=0), abs=2)
    assert views[1].mean(axis=(0, 1)) == pytest.approx(RED, abs=2)  # the corner at the top left
    assert views[3].mean(axis=(0, 1)) == pytest.approx(GREEN, abs=2)  # and at the bottom left


def test_embedding_is_the_direction_of_the_mean_of_the_views() -> None:
    embedded = crop_embedder(DirectionEmbedder()).embed(views_of_angles(0, 60))
    assert embedded.embedding == pytest.approx(np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)]), abs=1e-6)
    assert embedded.spread == pytest.approx(1 - np.cos(np.pi / 6))  # both views are 30 degrees off


def test_views_that_agree_have_no_spread() -> None:
    assert crop_embedder(DirectionEmbedder()).embed(views_of_angles(20, 20, 20)).spread == pytest.approx(0, abs=1e-7)


def test_the_map_is_that_of_the_whole_crop() -> None:
    assert crop_embedder(DirectionEmbedder()).embed(views_of_angles(10, 20)).dense == pytest.approx(np.full((2, 2, 3), 10))


def test_points_are_those_of_the_crop_as_large_as_it_is_stored() -> None:
    embedder = crop_embedder(FakeEmbedder(), 0.5)
    crop = printed(side_px=4 * SIDE_PX)
    found = embedder.embed(embedder.views(crop)).points
    assert len(found) > 0
    assert plain(found) == plain(FakePointFinder()(embedder.pixels(crop))) == plain(embedder.points(embedder.pixels(crop)))


def test_a_crop_without_print_has_no_points() -> None:
    embedder = crop_embedder(FakeEmbedder())
    assert len(embedder.embed(embedder.views(drawing(RED, GREEN))).points) == 0


def test_a_detector_is_shown_the_crop_alone_at_three_sizes() -> None:
    crop = drawing(RED)
    embedder = crop_embedder(FakeEmbedder(), detector=FakeDetector())
    found = embedder.regions(embedder.pixels(crop))
    assert (found.dtype, found.shape) == (np.float16, (len(SHARES), 4))
    direction = np.append(np.array(RED) - 128, 1)  # the mean colour against grey; the grain is a hundredth of it
    assert found @ (direction / np.linalg.norm(direction)) == pytest.approx(np.ones(len(SHARES)), abs=2e-3)


def test_without_a_detector_a_crop_has_no_regions() -> None:
    embedder = crop_embedder(FakeEmbedder())
    assert plain(embedder.regions(embedder.pixels(drawing(RED)))) == plain(no_regions())

"""SIFT on drawn print. What every finder of points promises: tests/contracts/test_point_finder.py."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.adapters.local_features import CELL_SHARE, GRID, SPARE, SiftPoints
from app.domain.model_set import PointSettings
from app.domain.values import PixelArray, Points
from app.domain.verification import AskedPoints, Proof, matches_of
from tests.values import plain, root_sift

WORDS = root_sift(32, seed=1)
find_points = SiftPoints(PointSettings(side_px=256, most=300, contrast=0.02, words=WORDS))


def squares(height: int, width: int, *, cell_px: int = 12, low: int = 0, high: int = 256) -> PixelArray:
    """Squares, each of a colour of its own."""
    cells = np.random.default_rng(0).integers(low, high, (-(-height // cell_px), -(-width // cell_px), 3), dtype=np.uint8)
    return cells.repeat(cell_px, axis=0).repeat(cell_px, axis=1)[:height, :width]


def grey(values: NDArray[np.generic]) -> PixelArray:
    return values.astype(np.uint8)[..., np.newaxis].repeat(3, axis=2)


PRINT = squares(240, 180)
FOUND = find_points(PRINT)
SAME_PX = 3.0


def places_px(points: Points, longest_px: int = 240) -> NDArray[np.float64]:
    return points.places[:, :2] / 65535 * longest_px


def matched(points: Points) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Points that are alike, of a picture and of PRINT."""
    return matches_of(points.descriptors.astype(np.float32) @ FOUND.descriptors.T.astype(np.float32))


def proved(points: Points) -> Proof:
    (proof,) = AskedPoints(points).proofs([FOUND], [(0.75, 1.0)])
    assert proof is not None
    return proof


def test_equal_pixels_have_equal_bytes_in_any_thread() -> None:
    pictures = [PRINT, PRINT[::-1], PRINT[:, ::-1]]
    alone = [plain(find_points(picture, side_px=128)) for picture in pictures]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda picture: plain(find_points(picture, side_px=128)), pictures * 4))
    assert found == alone * 4


def test_opencv_runs_in_the_thread_of_its_caller() -> None:
    assert cv2.getNumThreads() == 1


# Where (x, y) of PRINT is after so many quarter turns clockwise, and its corners: it is 180 wide and 240 high.
TURNS = {
    1: (lambda x, y: (240 - y, x), [[240, 0], [240, 180], [0, 180], [0, 0]]),
    2: (lambda x, y: (180 - x, 240 - y), [[180, 240], [0, 240], [0, 0], [180, 0]]),
    3: (lambda x, y: (y, 180 - x), [[0, 180], [0, 0], [240, 0], [240, 180]]),
}


@pytest.mark.parametrize("turns", TURNS)
def test_a_turned_picture_has_its_points_at_the_turned_places(turns: int) -> None:
    turn, corners = TURNS[turns]
    turned = find_points(np.rot90(PRINT, -turns))
    own, others = matched(turned)
    offsets = places_px(turned)[own] - np.column_stack(turn(*places_px(FOUND)[others].T))
    assert len(own) >= 100
    assert (np.linalg.norm(offsets, axis=1) < SAME_PX).mean() > 0.9
    angles = (turned.places[own, 3].astype(int) - turns * 65536 // 4 - FOUND.places[others, 3]) % 65536
    assert np.median(np.minimum(angles, 65536 - angles)) < 65536 / 360  # a degree
    np.testing.assert_allclose(240 * proved(turned).quad, corners, atol=1.5)


def test_a_picture_of_half_the_size_has_the_same_points() -> None:
    halved = PRINT.reshape(120, 2, 90, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    points = find_points(halved)
    own, others = matched(points)
    assert len(own) >= 100
    assert (np.linalg.norm(places_px(points)[own] - places_px(FOUND)[others], axis=1) < SAME_PX).mean() > 0.8
    assert np.median(points.places[own, 2] / FOUND.places[others, 2]) == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(240 * proved(points).quad, 240 * np.array([[0, 0], [0.75, 0], [0.75, 1], [0, 1]]), atol=1.5)


def test_print_in_a_larger_picture_is_proved_there() -> None:
    scene = np.full((360, 480, 3), 90, np.uint8)
    scene[60:300, 200:380] = PRINT
    quad = 480 * proved(find_points(scene, side_px=480)).quad
    np.testing.assert_allclose(quad, [[200, 60], [380, 60], [380, 300], [200, 300]], atol=1.5)


@pytest.mark.parametrize("blur_px", [3.0, 5.0])
def test_a_soft_photograph_proves_more_when_it_is_sharpened(blur_px: float) -> None:
    soft = np.asarray(cv2.GaussianBlur(PRINT, (0, 0), blur_px), np.uint8)
    plain, sharp = proved(find_points(soft)), proved(find_points(soft, sharpen=True))
    assert sharp.points > plain.points
    np.testing.assert_allclose(240 * sharp.quad, 240 * np.array([[0, 0], [0.75, 0], [0.75, 1], [0, 1]]), atol=2)


@pytest.mark.parametrize(
    "picture",
    [
        np.full((200, 300, 3), (200, 40, 30), np.uint8),
        np.full((8, 8, 3), 255, np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        squares(8, 8, cell_px=8),
        grey(np.tile(np.arange(200), (200, 1))),  # a ramp
    ],
)
def test_a_picture_without_print_has_no_points(picture: PixelArray) -> None:
    assert plain(find_points(picture)) == plain(Points.none())


@pytest.mark.parametrize("shape", [(8, 8), (8, 400), (400, 8), (1, 9)])
def test_tiny_and_narrow_pictures_are_looked_at_without_error(shape: tuple[int, int]) -> None:
    assert len(find_points(squares(*shape, cell_px=2))) <= 300


def test_what_a_call_asks_for_overrides_the_settings() -> None:
    as_set = SiftPoints(PointSettings(side_px=128, most=40, contrast=0.02, words=WORDS))
    assert (find_points.side_px, as_set.side_px) == (256, 128)
    assert plain(find_points(PRINT, side_px=128, most=40)) == plain(as_set(PRINT))
    assert len(as_set(PRINT)) == 40
    assert len(as_set(PRINT, most=70)) == 70


def test_the_larger_a_picture_is_looked_at_the_smaller_things_are_found() -> None:
    fine = squares(240, 180, cell_px=4)
    small, large = (find_points(fine, side_px=side_px) for side_px in (64, 256))
    assert len(large) > len(small)
    assert np.median(large.places[:, 2]) < np.median(small.places[:, 2]) / 2


def test_a_weaker_contrast_finds_weaker_print() -> None:
    pale = squares(240, 180, low=120, high=132)
    keen = SiftPoints(PointSettings(side_px=256, most=300, contrast=0.005, words=WORDS))
    assert len(keen(pale)) > len(find_points(pale))


def test_a_strong_texture_in_a_part_of_a_picture_does_not_take_more_points_than_its_cells_may_keep() -> None:
    # The left sixth is one column of cells of the grid; what is printed beside it is much weaker.
    texture, pale = squares(240, 40, cell_px=5), squares(240, 200, cell_px=8, low=100, high=150)
    x = find_points(np.concatenate([texture, pale], axis=1)).places[:, 0] / 65535
    most_in_texture = GRID * np.ceil(CELL_SHARE * 300 / GRID**2)
    assert len(find_points(texture, side_px=240)) > most_in_texture
    assert (x < 1 / GRID).sum() <= most_in_texture
    assert len(x) == 300


@pytest.mark.parametrize("cell_px", [5, 8, 12])
def test_a_picture_with_strong_print_in_one_half_has_a_third_of_its_points_in_the_other(cell_px: int) -> None:
    strong, pale = squares(240, 120, cell_px=cell_px), squares(240, 120, cell_px=cell_px, low=90, high=170)
    x = find_points(np.concatenate([strong, pale], axis=1)).places[:, 0] / 65535
    assert (x > 0.5).sum() >= 100
    assert len(x) == 300


ROW, COLUMN = np.indices((256, 256))
HOSTILE = {
    "noise": np.random.default_rng(0).integers(0, 256, (256, 256)),
    "checkerboard": (ROW // 8 + COLUMN // 8) % 2 * 255,
    "net": np.where((ROW % 12 < 2) | (COLUMN % 12 < 2), 255, 0),
    "barcode": np.random.default_rng(0).integers(0, 2, 128).repeat(2)[COLUMN] * 255,
    "dots": np.where((ROW % 10 - 5) ** 2 + (COLUMN % 10 - 5) ** 2 < 8, 255, 0),
}


@pytest.mark.parametrize("texture", HOSTILE)
def test_a_hostile_texture_has_no_more_points_than_any_picture(texture: str) -> None:
    assert len(find_points(grey(HOSTILE[texture]))) <= 300


class CountingSift:
    """OpenCV's, and how many points it described."""

    described = 0

    def __init__(self, **settings: float) -> None:
        self._sift = SIFT_OF_OPENCV.create(**settings)

    def detect(self, picture: PixelArray) -> Sequence[cv2.KeyPoint]:
        return self._sift.detect(picture)

    def compute(self, picture: PixelArray, points: Sequence[cv2.KeyPoint]) -> tuple[Sequence[cv2.KeyPoint], PixelArray]:
        CountingSift.described += len(points)
        return self._sift.compute(picture, points)

    create = classmethod(lambda cls, **settings: cls(**settings))


SIFT_OF_OPENCV = cv2.SIFT


@pytest.mark.parametrize("texture", ["checkerboard", "net", "dots"])
def test_of_equally_strong_points_only_those_that_are_kept_are_described(monkeypatch: pytest.MonkeyPatch, texture: str) -> None:
    monkeypatch.setattr(cv2, "SIFT", CountingSift)
    monkeypatch.setattr(CountingSift, "described", 0)
    picture = grey(HOSTILE[texture])
    assert len(cv2.SIFT.create(nfeatures=SPARE * 300, contrastThreshold=0.02).detect(picture)) > 1_500  # OpenCV keeps equals
    assert len(find_points(picture)) == CountingSift.described == 300


@pytest.mark.parametrize("texture", ["checkerboard", "net", "dots"])
def test_the_points_of_a_texture_lie_all_over_the_picture(texture: str) -> None:
    x, y = (find_points(grey(HOSTILE[texture])).places[:, :2].astype(np.int64) * GRID // 65536).T
    counts = np.bincount(y * GRID + x, minlength=GRID**2)
    assert counts.max() <= np.ceil(CELL_SHARE * 300 / GRID**2)


def test_descriptors_are_root_sift_of_one_length() -> None:
    lengths = np.linalg.norm(FOUND.descriptors.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 512, rtol=0.01)


def test_words_are_the_nearest_of_the_code_book() -> None:
    offsets = FOUND.descriptors[:, np.newaxis].astype(np.int64) - WORDS.astype(np.int64)
    assert FOUND.words.tolist() == np.square(offsets).sum(axis=2).argmin(axis=1).tolist()
    assert len(set(FOUND.words.tolist())) > 1

"""What the arms make of what they are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from PIL import Image

from app.domain.posterior import Fit, Regions
from app.domain.regions import GREY, SHARES
from tests.training.packs import print_of, write_boxes
from training.evaluate import episodes, finders, items
from training.evaluate.episodes import DetectEpisode

SHOWN, ASKED = "shown.webp", "asked.webp"


def scene(*prints: tuple[int, tuple[int, int]]) -> Image.Image:
    """Prints of 96 px on an even ground, each with its left and top."""
    picture = Image.new("RGB", (256, 192), (90, 120, 100))
    for seed, place in prints:
        picture.paste(print_of(seed), place)
    return picture


@pytest.fixture
def episode(tmp_path: Path) -> DetectEpisode:
    """A print of each of two classes in one photograph, and again in another, elsewhere."""
    photographs = {SHOWN: scene((1, (10, 20)), (2, (140, 60))), ASKED: scene((2, (20, 70)), (1, (150, 30)))}
    boxes = [
        (SHOWN, "one", [10, 20, 96, 96]), (SHOWN, "two", [140, 60, 96, 96]),
        (ASKED, "two", [20, 70, 96, 96]), (ASKED, "one", [150, 30, 96, 96]),
    ]  # fmt: skip
    write_boxes(tmp_path / "pack", photographs, boxes)
    asked, shown = items.photographs_of(tmp_path / "pack")
    return DetectEpisode({name: (episodes._boxed(shown, n),) for n, (name, _) in enumerate(shown.boxes)}, (asked,))


def best_of(found: list[finders.Spotted], class_name: str) -> tuple[float, ...]:
    return max((one for one in found if one.class_name == class_name), key=lambda one: one.score).edges


def test_templates_find_what_looks_the_same(episode: DetectEpisode) -> None:
    (found,) = finders.Templates().find(episode)
    assert best_of(list(found), "pack/one") == pytest.approx((150, 30, 246, 126), abs=2)
    assert best_of(list(found), "pack/two") == pytest.approx((20, 70, 116, 166), abs=2)


def test_templates_that_are_flat_or_too_large_are_not_looked_for() -> None:
    places = finders.matched_places(np.zeros((40, 60), np.uint8), 1.0, np.full((20, 20), 7, np.uint8))
    assert places == []
    rng = np.random.default_rng(0)
    template = rng.integers(0, 255, (30, 30), dtype=np.uint8)
    scene = np.zeros((40, 60), np.uint8)
    assert {edges[2] - edges[0] for edges, _ in finders.matched_places(scene + template[0, 0], 1.0, template)} == {24, 34}


class FakeNetwork:
    """Sees the nine places of a grid of thirds, each with the mean colour there as its embedding."""

    side_px, width = 96, 0.5

    def __call__(self, picture: Image.Image) -> Regions:
        fit = Fit(picture.width, picture.height, self.side_px)
        edges = np.array([[x, y, x + 1 / 3, y + 1 / 3] for y in (0, 1 / 3, 2 / 3) for x in (0, 1 / 3, 2 / 3)], np.float32)
        boxes = edges * np.array([picture.width, picture.height] * 2, np.float32)
        pixels = np.asarray(picture, np.float32) - 100
        colours = np.stack([pixels[int(t) : int(b), int(x) : int(r)].mean((0, 1)) for x, t, r, b in boxes])
        assert fit.to_picture(fit.to_square(boxes)) == pytest.approx(boxes, abs=1e-2)
        return Regions(boxes, np.linspace(0.9, 0.8, 9).astype(np.float32), colours / np.linalg.norm(colours, axis=1)[:, None])


def colours() -> Image.Image:
    """Thirds of 30 px, each of a colour of its own."""
    shades = np.random.default_rng(3).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(shades.repeat(30, 0).repeat(30, 1))


def test_a_detector_finds_by_the_representatives_of_what_it_was_shown(tmp_path: Path) -> None:
    turned = colours().transpose(Image.Transpose.ROTATE_180)
    boxes = [("a.webp", "first", [0, 0, 30, 30]), ("a.webp", "last", [60, 60, 30, 30]), ("b.webp", "first", [60, 60, 30, 30])]
    write_boxes(tmp_path / "pack", {"a.webp": colours(), "b.webp": turned}, boxes)
    shown, asked = items.photographs_of(tmp_path / "pack")
    episode = DetectEpisode({name: (episodes._boxed(shown, n),) for n, (name, _) in enumerate(shown.boxes)}, (asked,))
    (found,) = finders.RepMet(finders.Kept(FakeNetwork()), finders.in_place).find(episode)  # type: ignore[arg-type]
    assert best_of(list(found), "pack/first") == (60, 60, 90, 90)
    assert best_of(list(found), "pack/last") == (0, 0, 30, 30)

    # By crops, embedded by their mean colour, it is the same.
    def embed(pictures: list[Image.Image]) -> np.ndarray:
        means = np.stack([np.asarray(picture, np.float64).mean((0, 1)) - 100 for picture in pictures])
        return means / np.linalg.norm(means, axis=1)[:, None]

    (found,) = finders.Crops(finders.Kept(FakeNetwork()), embed).find(episode)  # type: ignore[arg-type]
    assert best_of(list(found), "pack/first") == (60, 60, 90, 90)


def test_a_support_is_looked_at_as_it_stands_and_from_nearer() -> None:
    photograph = colours()
    seen, box = finders.nearer(photograph, np.array([30.0, 30, 60, 60]), 2.0)
    assert (seen.size, box.tolist()) == ((60, 60), [15, 15, 45, 45])
    seen, box = finders.nearer(photograph, np.array([0.0, 0, 30, 30]), 2.0)  # no further than the photograph goes
    assert (seen.size, box.tolist()) == ((45, 45), [0, 0, 30, 30])
    box = np.array([60.0, 0, 90, 30])
    assert len(finders.in_place(photograph, box)) == 1 + len(finders.CONTEXTS)
    regions = FakeNetwork()(photograph)
    assert finders.embedding_at(regions, box).tolist() == regions.embeddings[2].tolist()
    assert finders.embedding_at(regions, np.array([70.0, 70, 74, 74])).tolist() == regions.embeddings[8].tolist()  # none has it


def test_a_box_alone_lies_on_grey_at_some_sizes() -> None:
    for (view, box), share in zip(finders.alone(colours(), np.array([30.0, 0, 60, 15])), SHARES, strict=True):
        left, top, right, bottom = map(int, box)
        assert (right - left, bottom - top) == (30, 15)
        assert 30 / view.width == pytest.approx(share, abs=0.01)
        assert np.asarray(view)[top:bottom, left:right].tolist() == np.asarray(colours())[:15, 30:60].tolist()
        assert view.getpixel((0, 0)) == (GREY,) * 3

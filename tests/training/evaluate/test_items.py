"""Items are sent as a person would send them, and renders come out the same each time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.domain.values import Box
from tests.training.packs import draw_foreign_packs, mark, photograph, write_boxes, write_zip
from training.evaluate import items


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    drawn = {f"8/{name}/{number}.webp": mark(number) for name in ("a", "a-b", "c") for number in range(2)}
    write_zip(tmp_path / "brand-marks" / "images.zip", drawn | {"7/other/0.webp": mark(9)})
    write_zip(tmp_path / "imagenet-1-per-class" / "images.zip", {f"train/x/{n}.webp": photograph(n) for n in range(4)})
    return tmp_path / "brand-marks"


def test_the_first_mark_of_a_brand_is_shown_clean_and_asked_as_a_render(marks: Path) -> None:
    found = items.items_of(marks, "split8")
    assert [(item.id, item.may_support, item.may_ask) for item in found] == [
        ("8/a-b/0.webp", True, False), ("8/a-b/0.webp@hard", False, True), ("8/a/0.webp", True, False),
        ("8/a/0.webp@hard", False, True), ("8/c/0.webp", True, False), ("8/c/0.webp@hard", False, True),
    ]  # fmt: skip
    pictures = items.pictures_of(items.uploads_of(found, marks.parent))
    assert [picture.size for picture in pictures] == [(64, 48), (128, 128)] * 3


def test_renders_are_the_same_each_time_and_each_is_of_its_own_mark(marks: Path) -> None:
    hard = [item for item in items.items_of(marks, "split8") if item.form == "hard"]
    once, again = items.renders_of(hard, marks.parent), items.renders_of(hard[::-1], marks.parent)
    assert list(once) != list(again) or len(once) == 3
    for name, picture in once.items():
        assert (np.asarray(picture) == np.asarray(again[name])).all()


def test_a_white_mark_is_enrolled_on_a_dark_ground() -> None:
    white = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    white.paste((255, 255, 255, 255), (5, 5, 15, 15))
    black = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    black.paste((0, 0, 0, 255), (5, 5, 15, 15))
    assert items.on_a_ground_that_shows_it(white).getpixel((0, 0)) == (26, 26, 26)
    assert items.on_a_ground_that_shows_it(black).getpixel((0, 0)) == (255, 255, 255)


def test_a_box_is_sent_beside_the_whole_photograph(tmp_path: Path) -> None:
    write_boxes(tmp_path / "boxes", {"0.webp": photograph(0)}, [("0.webp", "a", [10, 20, 30, 25])])
    (upload,) = items.uploads_of(items.items_of(tmp_path / "boxes"), tmp_path)
    assert upload.box == Box(10, 20, 30, 25)
    assert Image.open(io.BytesIO(upload.data)).size == (60, 60)
    (picture,) = items.pictures_of([upload])
    assert (np.asarray(picture) == np.asarray(photograph(0))[20:45, 10:40]).all()


def test_foreign_pictures_show_no_class_of_the_task_and_are_none_of_the_calibration(tmp_path: Path) -> None:
    draw_foreign_packs(tmp_path)
    for pack in ("flickrlogos27-dev", "grocery-store", "grozi120-dev"):
        packs = items.foreign_packs(pack)
        assert "caltech101-dev" not in packs
        assert ("grocery-store" in packs) == (pack != "grocery-store")
        assert "flickrlogos27-dev" in packs  # its photographs without a brand
        assert "flickrlogos27-dev/0.jpg" not in {item.id for item in items.foreign_items(tmp_path, pack)}

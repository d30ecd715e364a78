"""A sheet says by colours what is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from PIL import Image

from training.evaluate import scene_sheet
from training.evaluate.finders import Spotted
from training.evaluate.scene_sheet import TILE_PX, Judged

GREY = Image.new("RGB", (640, 400), "#808080")
THING = (100.0, 100.0, 300.0, 300.0)


def drawn(path: Path, *scenes: Judged) -> np.ndarray:
    scene_sheet.write_sheet(scenes, path)
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB")).astype(int)


def counts(pixels: np.ndarray) -> tuple[int, int]:
    """Pixels that are green and that are red."""
    red, green, _ = pixels[:TILE_PX, :TILE_PX].transpose(2, 0, 1)
    return int((green - red > 60).sum()), int((red - green > 60).sum())


def test_right_is_green_and_wrong_is_red(tmp_path: Path) -> None:
    found = Spotted("pack/acme", THING, 0.9)
    green, red = counts(drawn(tmp_path / "right.webp", Judged(GREY, [THING], [(found, True)])))
    assert green > 400
    assert red == 0
    green, red = counts(drawn(tmp_path / "wrong.webp", Judged(GREY, [THING], [(found, False)])))
    assert green == 0
    assert red > 400
    assert counts(drawn(tmp_path / "missed.webp", Judged(GREY, [THING], []))) == (0, 0)


def test_what_is_there_has_a_white_box_scaled_as_its_picture(tmp_path: Path) -> None:
    bright = drawn(tmp_path / "new" / "sheet.webp", Judged(GREY, [THING], [])).min(-1) > 190
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    scale = (TILE_PX - 4) / 640
    assert [rows[0], columns[0]] == pytest.approx([100 * scale] * 2, abs=2)
    assert [rows[-1], columns[-1]] == pytest.approx([300 * scale] * 2, abs=2)


def test_a_sheet_has_room_for_all(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "sheet.webp", *[Judged(GREY, [], [])] * (scene_sheet.COLUMNS + 1))
    assert pixels.shape[:2] == (2 * TILE_PX, scene_sheet.COLUMNS * TILE_PX)

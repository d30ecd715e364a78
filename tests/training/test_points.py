"""The code book is made of what training may learn from, the same one every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import draw_print_packs, print_of, write_zip
from tests.values import root_sift
from training import data, points


def flags(folder: Path, **more: object) -> list[str]:
    named = {"data": folder, "models": folder, **more}
    return [str(part) for name, value in named.items() for part in (f"--{name}", value)]


def test_the_command_leaves_as_many_words_as_were_asked_for_and_the_same_again(tmp_path: Path) -> None:
    draw_print_packs(tmp_path)
    made = []
    for _ in range(2):
        points.main(flags(tmp_path, words=12, pictures=5))
        made.append(np.load(tmp_path / points.WORDS_FILE))
    assert (made[0].dtype, made[0].shape) == (np.uint8, (12, 128))
    assert made[0].tobytes() == made[1].tobytes()
    # Centroids of descriptors of length 512: none is longer, none is nothing.
    lengths = np.linalg.norm(made[0].astype(np.float64), axis=1)
    assert lengths.min() > 100
    assert lengths.max() < 520


def test_pictures_that_are_kept_for_measuring_are_not_learnt_from(tmp_path: Path) -> None:
    with_others, alone = tmp_path / "with", tmp_path / "alone"
    for folder, splits in ((with_others, (0, 6, 7, 8)), (alone, (0, 6))):
        for pack in points.PACKS:
            drawn = {f"{split}/{pack}-{split}/0.webp": print_of(split) for split in splits}
            write_zip(folder / pack / "images.zip", drawn)
    found = [points.descriptors(points.Config(data=folder)) for folder in (with_others, alone)]
    assert found[0].tobytes() == found[1].tobytes()
    assert len(found[0]) > 0


def test_words_are_the_middles_of_what_lies_together() -> None:
    middles = root_sift(3).astype(int)
    around = np.random.default_rng(0).integers(-2, 3, (200, 3, 128))
    rows = (middles + around).clip(0, 255).astype(np.uint8).reshape(600, 128)
    words = points.centroids(rows, points.Config(words=3, each=200)).astype(int)
    offsets = np.abs(words[:, None] - middles).max(axis=2)  # (words, middles)
    assert sorted(offsets.argmin(axis=1).tolist()) == [0, 1, 2]
    assert offsets.min(axis=1).max() <= 2


def test_there_are_no_more_words_than_points() -> None:
    assert points.centroids(root_sift(5), points.Config(words=12)).shape == (5, 128)


def test_what_is_transparent_lies_over_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (8, 8), (10, 20, 30, 255))
    half.paste((10, 20, 30, 0), (0, 0, 4, 8))
    write_zip(tmp_path / "pack" / "images.zip", {"0/half/0.webp": half})
    (pixels,) = points.pictures_of(data.pack_items(tmp_path / "pack"))
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    assert (pixels[0, 0].tolist(), pixels[0, 7].tolist()) == ([255, 255, 255], [10, 20, 30])

"""What counts as one photograph: crops of one, and pictures of a class that are nearly the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import photograph, print_of
from training.data import Item
from training.evaluate.items import AskedItem
from training.evaluate.near_duplicates import groups_of, perceptual_hashes


def items(*named: tuple[str, str]) -> list[AskedItem]:
    """Items of (class, photograph)."""
    return [AskedItem(str(n), name, photo, Item(Path("none"), str(n), name)) for n, (name, photo) in enumerate(named)]


def bits(*differing: int) -> np.ndarray:
    """Hashes (n, 64) of which so many bits are set, the first ones."""
    return np.array([np.arange(64) < count for count in differing])


def again(picture: Image.Image) -> Image.Image:
    """The same picture, resized and compressed."""
    buffer = io.BytesIO()
    picture.resize((48, 48)).save(buffer, "JPEG", quality=70)
    return Image.open(buffer)


def test_a_picture_saved_again_is_near_and_another_is_not() -> None:
    pictures = [photograph(n) for n in range(20)] + [print_of(n) for n in range(20)]
    first, second = perceptual_hashes(pictures), perceptual_hashes(map(again, pictures))
    differing = (first[:, np.newaxis] != second).sum(2)
    assert differing.diagonal().max() <= 6
    assert differing[~np.eye(40, dtype=bool)].min() > 6


def test_the_hash_is_that_of_imagehash() -> None:
    # imagehash.phash takes scipy's unnormalised DCT-II of 32 x 32 grey pixels, which is twice this sum on each axis.
    grey = np.asarray(photograph(3).convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    lowest = np.empty((8, 8))
    for u in range(8):
        for v in range(8):
            rows, columns = (np.cos(np.pi * f * (2 * np.arange(32) + 1) / 64) for f in (u, v))
            lowest[u, v] = 4 * (grey * np.outer(rows, columns)).sum()
    assert (perceptual_hashes([photograph(3)])[0] == (lowest > np.median(lowest)).ravel()).all()


def test_six_bits_of_64_are_near_and_seven_are_not() -> None:
    assert groups_of(items(("a", "0"), ("a", "1"), ("a", "2")), bits(0, 6, 13)).tolist() == [0, 0, 1]


def test_chains_are_one_group_and_classes_do_not_mix() -> None:
    chained = items(("a", "0"), ("a", "1"), ("a", "2"), ("b", "3"))
    assert groups_of(chained, bits(0, 6, 12, 6)).tolist() == [0, 0, 0, 1]


def test_crops_of_one_photograph_are_one_group_whatever_their_class() -> None:
    shared = items(("a", "p"), ("b", "p"), ("a", "q"), ("b", "r"))
    assert groups_of(shared, bits(0, 20, 40, 60)).tolist() == [0, 0, 1, 2]
    # Near duplicates join what hangs on them: q is near p in class a, so that r's class has p and r apart still.
    assert groups_of(shared, bits(0, 20, 5, 60)).tolist() == [0, 0, 0, 1]

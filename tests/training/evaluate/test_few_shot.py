"""Accuracy is counted per class, on what is asked only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra `training` is not installed")

from training.data import Item
from training.evaluate import arms
from training.evaluate.episodes import AskedItem, Episodes
from training.evaluate.few_shot import accuracies


def item(name: str, class_name: str) -> AskedItem:
    return AskedItem(name, class_name, name, Item(Path("none"), name, class_name))


def test_the_nearest_mean_of_supports_decides_and_classes_count_alike() -> None:
    items = (item("a0", "a"), item("a1", "a"), item("b0", "b"), item("b1", "b"), item("b2", "b"))
    listed = Episodes(items, np.array([[[0], [2]]]), ("a", "b"))
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [0.9, 0.1]])
    # a1 is nearest to a0: right. b1 is nearest to b0: right; b2 is nearest to a0: wrong.
    assert accuracies(vectors, listed, 1).tolist() == [[1.0, 0.5]]


def test_baselines_tell_what_they_are_made_to_tell() -> None:
    red, blue = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    bars = np.zeros((40, 40, 3), np.uint8)
    bars[:, ::8] = bars[:, 1::8] = bars[:, 2::8] = bars[:, 3::8] = 255
    upright, level = Image.fromarray(bars), Image.fromarray(bars.transpose(1, 0, 2))
    colours, shapes = arms.histogram([red, blue, red]), arms.hog([upright, level, upright])
    assert colours[0] @ colours[2] == pytest.approx(1)
    assert colours[0] @ colours[1] < 0.1
    assert shapes[0] @ shapes[2] == pytest.approx(1)
    assert shapes[0] @ shapes[1] < 0.5

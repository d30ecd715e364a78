"""Packs come out as sorted square tensors, and the sampler draws what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import mark, photograph, write_boxes, write_zip  # noqa: E402
from training import batches, data  # noqa: E402


def test_a_class_pack_is_read_split_by_split_and_sorted_by_class(tmp_path: Path) -> None:
    write_zip(tmp_path / "p" / "images.zip", {"1/b/0.webp": mark(1), "0/a/0.webp": mark(2), "0/b/0.webp": mark(3)})
    items = data.pack_items(tmp_path / "p", split=lambda split: split == "0")
    pictures = data.load(items, side_px=16, mode="RGBA")
    assert pictures.class_names == ("p/a", "p/b")
    assert pictures.pixels.shape == (2, 4, 16, 16)
    assert pictures.aspects.tolist() == pytest.approx([64 / 48] * 2)


def test_boxes_become_crops_and_small_ones_are_left_out(tmp_path: Path) -> None:
    write_boxes(tmp_path / "p", {"0.webp": photograph(0)}, [("0.webp", "a", [0, 0, 30, 40]), ("0.webp", "a", [0, 0, 10, 40])])
    items = data.box_items(tmp_path / "p")
    assert [item.box for item in items] == [(0.0, 0.0, 30, 40)]


def test_cut_outs_are_laid_on_white_when_read_as_rgb(tmp_path: Path) -> None:
    write_zip(tmp_path / "p" / "images.zip", {"0/a/0.webp": mark(1)})
    pictures = data.load(data.pack_items(tmp_path / "p"), side_px=48)
    assert pictures.pixels[0, :, 0, 47].tolist() == [255, 255, 255]


def test_joined_sets_keep_their_classes_apart(tmp_path: Path) -> None:
    for pack in "pq":
        write_zip(tmp_path / pack / "images.zip", {"0/a/0.webp": mark(1), "0/b/0.webp": mark(2)})
    joined = data.join([data.load(data.pack_items(tmp_path / pack), side_px=8) for pack in "pq"])
    assert joined.class_names == ("p/a", "p/b", "q/a", "q/b")
    assert joined.labels.tolist() == [0, 1, 2, 3]


def test_the_sampler_draws_pictures_of_the_class_it_names() -> None:
    labels = torch.tensor([0] * 5 + [1] + [2] * 30)
    pictures = data.PictureSet(torch.zeros(36, 3, 1, 1, dtype=torch.uint8), labels, torch.ones(36), ("a", "b", "c"))
    positions, drawn = data.ClassSampler(pictures, flatness=0.0).draw(300, 2)
    assert torch.equal(labels[positions], drawn)
    assert torch.equal(drawn[0::2], drawn[1::2])
    assert torch.bincount(drawn).min() > 120  # 200 expected of each


def test_what_must_not_be_trained_on_is_left_out(tmp_path: Path) -> None:
    for pack in ("mini-imagenet", *batches.CLASS_PACKS):
        write_zip(tmp_path / pack / "images.zip", {"train/coil100-obj031/0.webp": photograph(0), "val/x/0.webp": photograph(1)})
    for pack in batches.BOX_PACKS:
        names = ["candy-bars/Twix", "candy-bars/Mars"]
        write_boxes(tmp_path / pack, {"0.webp": photograph(0)}, [("0.webp", name, [0, 0, 30, 30]) for name in names])
    names = {item.class_name for item in batches.photograph_items(tmp_path)}
    assert "object-views-dev/coil100-obj031" not in names
    assert "multidomain-det-dev/candy-bars/Twix" not in names
    assert "multidomain-det-dev/candy-bars/Mars" in names
    assert "mini-imagenet/x" not in names

"""Pictures of every form become the same items, and what cannot be used is refused in a line that names the flag."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import photograph, write_boxes, write_folder, write_zip
from training.evaluate.sources import Source, decoded, read_items

PICTURES = {f"{split}/{name}/{n}.webp": photograph(n) for split in ("train", "val") for name in "ab" for n in range(2)}


def listed(path: Path, split: str = "") -> list[tuple[str, str]]:
    return [(item.id, item.class_name) for item in read_items(Source("--data", path, split))]


def unpacked(pack: Path) -> Path:
    """A detection pack as `unpack.py` lays it out: photographs in a folder, annotations as they are."""
    with zipfile.ZipFile(pack / "images.zip") as archive:
        archive.extractall(pack / "images")
    (pack / "images.zip").unlink()
    (pack / "annotations.json").write_bytes(gzip.decompress((pack / "annotations.json.gz").read_bytes()))
    (pack / "annotations.json.gz").unlink()
    return pack


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """Two photographs; photograph 0 shows both classes, and a box that is too small."""
    drawn = [("0.webp", "a", [0, 0, 30, 40]), ("0.webp", "b", [30, 0, 30, 30]), ("0.webp", "b", [0, 45, 9, 9])]
    write_boxes(tmp_path / "boxes", {f"{n}.webp": photograph(n) for n in range(2)}, [*drawn, ("1.webp", "a", [5, 5, 30, 30])])
    return tmp_path / "boxes"


def test_a_folder_a_zip_and_a_pack_are_the_same_pictures(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", PICTURES)
    (folder / "notes.txt").write_text("not a picture")
    write_zip(tmp_path / "pack" / "images-1.zip", dict(list(PICTURES.items())[:3]))
    write_zip(tmp_path / "pack" / "images-2.zip", dict(list(PICTURES.items())[3:]))
    write_zip(tmp_path / "one.zip", PICTURES)
    expected = sorted((entry, entry.split("/")[1]) for entry in PICTURES)
    assert listed(folder) == listed(tmp_path / "pack") == listed(tmp_path / "one.zip") == expected
    for path in (folder, tmp_path / "pack", tmp_path / "one.zip"):
        for item, picture in zip(found := read_items(Source("--data", path)), decoded(found), strict=True):
            assert (np.asarray(picture) == np.asarray(PICTURES[item.id])).all()


def test_classes_need_no_split_and_a_split_can_be_chosen(tmp_path: Path) -> None:
    flat = write_folder(tmp_path / "flat", {f"{name}/0.webp": photograph(0) for name in "ab"})
    assert listed(flat) == [("a/0.webp", "a"), ("b/0.webp", "b")]
    folder = write_folder(tmp_path / "split", PICTURES)
    assert listed(folder, "val") == [(f"val/{name}/{n}.webp", name) for name in "ab" for n in range(2)]


def test_boxes_are_cut_from_zips_and_from_folders_alike(boxes: Path) -> None:
    of_pack = read_items(Source("--data", boxes))
    cut = [np.asarray(picture) for picture in decoded(of_pack)]
    assert [(item.id, item.class_name) for item in of_pack] == [("0.webp#0", "a"), ("0.webp#1", "b"), ("1.webp#3", "a")]
    assert (cut[0] == np.asarray(photograph(0))[0:40, 0:30]).all()
    of_folder = read_items(Source("--data", unpacked(boxes)))
    assert [item.id for item in of_folder] == [item.id for item in of_pack]
    assert all((np.asarray(picture) == one).all() for picture, one in zip(decoded(of_folder), cut, strict=True))
    assert listed(boxes / "annotations.json") == listed(boxes)


def test_boxes_of_one_photograph_count_as_one(boxes: Path) -> None:
    first, second, other = (item.photograph for item in read_items(Source("--data", boxes)))
    assert first == second != other


def test_photographs_can_be_chosen_by_their_split(boxes: Path) -> None:
    write_boxes(
        boxes, {f"{n}.webp": photograph(n) for n in range(2)}, [(f"{n}.webp", "a", [0, 0, 30, 30]) for n in range(2)],
        distractors=["1.webp"],
    )  # fmt: skip
    assert listed(boxes, "distractor") == [("1.webp#1", "a")]


@pytest.mark.parametrize(("column", "same"), [("scene", True), ("track", False)])
def test_frames_of_a_scene_are_one_photograph_and_tracks_are_counted_in_each_class(
    tmp_path: Path, column: str, same: bool
) -> None:
    folder = write_folder(tmp_path / "frames", {f"train/{name}/{n}.webp": photograph(n) for name in "ab" for n in range(2)})
    rows = "".join(f"train/{name}/{n}.webp\t7\n" for name in "ab" for n in range(2))
    (folder / "frames.tsv").write_text(f"entry\t{column}\n{rows}")
    a0, a1, b0, _ = (item.photograph for item in read_items(Source("--data", folder)))
    assert a0 == a1
    assert (a0 == b0) is same


def test_a_photograph_of_a_telephone_is_turned_upright(tmp_path: Path) -> None:
    lying = Image.new("RGB", (40, 20), "red")
    exif = lying.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    (tmp_path / "a").mkdir()
    lying.save(tmp_path / "a" / "0.jpg", exif=exif)
    (picture,) = decoded(read_items(Source("--data", tmp_path)))
    assert picture.size == (20, 40)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/0.webp": Image.new("RGBA", (8, 8), (9, 9, 9, 0))})
    (picture,) = decoded(read_items(Source("--data", tmp_path)))
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def refused(path: Path, split: str = "") -> str:
    with pytest.raises(SystemExit) as refusal:
        list(decoded(read_items(Source("--data", path, split))))
    return str(refusal.value)


def test_what_is_no_set_of_pictures_is_refused(tmp_path: Path) -> None:
    assert "there is no such file or folder" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "there are no pictures" in refused(tmp_path / "empty")
    (tmp_path / "data.csv").write_text("a,b")
    assert "a file is a zip of a pack, or COCO" in refused(tmp_path / "data.csv")
    (tmp_path / "broken.zip").write_text("no zip")
    assert "broken.zip is no zip" in refused(tmp_path / "broken.zip")
    mixed = write_folder(tmp_path / "mixed", {"a/0.webp": photograph(0), "train/b/0.webp": photograph(1)})
    assert "different depths (train/b/0.webp)" in refused(mixed)
    flat = write_folder(tmp_path / "flat", {"a/0.webp": photograph(0)})
    assert refused(flat, "val") == "--split val: --data has no splits"
    split = write_folder(tmp_path / "split", PICTURES)
    assert refused(split, "test") == "--split test: --data has the splits train, val"
    (flat / "a" / "0.webp").write_text("no picture")
    assert "--data: a/0.webp is no picture that can be read" in refused(flat)


def test_what_is_no_annotation_is_refused(boxes: Path) -> None:
    unpacked(boxes)
    (boxes / "images" / "1.webp").unlink()
    assert "1.webp and 0 more photographs are neither in images/ nor in images*.zip" in refused(boxes)
    coco = json.loads((boxes / "annotations.json").read_text())
    coco["annotations"] = [coco["annotations"][0] | {"bbox": [70, 70, 30, 30]}]
    (boxes / "annotations.json").write_text(json.dumps(coco))
    assert "box 0.webp#0 lies outside of its photograph, 60 x 60 px" in refused(boxes)
    coco["annotations"][0]["bbox"] = [0, 0, 10, 10]
    (boxes / "annotations.json").write_text(json.dumps(coco))
    assert "no boxes of 24 px a side or more" in refused(boxes)
    (boxes / "annotations.json").write_text(json.dumps({"images": []}))
    assert "the annotations are not COCO: KeyError('categories')" in refused(boxes)
    (boxes / "annotations.json").write_text("{")
    assert "the annotations cannot be read" in refused(boxes)

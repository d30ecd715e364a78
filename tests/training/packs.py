"""Small data packs drawn by the tests, in the form of the real ones."""

from __future__ import annotations

import atexit
import functools
import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw


def mark(seed: int) -> Image.Image:
    """A cut-out coloured shape: RGBA."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    colour = (*(int(value) for value in rng.integers(0, 200, 3)), 255)
    corners = [tuple(int(value) for value in rng.integers(0, (64, 48))) for _ in range(5)]
    draw.polygon(corners, fill=colour)
    draw.ellipse((20, 10, 44, 38), fill=colour)
    return picture


def photograph(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((60, 60), Image.Resampling.BICUBIC)


def write_zip(path: Path, pictures: dict[str, Image.Image]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, picture in pictures.items():
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", lossless=True)
            archive.writestr(entry, buffer.getvalue())


def write_folder(folder: Path, pictures: dict[str, Image.Image]) -> Path:
    """The same as files."""
    for entry, picture in pictures.items():
        (folder / entry).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / entry, "WEBP", lossless=True)
    return folder


def print_of(seed: int) -> Image.Image:
    """Something printed: light and dark squares, each picture in an order and a colour of its own."""
    shades = np.random.default_rng(seed).integers(0, 256, (16, 16, 1))
    inks = 0.3 + 0.7 * ((seed + 1) >> np.arange(3) & 1)  # seven of them
    return Image.fromarray((shades * inks).astype(np.uint8)).resize((96, 96), Image.Resampling.NEAREST)


def write_boxes(
    pack: Path, photographs: dict[str, Image.Image], boxes: list[tuple[str, str, list[int]]], *, distractors: Sequence[str] = ()
) -> None:
    """A detection pack; `boxes` are (file, class, [x, y, width, height]), `distractors` files that show nothing of interest."""
    write_zip(pack / "images.zip", photographs)
    files, names = sorted(photographs), sorted({name for _, name, _ in boxes})
    coco = {
        "images": [
            {
                "id": i,
                "file_name": f,
                "width": photographs[f].width,
                "height": photographs[f].height,
                "split": "distractor" if f in distractors else "train",
            }
            for i, f in enumerate(files)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": files.index(f), "category_id": names.index(n), "bbox": box}
            for i, (f, n, box) in enumerate(boxes)
        ],
    }
    (pack / "annotations.json.gz").write_bytes(gzip.compress(json.dumps(coco).encode()))


def draw_training_packs(folder: Path) -> None:
    """Everything that `training embedding` reads, a few pictures of each."""
    shutil.copytree(_drawn_once(_draw_training_packs), folder, dirs_exist_ok=True)


def draw_detector_packs(folder: Path) -> None:
    """Everything that `training detector` reads beside what `training embedding` does."""
    draw_training_packs(folder)
    shutil.copytree(_drawn_once(_draw_detector_packs), folder, dirs_exist_ok=True)


@functools.cache
def _drawn_once(draw: Callable[[Path], None]) -> str:
    """A folder with what is drawn, until the tests end: a few hundred pictures take seconds to encode."""
    kept = TemporaryDirectory(prefix="packs-")
    atexit.register(kept.cleanup)
    draw(Path(kept.name))
    return kept.name


def _draw_training_packs(folder: Path) -> None:
    for pack in ("brand-marks", "package-fronts"):
        write_zip(
            folder / pack / "images.zip",
            {f"{split}/{pack}-{number}/0.webp": mark(10 * split + number) for split in (0, 6, 7, 8) for number in range(4)},
        )
    write_zip(folder / "mini-imagenet" / "images.zip", _classes(("train", "val"), 4))
    for pack in (
        "tiny-imagenet-dev", "pokemon-pictures-dev", "object-views-dev", "clothing-dev", "euro-coins-dev", "gtsrb-dev",
        "fod-a-crops-dev", "vehicle-logos-dev",
    ):  # fmt: skip
        write_zip(folder / pack / "images.zip", _classes(("train",), 12))
    for pack in ("multidomain-det-dev", "freiburg-groceries-dev", "toplogo10-dev"):
        photographs = {f"{number}.webp": photograph(number) for number in range(3)}
        write_boxes(folder / pack, photographs, [(f"{number}.webp", "thing", [4, 4, 40, 30]) for number in range(3)])


def _draw_detector_packs(folder: Path) -> None:
    write_zip(folder / "imagenet-1-per-class" / "images.zip", {f"train/x/{n}.webp": photograph(n) for n in range(6)})
    photographs = {f"{number}.webp": photograph(200 + number) for number in range(3)}
    boxes = [(f"{number}.webp", "thing", [4, 4, 40, 30]) for number in range(3)]
    write_boxes(folder / "coco256", photographs, boxes)


def _classes(splits: tuple[str, ...], count: int) -> dict[str, Image.Image]:
    return {
        f"{split}/{split}{label}/{number}.webp": photograph(100 * label + number)
        for split in splits
        for label in range(count)
        for number in range(6)
    }


def draw_scan_packs(folder: Path, *, objects: int = 3) -> None:
    """Everything that `training evaluate scan` reads: a scan and two photographs of each object, fronts, and foreign pictures."""
    views = {f"train/smvsdvd-{n}/{view:02}.webp": print_of(n) for n in range(objects) for view in (1, 2, 3)}
    write_zip(folder / "object-views-dev" / "images.zip", views | {"train/coil100-0/01.webp": photograph(0)})
    fronts = {f"{split}/front-{split}/0.webp": mark(split) for split in (0, 8)}
    write_zip(folder / "package-fronts" / "images.zip", fronts)
    draw_foreign_packs(folder)


def draw_foreign_packs(folder: Path) -> None:
    shelf = {f"{split}/milk/{n}.webp": photograph(40 + n) for split in ("train", "val") for n in range(2)}
    write_zip(folder / "grocery-store" / "images.zip", shelf)
    streets = {f"{n}.jpg": photograph(50 + n) for n in range(3)}
    logos = [("0.jpg", "acme", [4, 4, 40, 30])]
    write_boxes(folder / "flickrlogos27-dev", streets, logos, distractors=["1.jpg", "2.jpg"])
    write_boxes(folder / "freiburg-groceries-dev", {"9.jpg": photograph(60)}, [("9.jpg", "tea", [4, 4, 40, 30])])


def draw_print_packs(folder: Path, *, objects: Sequence[str] = ()) -> None:
    """Everything that `training points` and `training proofs` read: print of each split, views of objects, foreign pictures."""
    for first, pack in ((0, "package-fronts"), (50, "brand-marks")):
        drawn = {f"{split}/{pack}-{split}-{n}/0.webp": print_of(first + 10 * split + n) for split in (0, 1, 7) for n in range(4)}
        write_zip(folder / pack / "images.zip", drawn)
    views = {
        f"train/{name}/{view}.webp": print_of(200 + number).rotate(3 * view)
        for number, name in enumerate(objects)
        for view in range(6)
    }
    write_zip(folder / "object-views-dev" / "images.zip", views | {"train/coil100-0/01.webp": photograph(0)})
    write_zip(folder / "imagenet-1-per-class" / "images.zip", {f"train/x/{n}.webp": photograph(n) for n in range(4)})
    foreign = {f"train/x/{n}.webp": print_of(300 + n) if n % 2 else photograph(300 + n) for n in range(20)}
    write_zip(folder / "caltech101-dev" / "images.zip", foreign)

"""Data packs -> uint8 tensors on the device. Decoded once; everything after is a batched tensor operation.

A pack is a folder with `images*.zip` and, for detection packs, `annotations.json.gz` (COCO). Each picture is stored as a square:
the network sees squares too, and the aspect ratio is kept beside it for the renderer.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MIN_BOX_PX = 24  # smaller boxes of detection packs hold too little to learn a class from


@dataclass(frozen=True)
class Item:
    """One picture to decode: where it lies, what it is, and which part of it."""

    archive: Path  # a zip, or a folder
    entry: str
    class_name: str
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom


@dataclass(frozen=True)
class PictureSet:
    """Pictures of classes, sorted by class."""

    pixels: Tensor  # uint8 (n, channels, side, side)
    labels: Tensor  # int64 (n,)
    aspects: Tensor  # float (n,) width / height of the picture before it was made square
    class_names: tuple[str, ...]

    @property
    def counts(self) -> Tensor:
        return torch.bincount(self.labels, minlength=len(self.class_names))  # (classes,)

    def to(self, device: torch.device) -> PictureSet:
        return PictureSet(self.pixels.to(device), self.labels.to(device), self.aspects.to(device), self.class_names)


def pack_items(pack: Path, *, split: Callable[[str], bool] = lambda split: True) -> list[Item]:
    """Items of a classification pack, entries `<split>/<class>/<file>`; the class is `<pack>/<class>`."""
    items = []
    for archive in sorted(pack.glob("images*.zip")):
        with zipfile.ZipFile(archive) as stored:
            for entry in sorted(stored.namelist()):
                part, class_name, _ = entry.split("/", 2)
                if split(part):
                    items.append(Item(archive, entry, f"{pack.name}/{class_name}"))
    return items


def box_items(pack: Path, *, margin: float = 0.0) -> list[Item]:
    """Items of a detection pack: one for each annotated box, widened by `margin` of its sides."""
    annotations = json.loads(gzip.decompress((pack / "annotations.json.gz").read_bytes()))
    files = {image["id"]: image for image in annotations["images"]}
    names = {category["id"]: category["name"] for category in annotations["categories"]}
    items = []
    for annotation in annotations["annotations"]:
        image, (x, y, w, h) = files[annotation["image_id"]], annotation["bbox"]
        if min(w, h) < MIN_BOX_PX:
            continue
        box = (
            max(0.0, x - margin * w),
            max(0.0, y - margin * h),
            min(float(image["width"]), x + w + margin * w),
            min(float(image["height"]), y + h + margin * h),
        )
        name = f"{pack.name}/{names[annotation['category_id']]}"
        items.append(Item(pack / "images.zip", image["file_name"], name, box))
    return sorted(items, key=lambda item: (item.class_name, item.entry))


def decode_item(item: Item, data: bytes, side_px: int, mode: str) -> tuple[np.ndarray, float]:
    """uint8 (side, side, channels), stretched to a square, and the aspect ratio it had."""
    picture = Image.open(io.BytesIO(data))
    if item.box is not None:
        picture = picture.crop(tuple(round(edge) for edge in item.box))  # type: ignore[arg-type]
    aspect = picture.width / picture.height
    if mode == "RGB":
        picture = over(picture)
    square = picture.convert(mode).resize((side_px, side_px), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(square), aspect


def over(picture: Image.Image, ground: str | tuple[int, int, int] = "white") -> Image.Image:
    """RGB, transparency over one colour."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture.convert("RGBA")).convert("RGB")


def load(items: Sequence[Item], *, side_px: int, mode: str = "RGB", workers: int = 4) -> PictureSet:
    """Decodes items (`mode` RGB or RGBA) into one tensor, sorted by class."""
    ordered = sorted(items, key=lambda item: (item.class_name, item.entry))
    names = class_names_of(items)
    label_of = {name: label for label, name in enumerate(names)}
    pixels = torch.empty((len(ordered), len(mode), side_px, side_px), dtype=torch.uint8)
    aspects = torch.empty(len(ordered))

    def fill(position_and_data: tuple[int, bytes]) -> None:
        position, data = position_and_data
        square, aspects[position] = decode_item(ordered[position], data, side_px, mode)
        pixels[position] = torch.from_numpy(square.copy()).permute(2, 0, 1)

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(fill, enumerate(stored_bytes(ordered))):
            pass
    labels = torch.tensor([label_of[item.class_name] for item in ordered], dtype=torch.int64)
    return PictureSet(pixels, labels, aspects, names)


def class_names_of(items: Iterable[Item]) -> tuple[str, ...]:
    """In the order of the labels that `load` gives."""
    return tuple(sorted({item.class_name for item in items}))


def stored_bytes(items: Iterable[Item]) -> Iterator[bytes]:
    """The file of each item, in their order; every zip is opened once."""
    with ExitStack() as stack:
        archives: dict[Path, zipfile.ZipFile] = {}
        for item in items:
            if item.archive.is_dir():
                yield (item.archive / item.entry).read_bytes()
                continue
            if item.archive not in archives:
                archives[item.archive] = stack.enter_context(zipfile.ZipFile(item.archive))
            yield archives[item.archive].read(item.entry)


def join(sets: Sequence[PictureSet]) -> PictureSet:
    """One set of several with different classes; their labels are shifted."""
    labels, names = [], []
    for pictures in sets:
        labels.append(pictures.labels + len(names))
        names.extend(pictures.class_names)
    return PictureSet(
        torch.cat([pictures.pixels for pictures in sets]),
        torch.cat(labels),
        torch.cat([pictures.aspects for pictures in sets]),
        tuple(names),
    )


def share_of(name: str) -> float:
    """A stable number in [0, 1) for a class name: splits that do not move when classes are added."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


class ClassSampler:
    """Draws classes with probability ∝ count ** `flatness`, then pictures of them with replacement.

    0 draws classes alike, 1 draws pictures alike; between, small classes are seen more often without being learnt by heart.
    """

    def __init__(self, pictures: PictureSet, *, flatness: float) -> None:
        counts = pictures.counts
        self.flatness, self.counts = flatness, counts
        self.starts = torch.cumsum(counts, 0) - counts  # (classes,) first picture of each: the set is sorted by class
        self.cumulative = torch.cumsum(counts.double() ** flatness, 0)

    def draw(self, classes: int, each: int) -> tuple[Tensor, Tensor]:
        """-> picture positions and labels, both (classes * each,), the pictures of one class beside each other."""
        device = self.counts.device
        points = torch.rand(classes, device=device, dtype=torch.float64) * self.cumulative[-1]
        labels = torch.searchsorted(self.cumulative, points).clamp(max=len(self.counts) - 1).repeat_interleave(each)
        positions = self.starts[labels] + (torch.rand(labels.shape, device=device) * self.counts[labels]).long()
        return positions, labels

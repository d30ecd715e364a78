"""What is shown and asked: items of the evaluation packs by rule, and their bytes as a person would send them.

A pack is asked whole or in a *part*: a rule that says which of its pictures may be enrolled and which may be asked.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from app.domain.values import Box, Upload
from training import data, render

Form = Literal["stored", "clean", "plain", "hard", "on paper"]  # the file as it is; a mark on a ground that shows it; rendered
RENDERED: dict[str, render.RenderSpec] = {
    "plain": render.PLAIN,
    "hard": render.HARD,
    "on paper": replace(render.HARD, p_flat=1),  # no photograph is in it, so that it may be shown
}

MARGIN = 0.0  # boxes are tight
RENDER_PX = 128  # of the renders that are reported (rule 9 of the data folder's README)
RENDER_SEED = 2026
RENDERED_AT_ONCE = 128  # bounds the memory
NEARLY_WHITE = 0.85  # mean lightness of a mark from which it is enrolled on a dark ground, as in `render.clean`
SCANNED_SOURCES = ("beer", "smvsbook", "smvsdvd", "smvspaint")  # of `object-views-dev`: view 01 is the clean scan
# What the coarse classes of `grocery-store` are that come in printed cartons; the rest is loose fruit and vegetables.
CARTONS = frozenset(
    ("Juice", "Milk", "Oatghurt", "Oat-Milk", "Sour-Cream", "Sour-Milk", "Soyghurt", "Soy-Milk", "Yoghurt")
)  # fmt: skip


@dataclass(frozen=True)
class AskedItem:
    """A picture of a known class. Items of one photograph are never support and query of one episode."""

    id: str
    class_name: str
    photograph: str
    source: data.Item
    may_support: bool = True
    may_ask: bool = True
    form: Form = "stored"


@dataclass(frozen=True)
class Photograph:
    """A whole photograph and every box in it, each with its class: left, top, right, bottom in pixels."""

    id: str
    source: data.Item
    boxes: tuple[tuple[str, tuple[float, float, float, float]], ...]


def items_of(pack: Path, part: str = "") -> list[AskedItem]:
    """All items of a pack, or of a part of it, sorted by id."""
    return sorted(PARTS[part](pack), key=lambda item: item.id)


def _whole(pack: Path) -> list[AskedItem]:
    if (pack / "annotations.json.gz").exists():
        boxes = data.box_items(pack, margin=MARGIN)
        return [AskedItem(f"{box.entry}#{box.box}", box.class_name, box.entry, box) for box in boxes]
    return [_of_splits(item, support=("support", "train"), query=("query", "val")) for item in data.pack_items(pack)]


def _iconic(pack: Path) -> list[AskedItem]:
    """The retailer's one clean picture of a class is shown, shop photographs are asked."""
    items = data.pack_items(pack, split=lambda split: split in ("iconic", "val"))
    return [_of_splits(item, support=("iconic",), query=("val",)) for item in items]


def _fresh(pack: Path) -> list[AskedItem]:
    """Loose fruit and vegetables: nothing printed."""
    coarse = json.loads((pack / "coarse.json").read_text())
    items = data.pack_items(pack, split=lambda split: split in ("train", "val"))
    loose = [item for item in items if coarse[item.class_name.split("/", 1)[1]] not in CARTONS]
    return [_of_splits(item, support=("train",), query=("val",)) for item in loose]


def _of_splits(item: data.Item, *, support: Sequence[str], query: Sequence[str]) -> AskedItem:
    split = item.entry.split("/", 1)[0]
    return AskedItem(item.entry, item.class_name, item.entry, item, split in support, split in query)


def _scenes(pack: Path) -> list[AskedItem]:
    """Frames of videos: all frames of a scene count as one photograph."""
    with (pack / "frames.tsv").open() as table:
        scene_of = {row["entry"]: row["scene"] for row in csv.DictReader(table, delimiter="\t")}
    return [AskedItem(item.entry, item.class_name, f"scene {scene_of[item.entry]}", item) for item in data.pack_items(pack)]


def _marks(pack: Path) -> list[AskedItem]:
    """Mark number 0 of each brand that is for reporting: clean to be shown, rendered to be asked."""
    marks = [item for item in data.pack_items(pack, split=lambda split: split == "8") if Path(item.entry).stem == "0"]
    clean = [AskedItem(mark.entry, mark.class_name, mark.entry, mark, may_ask=False, form="clean") for mark in marks]
    return clean + [rendered_of(item, "hard") for item in clean]


PARTS: dict[str, Callable[[Path], list[AskedItem]]] = {
    "": _whole, "iconic": _iconic, "fresh": _fresh, "scenes": _scenes, "split8": _marks,
}  # fmt: skip


def brands(pack: Path) -> tuple[list[AskedItem], list[AskedItem]]:
    """Mark number 0 of every brand, clean -> those, and of split 8, which nothing was learnt from, a plain and a hard render."""
    marks = [item for item in data.pack_items(pack) if Path(item.entry).stem == "0"]
    shown = [AskedItem(mark.entry, mark.class_name, mark.entry, mark, may_ask=False, form="clean") for mark in marks]
    unseen = [item for item in shown if item.source.entry.startswith("8/")]
    return shown, [rendered_of(item, form) for form in ("plain", "hard") for item in unseen]


def rendered_of(item: AskedItem, form: Form) -> AskedItem:
    return replace(item, id=f"{item.id}@{form}", photograph=f"{item.id}@{form}", may_support=False, may_ask=True, form=form)


def scanned_objects(pack: Path) -> tuple[list[AskedItem], list[AskedItem]]:
    """Printed things of `object-views-dev` -> the scan of each, and photographs of them."""
    wanted = tuple(f"{pack.name}/{source}-" for source in SCANNED_SOURCES)
    views = [_whole_picture(item) for item in data.pack_items(pack) if item.class_name.startswith(wanted)]
    scans = [view for view in views if Path(view.source.entry).stem == "01"]
    return scans, [view for view in views if Path(view.source.entry).stem != "01"]


def package_fronts(pack: Path) -> list[AskedItem]:
    return [_whole_picture(item) for item in data.pack_items(pack)]


def source_of(item: AskedItem) -> str:
    """Of an object: the data set that it is from."""
    return item.class_name.split("/", 1)[1].split("-", 1)[0]


def photographs_of(pack: Path) -> list[Photograph]:
    """Photographs of a detection pack that are annotated with boxes, sorted by file; all boxes, however small."""
    coco = _annotations(pack)
    names = {category["id"]: f"{pack.name}/{category['name']}" for category in coco["categories"]}
    boxes: dict[int, list[tuple[str, tuple[float, float, float, float]]]] = {}
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        boxes.setdefault(annotation["image_id"], []).append((names[annotation["category_id"]], (x, y, x + width, y + height)))
    found = [
        Photograph(image["file_name"], _item_of(pack, image), tuple(sorted(boxes[image["id"]])))
        for image in coco["images"]
        if image["id"] in boxes
    ]
    return sorted(found, key=lambda photograph: photograph.id)


def foreign_items(folder: Path, pack: str = "") -> list[AskedItem]:
    """Whole pictures that show no class of `pack`, and that no threshold was fitted on (rule 7)."""
    found = []
    for name in foreign_packs(pack):
        found += [_whole_picture(item) for item in FOREIGN[name](folder / name)]
    return found


def foreign_packs(pack: str = "") -> list[str]:
    return [name for name in FOREIGN if name != pack or name == STREETS]


def foreign_crops(folder: Path, count: int) -> list[AskedItem]:
    """At most `count` boxes of things in shops, spread over what there is, as pictures of nothing enrolled."""
    boxes = data.box_items(folder / CROPPED, margin=MARGIN)
    chosen = boxes[:: max(1, -(-len(boxes) // max(1, count)))] if count else []
    return [AskedItem(f"{CROPPED}/{box.entry}#{box.box}", box.class_name, box.entry, box) for box in chosen]


def _street_scenes(pack: Path) -> list[data.Item]:
    """The photographs of FlickrLogos that show none of its brands."""
    return [_item_of(pack, image) for image in _annotations(pack)["images"] if image.get("split") == "distractor"]


STREETS = "flickrlogos27-dev"
CROPPED = "freiburg-groceries-dev"
FOREIGN: dict[str, Callable[[Path], list[data.Item]]] = {
    STREETS: _street_scenes,
    "freiburg-groceries-dev": lambda pack: [_item_of(pack, image) for image in _annotations(pack)["images"]],
    "grocery-store": lambda pack: data.pack_items(pack, split=lambda split: split == "val"),
}


def _whole_picture(item: data.Item) -> AskedItem:
    return AskedItem(f"{item.archive.parent.name}/{item.entry}", item.class_name, item.entry, item)


def plain_photographs(pack: Path) -> list[Photograph]:
    """Photographs of a detection pack that are said to show nothing of its classes, sorted by file."""
    images = [image for image in _annotations(pack)["images"] if image.get("split") == "distractor"]
    return sorted((Photograph(i["file_name"], _item_of(pack, i), ()) for i in images), key=lambda photograph: photograph.id)


def _item_of(pack: Path, image: dict[str, Any]) -> data.Item:
    zipped = pack / "images.zip"
    return data.Item(zipped if zipped.is_file() else pack / "images", image["file_name"], pack.name)


def _annotations(pack: Path) -> dict[str, Any]:
    plain, zipped = pack / "annotations.json", pack / "annotations.json.gz"
    return dict(json.loads(plain.read_bytes() if plain.is_file() else gzip.decompress(zipped.read_bytes())))


def uploads_of(items: Sequence[AskedItem], folder: Path) -> list[Upload]:
    """What a person would send of each item; photographs that marks are rendered on come from the packs in `folder`."""
    renders: dict[str, Image.Image] = {}
    for form in RENDERED:
        renders |= renders_of([item for item in items if item.form == form], folder)
    stored = data.stored_bytes(item.source for item in items)
    return [_upload(item, one, renders) for item, one in zip(items, stored, strict=True)]


def _upload(item: AskedItem, stored: bytes, renders: dict[str, Image.Image]) -> Upload:
    match item.form:
        case "clean":
            return Upload(as_png(on_a_ground_that_shows_it(Image.open(io.BytesIO(stored)))))
        case "plain" | "hard" | "on paper":
            return Upload(as_png(renders[item.id]))
    return Upload(stored, None if item.source.box is None else whole_pixels(item.source.box))


def whole_pixels(edges: tuple[float, float, float, float]) -> Box:
    left, top, right, bottom = (round(edge) for edge in edges)
    return Box(left, top, right - left, bottom - top)


def pictures_of(uploads: Sequence[Upload]) -> list[Image.Image]:
    """RGB, transparent parts over white, cut to the box."""
    return [_picture(upload) for upload in uploads]


def _picture(upload: Upload) -> Image.Image:
    picture = data.over(Image.open(io.BytesIO(upload.data)))
    if upload.box is None:
        return picture
    box = upload.box
    return picture.crop((box.x, box.y, box.x + box.width, box.y + box.height))


def on_a_ground_that_shows_it(mark: Image.Image) -> Image.Image:
    """White, or nearly black for a mark that is nearly white itself."""
    *colours, alpha = np.moveaxis(np.asarray(mark.convert("RGBA"), np.float64) / 255, -1, 0)
    lightness = (np.mean(colours, axis=0) * alpha).sum() / max(alpha.sum(), 1.0)
    return data.over(mark, "white" if lightness <= NEARLY_WHITE else (26, 26, 26))


def as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def renders_of(items: Sequence[AskedItem], folder: Path) -> dict[str, Image.Image]:
    """A render of each mark, all of one form, by id. The same ones each time that the same items are given."""
    if not items:
        return {}
    marks = data.load([item.source for item in items], side_px=RENDER_PX, mode="RGBA")
    scenes = data.load(data.pack_items(folder / "imagenet-1-per-class"), side_px=RENDER_PX).pixels
    pictures: list[np.ndarray] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RENDER_SEED)
        for faces, aspects in zip(marks.pixels.split(RENDERED_AT_ONCE), marks.aspects.split(RENDERED_AT_ONCE), strict=True):
            grounds = scenes[torch.randint(len(scenes), (len(faces),))]
            rendered = render.render(faces.float() / 255, aspects, grounds.float() / 255, RENDERED[items[0].form])
            pictures += list((rendered * 255).round().byte().permute(0, 2, 3, 1).numpy())
    ordered = sorted(items, key=lambda item: (item.class_name, item.source.entry))  # as `data.load` lays them
    return {item.id: Image.fromarray(picture) for item, picture in zip(ordered, pictures, strict=True)}

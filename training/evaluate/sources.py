"""Pictures to evaluate on, wherever they come from -> items of one kind, and their pixels.

    <class>/<file> or <split>/<class>/<file>   a folder of class folders
    images*.zip with <split>/<class>/<file>    a pack, or one zip of it
    annotations.json or .json.gz               boxes (COCO), photographs in images/ or images*.zip beside it

An item's `photograph` says what it was cut from: the COCO image, the video scene or track of `frames.tsv`, or the file itself.
Whatever cannot be used ends the command with a line that names the flag.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, ImageOps

from training import data
from training.evaluate.items import AskedItem

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
COCO_FILES = ("annotations.json", "annotations.json.gz")


@dataclass(frozen=True)
class Source:
    """Where pictures lie, the flag that said so, and which split of them is wanted; empty: all."""

    flag: str
    path: Path
    split: str = ""

    def refuse(self, why: str) -> SystemExit:
        return SystemExit(f"{self.flag} {self.path}: {why}")


def read_items(source: Source) -> list[AskedItem]:
    """All pictures or boxes of a source, sorted by id. SystemExit where there is none, or the form is unknown."""
    path = source.path
    if not path.exists():
        raise source.refuse("there is no such file or folder")
    if path.is_file():
        if path.suffix == ".zip":
            found = _pictures_in(source, path.parent, _zipped(source, [path]))
        elif path.name.endswith((".json", ".json.gz")):
            found = _boxes_in(source, path)
        else:
            raise source.refuse("a file is a zip of a pack, or COCO annotations in .json or .json.gz")
    elif coco := [path / name for name in COCO_FILES if (path / name).is_file()]:
        found = _boxes_in(source, coco[0])
    elif zips := sorted(path.glob("images*.zip")):
        found = _pictures_in(source, path, _zipped(source, zips))
    else:
        entries = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        found = _pictures_in(source, path, [(path, entry) for entry in entries])
    return sorted(found, key=lambda item: item.id)


def _zipped(source: Source, archives: Iterable[Path]) -> list[tuple[Path, str]]:
    found = []
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as stored:
                found += [(archive, entry) for entry in sorted(stored.namelist())]
        except zipfile.BadZipFile as error:
            raise source.refuse(f"{archive.name} is no zip: {error}") from error
    return found


def _pictures_in(source: Source, folder: Path, files: Iterable[tuple[Path, str]]) -> list[AskedItem]:
    """Items of `<class>/<file>` or `<split>/<class>/<file>`; files that are no pictures, or lie in no class, are passed over."""
    parts = {(archive, entry): PurePosixPath(entry).parts for archive, entry in files if _is_picture(entry)}
    depths = {len(part) for part in parts.values()}
    if not depths:
        raise source.refuse("there are no pictures in class folders, <class>/<file> or <split>/<class>/<file>")
    if len(depths) > 1 or max(depths) > 3:
        deepest = max(parts, key=lambda file: len(parts[file]))[1]
        raise source.refuse(f"pictures lie at different depths ({deepest}), not all as <class>/<file> or <split>/<class>/<file>")
    split_of = {file: part[0] if len(part) == 3 else "" for file, part in parts.items()}
    _check_split(source, split_of.values())
    photograph_of = _frames(folder)
    return [
        AskedItem(entry, part[-2], photograph_of(archive, entry, part[-2]), data.Item(archive, entry, part[-2]))
        for (archive, entry), part in parts.items()
        if source.split in ("", split_of[archive, entry])
    ]


def _is_picture(entry: str) -> bool:
    path = PurePosixPath(entry)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and len(path.parts) > 1 and not hidden


def _check_split(source: Source, splits: Iterable[str]) -> None:
    there = sorted(set(splits) - {""})
    if source.split and source.split not in there:
        flag = "--split" if source.flag == "--data" else f"{source.flag}-split"
        raise SystemExit(f"{flag} {source.split}: {source.flag} has {'the splits ' + ', '.join(there) if there else 'no splits'}")


def _frames(folder: Path) -> Callable[[Path, str, str], str]:
    """What photograph a picture counts as: all frames of a scene, or of a track of a class, are one."""
    table: dict[str, dict[str, str]] = {}
    if (folder / "frames.tsv").is_file():
        with (folder / "frames.tsv").open() as stream:
            table = {row["entry"]: row for row in csv.DictReader(stream, delimiter="\t")}

    def photograph_of(archive: Path, entry: str, class_name: str) -> str:
        row = table.get(entry, {})
        if "scene" in row:
            return f"{folder.resolve()} scene {row['scene']}"
        if "track" in row:  # counted anew in each class
            return f"{folder.resolve()} {class_name} track {row['track']}"
        return f"{archive.resolve()} {entry}"

    return photograph_of


def _boxes_in(source: Source, path: Path) -> list[AskedItem]:
    """An item for each box of MIN_BOX_PX a side or more."""
    coco = _json_of(source, path)
    try:
        photographs = {image["id"]: image for image in coco["images"]}
        names = {category["id"]: str(category["name"]) for category in coco["categories"]}
        boxes = [(photographs[a["image_id"]], names[a["category_id"]], a) for a in coco["annotations"] if not a.get("iscrowd")]
        _check_split(source, (image.get("split", "") for image in photographs.values()))
        large = [box for box in boxes if min(box[2]["bbox"][2:]) >= data.MIN_BOX_PX]
        wanted = [box for box in large if source.split in ("", box[0].get("split"))]
    except (KeyError, TypeError) as error:
        raise source.refuse(f"the annotations are not COCO: {error!r}") from error
    if not wanted:
        raise source.refuse(f"there are no boxes of {data.MIN_BOX_PX} px a side or more")
    archive_of = _photograph_files(source, path.parent, {image["file_name"] for image, _, _ in wanted})
    return [_box_item(path, archive_of[image["file_name"]], image, name, annotation) for image, name, annotation in wanted]


def _box_item(path: Path, archive: Path, image: dict[str, Any], name: str, annotation: dict[str, Any]) -> AskedItem:
    x, y, width, height = annotation["bbox"]
    item = data.Item(archive, image["file_name"], name, (x, y, x + width, y + height))
    return AskedItem(f"{image['file_name']}#{annotation['id']}", name, f"{path.resolve()} image {image['id']}", item)


def _json_of(source: Source, path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        return dict(json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw))
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise source.refuse(f"the annotations cannot be read: {error}") from error


def _photograph_files(source: Source, folder: Path, names: set[str]) -> dict[str, Path]:
    """Where each photograph lies: `images/`, or a zip."""
    found = {entry: archive for archive, entry in _zipped(source, sorted(folder.glob("images*.zip")))}
    found |= {name: folder / "images" for name in names if (folder / "images" / name).is_file()}
    if missing := sorted(names - found.keys()):
        raise source.refuse(f"{missing[0]} and {len(missing) - 1} more photographs are neither in images/ nor in images*.zip")
    return found


def decoded(items: Sequence[AskedItem]) -> Iterator[Image.Image]:
    """The picture of each item, in their order: RGB, upright, transparent parts over white, cut to the box.

    Boxes of one photograph that stand beside each other are cut from one decoding. SystemExit for a file that is no picture.
    """
    runs = [list(run) for _, run in groupby(items, key=lambda item: (item.source.archive, item.source.entry))]
    for run, stored in zip(runs, data.stored_bytes(run[0].source for run in runs), strict=True):
        try:
            whole = data.over(ImageOps.exif_transpose(Image.open(io.BytesIO(stored))))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise SystemExit(f"{flag_of(run[0])}: {run[0].source.entry} is no picture that can be read: {error}") from error
        for item in run:
            yield whole if item.source.box is None else _cut(whole, item)


def _cut(whole: Image.Image, item: AskedItem) -> Image.Image:
    left, top, right, bottom = (round(edge) for edge in item.source.box or ())
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, whole.width), min(bottom, whole.height)
    if left >= right or top >= bottom:
        raise SystemExit(f"{flag_of(item)}: box {item.id} lies outside of its photograph, {whole.width} x {whole.height} px")
    return whole.crop((left, top, right, bottom))


def flag_of(item: AskedItem) -> str:
    """Where an item came from: what is only shown is of `--support`."""
    return "--data" if item.may_ask else "--support"

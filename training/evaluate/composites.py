"""Whole photographs with several brands in each, rendered, as a folder that `evaluate detect` reads, and its episode list.

    python -m training evaluate composites --data DIR --out runs/composites
    python -m training evaluate detect --data runs/composites --way all --shot 2 --episodes 1 \\
        --episode-list runs/composites/episodes.json --model ARMS --out FILE

Brands are drawn from split 8 of `brand-marks`, which nothing was learnt from. Two examples of each, both of mark number 0, since
that is the one asked (rule 9 of the data folder's README) and a brand's second mark, where it has one, may be another sign: the
clean mark on an even ground, and a *plain* render on a photograph. Scenes show some marks each, whole, *hard* or *plain* renders;
distractors show none. The same seed gives the same bytes.

Photographs are those of `flickrlogos27-dev` that show no brand, 67 of them: the detector learns from `imagenet-1-per-class`, and
thresholds are fitted on `caltech101-dev`, which is small besides. Examples, scenes and distractors share none.

Nothing of it may be published, unless it was made with `--plain-grounds`: marks in the public domain on colours.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from training import data, render, run, scenes
from training.evaluate import brands, episodes, items
from training.evaluate.average_precision import Edges

FORMS = {"plain": render.PLAIN, "hard": render.HARD}
PHOTOGRAPHS = "flickrlogos27-dev"
EXAMPLES, SCENES, DISTRACTORS = "examples", "scenes", "distractors"  # below `images`
SHOTS = 2

SIDES_PX = (320, 416, 512)  # of scenes, which are squares
MARKS = {1: (1, 1), 2: (2, 4), 3: (3, 6)}  # cells along a side of a scene -> marks in it, at least and at most
PLACED = {"scale": (0.4, 0.72), "shift": 0.25, "stretch": (0.0, 0.0)}  # of a mark in its cell, with room for a plate around it
SHOWN_PX = 256  # side of an example that is rendered
SHOWN = replace(render.PLAIN, scale=(0.5, 0.7), shift=0.1, stretch=(0.0, 0.0))
MARGIN = 1 / 8  # around a clean mark, of its longer side
ZOOM = (1.0, 1.6)  # of photographs: 1 shows all of the shorter side

FACE_PX = 256  # of a mark, stretched to a square
FINE_PX = 512  # of a cell when a mark is drawn in it; made smaller afterwards, so that small marks are not jagged
LEAST_SIDE_PX = 12  # of a mark's box: a word is legible yet
TRIES = 50  # to place a mark whole; a long word has no room in a small cell
AT_ONCE = 12  # pictures under one camera: which of them it blurs goes by shares of them
BLURRED = (2,)  # factors of it; three leaves nothing of a mark that is an eighth of the picture
QUALITY = 92

Ground = Callable[[int], Tensor]  # a side in pixels -> (3, s, s) in [0, 1]


@dataclass(frozen=True)
class Config:
    data: Path = field(metadata={"help": "folder with the data packs"})
    out: Path = field(metadata={"help": "folder for annotations.json, images/ and episodes.json"})
    brands: int = field(default=204, metadata={"help": "brands of split 8, enrolled with two examples each"})
    scenes: int = field(default=300, metadata={"help": "pictures with some of them"})
    distractors: int = field(default=100, metadata={"help": "pictures without any"})
    renders: str = field(default="hard", metadata={"help": "how marks stand in scenes: hard or plain (training/render.py)"})
    plain_grounds: bool = field(default=False, metadata={"help": "only what may be published: free marks, no photographs"})
    seed: int = field(default=episodes.SEED, metadata={"help": "of the brands and of all that is drawn"})


@dataclass(frozen=True)
class Picture:
    pixels: Tensor  # (3, s, s) in [0, 1]
    boxes: list[tuple[int, Edges]]  # row of the mark


# --------------------------------------------------------------------------------------------------------------------- marks


def chosen_items(config: Config) -> list[data.Item]:
    """Mark number 0 of the brands that the seed chooses, sorted by class. SystemExit for more than there are."""
    pack = config.data / "brand-marks"
    marks = data.pack_items(pack, split=lambda split: split == "8")
    free = brands.free_brands(pack) if config.plain_grounds else None
    first = [item for item in marks if Path(item.entry).stem == "0" and (free is None or item.class_name in free)]
    if not 0 < config.brands <= len(first):
        kind = "in the public domain" if config.plain_grounds else "in split 8"
        raise SystemExit(f"--brands {config.brands}: there are {len(first)} {kind}")
    order = np.random.default_rng(config.seed).permutation(len(first))[: config.brands]
    return sorted((first[row] for row in order), key=lambda item: item.class_name)


def clean_example(stored: bytes) -> tuple[Image.Image, Edges]:
    """The mark on an even ground, with room around it, and its box."""
    mark = Image.open(io.BytesIO(stored)).convert("RGBA")
    room = round(MARGIN * max(mark.size))
    padded = ImageOps.expand(mark, room, (0, 0, 0, 0))
    return items.on_a_ground_that_shows_it(padded), (room, room, room + mark.width, room + mark.height)


def drawn_mark(
    marks: data.PictureSet, row: int, spec: render.RenderSpec, side_px: int, lightness: Tensor
) -> tuple[Tensor, Tensor, Edges] | None:
    """A mark alone in a cell -> colours times cover (3, s, s), cover (1, s, s), and its box; None where it has no room."""
    face, finer = marks.pixels[row : row + 1].float() / 255, max(1, FINE_PX // side_px)
    for _ in range(TRIES):
        drawn = scenes.placed(face, marks.aspects[row : row + 1], spec, finer * side_px, lightness)
        drawn = F.avg_pool2d(drawn, finer)
        (covered,), _ = scenes.boxes_of(drawn[:, 3:4] > 0.1)  # with the plate, if it has one
        (box,), _ = scenes.boxes_of(drawn[:, 4:] > 0.5)
        is_whole = bool((covered[:2] > 0).all() and (covered[2:] < side_px).all())
        if is_whole and float((box[2:] - box[:2]).min()) >= LEAST_SIDE_PX:
            left, top, right, bottom = box.tolist()
            return drawn[0, :3], drawn[0, 3:4], (left, top, right, bottom)
    return None


def laid_on(ground: Tensor, marks: data.PictureSet, rows: Sequence[int], spec: render.RenderSpec, along: int) -> Picture:
    """Marks in cells of the ground, `along` to a side, at most one in each."""
    picture, cell = ground.clone(), ground.shape[-1] // along
    boxes: list[tuple[int, Edges]] = []
    for row, place in zip(rows, torch.randperm(along * along).tolist(), strict=False):
        y, x = (cell * step for step in divmod(place, along))
        part = picture[:, y : y + cell, x : x + cell]
        drawn = drawn_mark(marks, row, spec, cell, part.mean().view(1))
        if drawn is not None:
            colours, cover, (left, top, right, bottom) = drawn
            part.copy_(part * (1 - cover) + colours)
            boxes.append((row, (left + x, top + y, right + x, bottom + y)))
    return Picture(picture, boxes)


# ------------------------------------------------------------------------------------------------------------------- grounds


def grounds_of(config: Config) -> dict[str, Ground]:
    """What examples, scenes and distractors are drawn on; no photograph is in two of them."""
    if config.plain_grounds:
        return dict.fromkeys((EXAMPLES, SCENES, DISTRACTORS), plain_ground)
    photographs = items.plain_photographs(config.data / PHOTOGRAPHS)
    few = len(photographs) // 6  # each example is seen once
    many = few + (len(photographs) - few) // 2
    if not few:
        raise SystemExit(f"--data {config.data}: {PHOTOGRAPHS} has {len(photographs)} photographs without a brand, 6 are needed")
    order = [photographs[row] for row in torch.randperm(len(photographs)).tolist()]
    parts = {EXAMPLES: order[:few], SCENES: order[few:many], DISTRACTORS: order[many:]}
    return {name: photographed_ground([photograph.source for photograph in part]) for name, part in parts.items()}


def photographed_ground(sources: Sequence[data.Item]) -> Ground:
    """Parts of photographs, one after another."""
    stored = list(data.stored_bytes(sources))
    turn = without_end(len(stored))
    return lambda side_px: part_of(data.over(Image.open(io.BytesIO(stored[next(turn)]))), side_px)


def part_of(photograph: Image.Image, side_px: int) -> Tensor:
    scale = side_px * float(torch.empty(1).uniform_(*ZOOM)) / min(photograph.size)
    width, height = (max(side_px, round(side * scale)) for side in photograph.size)
    left, top = (int(torch.randint(side - side_px + 1, (1,))) for side in (width, height))
    sized = photograph.resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(sized.crop((left, top, left + side_px, top + side_px)))).permute(2, 0, 1) / 255


def plain_ground(side_px: int) -> Tensor:
    """A colour that turns into another, not far from it."""
    axis = torch.linspace(-1, 1, side_px)
    across, down = torch.rand(2) * 2 - 1
    slope = (across * axis[None, :] + down * axis[:, None]) / 2  # (s, s)
    return (torch.rand(3, 1, 1) + (torch.rand(3, 1, 1) - 0.5) * 0.5 * slope).clamp(0, 1)


def without_end(count: int) -> Iterator[int]:
    """Each of so many numbers once, in a random order, and again in another."""
    while True:
        yield from torch.randperm(count).tolist()


# ------------------------------------------------------------------------------------------------------------------ pictures


def examples_of(marks: data.PictureSet, ground: Ground) -> Iterator[Picture]:
    """A plain render of each mark."""
    rows = range(len(marks.pixels))
    for start in range(0, len(rows), AT_ONCE):
        laid = [laid_on(ground(SHOWN_PX), marks, [row], SHOWN, 1) for row in rows[start : start + AT_ONCE]]
        yield from under_a_camera(laid, SHOWN)


def scenes_of(marks: data.PictureSet, ground: Ground, spec: render.RenderSpec, count: int) -> Iterator[Picture]:
    """Every brand comes once before one comes again, but for long words that have no room in their cell."""
    deck = without_end(len(marks.pixels))
    for start, side_px in parts_of(count):
        laid = []
        for number in range(start, min(count, start + AT_ONCE)):
            along = number % len(MARKS) + 1
            least, most = MARKS[along]
            rows = list(islice(deck, int(torch.randint(least, most + 1, (1,)))))
            laid.append(laid_on(ground(side_px), marks, rows, replace(spec, **PLACED), along))
        yield from under_a_camera(laid, spec)


def distractors_of(ground: Ground, spec: render.RenderSpec, count: int) -> Iterator[Picture]:
    for start, side_px in parts_of(count):
        yield from under_a_camera([Picture(ground(side_px), []) for _ in range(start, min(count, start + AT_ONCE))], spec)


def parts_of(count: int) -> Iterator[tuple[int, int]]:
    """Where each part of so many pictures starts, and the side of its pictures."""
    starts = range(0, count, AT_ONCE)
    return ((start, SIDES_PX[turn % len(SIDES_PX)]) for turn, start in enumerate(starts))


def under_a_camera(laid: Sequence[Picture], spec: render.RenderSpec) -> Iterator[Picture]:
    """Light and a camera's faults over the whole of pictures of one size."""
    spec = replace(spec, resample=BLURRED)
    order = torch.randperm(len(laid))  # which are blurred goes by position
    pixels = torch.stack([one.pixels for one in laid])[order]
    strength = render.uniform(len(laid), *spec.strength, pixels)
    pixels = render.degraded(render.lit(pixels, spec, strength), spec, strength).clamp(0, 1)[order.argsort()]
    return (replace(one, pixels=taken) for one, taken in zip(laid, pixels, strict=True))


# -------------------------------------------------------------------------------------------------------------------- folder


class Folder:
    """Pictures with their boxes, as COCO has them."""

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self._path = path
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories = [{"id": row, "name": name.split("/", 1)[1]} for row, name in enumerate(class_names)]

    def add(self, file: str, picture: Image.Image, boxes: Sequence[tuple[int, Edges]]) -> None:
        """The part of the file's name before the first slash is the picture's `split`, as `items.plain_photographs` reads it."""
        stored = self._path / "images" / file
        stored.parent.mkdir(parents=True, exist_ok=True)
        picture.save(stored, "JPEG", quality=QUALITY)
        image = len(self._images)
        size = {"width": picture.width, "height": picture.height}
        self._images.append({"id": image, "file_name": file, **size, "split": file.split("/")[0].removesuffix("s")})
        for row, (left, top, right, bottom) in boxes:
            width, height = right - left, bottom - top
            self._annotations.append(
                {"id": len(self._annotations), "image_id": image, "category_id": row, "bbox": [left, top, width, height],
                 "area": width * height, "iscrowd": 0}
            )  # fmt: skip

    def write(self) -> None:
        coco = {"images": self._images, "categories": self._categories, "annotations": self._annotations}
        (self._path / "annotations.json").write_text(json.dumps(coco, separators=(",", ":")) + "\n")


def as_picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())


def episode_of(folder: Path) -> dict[str, Any]:
    """The list of one episode: every brand by its examples, and all scenes and distractors asked, in this order."""
    photographs, plain = items.photographs_of(folder), items.plain_photographs(folder)
    names = episodes.class_names_of(photographs)
    shown: dict[str, list[tuple[str, int]]] = {name: [] for name in names}
    for photograph in photographs:
        if photograph.id.startswith(f"{EXAMPLES}/"):
            shown[photograph.boxes[0][0]].append((photograph.id, 0))
    asked = [one.id for one in (*photographs, *plain) if not one.id.startswith(f"{EXAMPLES}/")]
    return {
        "pack": folder.resolve().name, "items": episodes.hash_of_photographs(photographs), "classes": names,
        "episodes": [{"shown": shown, "asked": asked}],
    }  # fmt: skip


def draw(config: Config) -> None:
    chosen = chosen_items(config)
    marks = data.load(chosen, side_px=FACE_PX, mode="RGBA", workers=1)
    spec, folder = FORMS[config.renders], Folder(config.out, marks.class_names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        grounds = grounds_of(config)
        clean, rendered = data.stored_bytes(chosen), examples_of(marks, grounds[EXAMPLES])
        together = zip(marks.class_names, clean, rendered, strict=True)
        for row, (name, stored, example) in enumerate(tqdm(together, desc=EXAMPLES, total=len(chosen), mininterval=10)):
            stem, (picture, edges) = name.split("/", 1)[1], clean_example(stored)
            folder.add(f"{EXAMPLES}/{stem}-0.jpg", picture, [(row, edges)])
            folder.add(f"{EXAMPLES}/{stem}-1.jpg", as_picture(example.pixels), example.boxes)
        for name, pictures, count in (
            (SCENES, scenes_of(marks, grounds[SCENES], spec, config.scenes), config.scenes),
            (DISTRACTORS, distractors_of(grounds[DISTRACTORS], spec, config.distractors), config.distractors),
        ):
            for number, one in enumerate(tqdm(pictures, desc=name, total=count, mininterval=10)):
                folder.add(f"{name}/{number:04}.jpg", as_picture(one.pixels), one.boxes)
    folder.write()


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Rendered scenes with brands that nothing was learnt from.")
    if config.renders not in FORMS:
        raise SystemExit(f"--renders {config.renders}: it is {' or '.join(FORMS)}")
    if config.scenes < 1 or config.distractors < 0:
        raise SystemExit(
            f"--scenes {config.scenes}, --distractors {config.distractors}: one scene or more, and no fewer than none"
        )
    draw(config)
    listed = episode_of(config.out)
    (config.out / "episodes.json").write_text(json.dumps(listed, separators=(",", ":")) + "\n")
    (episode,) = listed["episodes"]
    print(f"{len(episode['shown'])} brands, {len(episode['asked'])} pictures asked, in {config.out}")

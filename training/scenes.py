"""Scenes with boxes, for the detector: things rendered onto photographs, which may have boxes of their own.

Everything is drawn anew in each step by batched tensor operations on the device: a background for each scene, a layer of things
in a grid of cells on top (each cell shows one at most, so that one sampling serves a whole layer), light, contrast and noise over
all. Boxes of things are read off the pixels that they cover, so that they are right whatever geometry was drawn.

Which packs stand here is what the detector learns from. The rules are those of the data folder's README.
"""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training import data, render
from training.batches import BOX_PACKS, FRONTS, LEFT_OUT, photograph_items, training_split

# Labels below 0. Cells on what is ignored are neither thing nor background: cut off, too small, or half covered.
UNNAMED, ABSENT, IGNORED = -1, -2, -3

STORED_PX = 320  # of photographs, stretched to squares
FACE_PX = 128  # of marks, fronts and crops
MOST_BOXES = 64  # of a photograph, the largest; what has more counts as incomplete
LEAST_SIDE_PX = 8.0  # of a box that is a thing
LEAST_VISIBLE = 0.4  # of a thing's area that has to be in the frame
COVERED = 0.3  # of a photograph's box, the share under another thing from which it is ignored
CELLS = (1, 2, 3, 4)  # cells along a side of a scene's layer, each for a quarter of the batch
GREY = 0.5  # around a photograph that does not fill the frame

PHOTOGRAPH_PACKS = (*BOX_PACKS, "coco256")
PLAIN_PACKS = ("imagenet-1-per-class",)  # photographs without boxes
CROP_PACKS = (*BOX_PACKS, "vehicle-logos-dev", "object-views-dev")  # things as rectangles, cut out of their photographs
# One name for many things: good for where things are, not for which. And all of coco256: kinds of thing, a few pictures each.
NO_CLASS = (
    "coco256/", "multidomain-det-dev/groceries-object/", "multidomain-det-dev/medicine-packs/", "multidomain-det-dev/boxes/",
)  # fmt: skip
SOURCED_PACKS = ("multidomain-det-dev", "toplogo10-dev")  # in whose class names stands a source, or a brand
FORBIDDEN = tuple(name for name in LEFT_OUT if name not in NO_CLASS)  # a photograph of one of these is left out whole
# Sources that do not box all they show, as their SOURCE.md says.
INCOMPLETE = (
    "toplogo10-dev", "freiburg-groceries-dev", "coco256",
    *(f"multidomain-det-dev/{source}/" for source in (
        "blood-cells", "amenities", "indonesian-dishes", "diet-plates", "modak", "ice-cream", "lawn-weeds", "pororo", "logos-six",
        "nuts-dates", "road-signs",
    )),
)  # fmt: skip
HELD_OUT_SHARE = 0.2  # of the sources of boxes and of the brands of toplogo10-dev: choices are made on them
KEPT_BACK_SHARE = 0.1  # of the photographs of the others: classes that are learnt are looked for in them

# A mark or a front anywhere in its cell, at a quarter to nearly all of its side.
MARKS = replace(
    render.TRAIN, scale=(0.35, 0.98), shift=0.3, stretch=(0.0, 0.0), perspective_sd=0.1, rotation_sd=9, p_occluder=0.2
)  # fmt: skip
PRINTED = replace(FRONTS, scale=(0.4, 0.98), shift=0.3, stretch=(0.0, 0.0), perspective_sd=0.1, p_occluder=0.2)
CROPS = replace(PRINTED, rotation_sd=4, perspective_sd=0.04, p_cylinder=0.0)
CAMERA = replace(render.TRAIN, light=0.3, contrast=(0.5, 1.25), p_resample=0.25, resample=(2,), noise=0.04, colour=0.12)
ZOOM = (0.7, 1.9)  # of photographs: 1 shows all of one in the frame
PLATE_GAP = 0.22  # of lightness: a mark that is nearer to its ground stands on a plate of another colour
P_PLATE = 0.3


@dataclass(frozen=True)
class Photographs:
    """Backgrounds, with the boxes that they have."""

    pixels: Tensor  # uint8 (n, 3, s, s), stretched to squares
    aspects: Tensor  # (n,) width / height before that
    boxes: Tensor  # (n, b, 4) left, top, right, bottom, in [-1, 1] of the square
    labels: Tensor  # int64 (n, b): a class, or UNNAMED, or ABSENT where there is no box
    is_complete: Tensor  # bool (n,): all that it shows has a box
    weights: Tensor  # (n,) how often each is drawn

    def to(self, device: torch.device) -> Photographs:
        return Photographs(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Things:
    """What is laid on photographs: one kind of it, drawn class by class."""

    pictures: data.PictureSet  # RGBA, or RGB for what fills its rectangle
    sampler: data.ClassSampler
    first_label: int
    share: float  # of the things of a scene
    spec: render.RenderSpec


@dataclass(frozen=True)
class Stock:
    """All that scenes are drawn from."""

    things: tuple[Things, ...]
    boxed: Photographs
    plain: Photographs
    class_names: tuple[str, ...]

    def first_of(self, label: int) -> tuple[Tensor, float]:
        """The first picture of a class of things (1, c, s, s) in [0, 1], stretched to a square, and its width over height."""
        things = next(one for one in reversed(self.things) if one.first_label <= label)
        pictures = things.pictures
        row = int((torch.cumsum(pictures.counts, 0) - pictures.counts)[label - things.first_label])
        return pictures.pixels[row : row + 1].float() / 255, float(pictures.aspects[row])


@dataclass(frozen=True)
class Scenes:
    pictures: Tensor  # (n, 3, s, s) in [0, 1]
    boxes: Tensor  # (n, b, 4) left, top, right, bottom in pixels
    labels: Tensor  # int64 (n, b): a class, UNNAMED, ABSENT or IGNORED
    is_complete: Tensor  # bool (n,): what has no box is background


@dataclass(frozen=True)
class SceneSpec:
    side_px: int
    count: int  # scenes of a batch, a multiple of 4
    boxed_share: float = 0.4  # of them, those on photographs with boxes
    p_thing: float = 0.6  # that a cell shows a thing; a quarter of it on photographs with boxes


# --------------------------------------------------------------------------------------------------------------------- packs


def held_out(name: str) -> bool:
    """Whether a class `<pack>/<source or brand>…` of boxes is for choosing: whole sources, and brands of toplogo10-dev."""
    pack, source = name.split("/")[:2]
    return pack in SOURCED_PACKS and data.share_of(f"{pack}/{source}") < HELD_OUT_SHARE


def kept_back(name: str, entry: str) -> bool:
    """Whether a photograph, by a class that it shows and its file, is for looking for learnt classes: RepMet's base classes."""
    pack = name.split("/")[0]
    return pack in SOURCED_PACKS and not held_out(name) and data.share_of(f"{pack}/{entry}") < KEPT_BACK_SHARE


def learnt_from(name: str, entry: str) -> bool:
    return not held_out(name) and not kept_back(name, entry)


def source_of(name: str) -> str:
    """Where a class `<pack>/…` of boxes is from: its pack, or its source in `multidomain-det-dev`."""
    return "/".join(name.split("/")[: 2 if name.startswith("multidomain-det-dev/") else 1])


def read_stock(folder: Path, *, few: bool = False) -> Stock:
    """What training draws from: splits 0 to 6 of marks and fronts, crops and photographs of the packs that it may learn from."""
    part = slice(None, 200) if few else slice(None)
    things = read_things(learnt_kinds(folder, few=few))
    names = tuple(name for one in things for name in one.pictures.class_names)
    boxed = read_boxed(folder, names, wanted=learnt_from, part=part)
    return Stock(things, boxed, read_plain(folder, part=part), names)


def learnt_class_names(folder: Path, *, few: bool = False) -> tuple[str, ...]:
    """Those of `read_stock`, by label; no picture is read."""
    return tuple(name for kind in learnt_kinds(folder, few=few) for name in data.class_names_of(kind.items))


def read_chosen_on(folder: Path, *, few: bool = False) -> Stock:
    """What choices are made on: split 7 of marks and fronts, and sources and brands held out."""
    part = slice(None, 60) if few else slice(None)
    things = read_things(printed_kinds(folder, in_split=lambda split: split == "7", part=part))
    names = tuple(name for one in things for name in one.pictures.class_names)
    boxed = read_boxed(folder, names, wanted=lambda name, _: held_out(name), part=part)
    return Stock(things, boxed, read_plain(folder, part=part), names)


@dataclass(frozen=True)
class Kind:
    """Things of one kind before they are decoded; fields as of `Things` and `data.ClassSampler`."""

    items: Sequence[data.Item]
    mode: str
    share: float
    flatness: float
    spec: render.RenderSpec


def learnt_kinds(folder: Path, *, few: bool) -> list[Kind]:
    """Marks, fronts and crops, in this order of labels."""
    crops = [
        item
        for item in photograph_items(folder)
        if item.class_name.startswith(CROP_PACKS) and learnt_from(item.class_name, item.entry)
    ]
    kinds = printed_kinds(folder, in_split=training_split, part=slice(None, 200) if few else slice(None))
    return [*kinds, Kind(crops[:: len(crops) // 100 + 1] if few else crops, "RGB", 0.15, 0.5, CROPS)]


def printed_kinds(folder: Path, *, in_split: Callable[[str], bool], part: slice) -> list[Kind]:
    """Marks and fronts."""
    marks = data.pack_items(folder / "brand-marks", split=in_split)[part]
    fronts = data.pack_items(folder / "package-fronts", split=in_split)[part]
    return [Kind(marks, "RGBA", 0.6, 0.0, MARKS), Kind(fronts, "RGBA", 0.25, 0.0, PRINTED)]


def read_things(kinds: Sequence[Kind]) -> tuple[Things, ...]:
    """Kind after kind, in the order of labels."""
    workers = os.cpu_count() or 1
    found, first_label = [], 0
    for kind in kinds:
        pictures = data.load(kind.items, side_px=FACE_PX, mode=kind.mode, workers=workers)
        found.append(Things(pictures, data.ClassSampler(pictures, flatness=kind.flatness), first_label, kind.share, kind.spec))
        first_label += len(pictures.class_names)
    return tuple(found)


def read_boxed(folder: Path, class_names: Sequence[str], *, wanted: Callable[[str, str], bool], part: slice) -> Photographs:
    """Photographs with boxes all of whose classes are `wanted`, by class and file. Sources are drawn by the root of their size,
    so that none of many pictures of one table or shelf is most of what is seen."""
    label_of = {name: label for label, name in enumerate(class_names)}
    items, boxes, sources = [], [], []
    for pack in PHOTOGRAPH_PACKS:
        for image, named in _annotated(folder / pack):
            names = [name for name, _ in named]
            if (
                names
                and all(wanted(name, image["file_name"]) for name in names)
                and not any(name.startswith(FORBIDDEN) for name in names)
            ):
                items.append(data.Item(folder / pack / "images.zip", image["file_name"], pack))
                boxes.append((image, named))
                sources.append(source_of(names[0]))
    items, boxes, sources = items[part], boxes[part], sources[part]
    pixels, aspects = _pixels(items)
    corners, labels = torch.zeros(len(items), MOST_BOXES, 4), torch.full((len(items), MOST_BOXES), ABSENT)
    is_complete = torch.ones(len(items), dtype=torch.bool)
    for row, (image, named) in enumerate(boxes):
        largest = sorted(named, key=lambda one: -one[1][2] * one[1][3])
        is_complete[row] = len(named) <= MOST_BOXES and not named[0][0].startswith(INCOMPLETE)
        for column, (name, (x, y, w, h)) in enumerate(largest[:MOST_BOXES]):
            sides = torch.tensor([image["width"], image["height"]] * 2, dtype=torch.float32)
            corners[row, column] = torch.tensor([x, y, x + w, y + h]) / sides * 2 - 1
            labels[row, column] = label_of.get(name, UNNAMED)
    counts = {source: sources.count(source) for source in set(sources)}
    weights = torch.tensor([counts[source] ** -0.5 for source in sources])
    return Photographs(pixels, aspects, corners, labels, is_complete, weights)


def read_plain(folder: Path, *, part: slice) -> Photographs:
    """Photographs without boxes; what they show is background, things of no interest."""
    pixels, aspects = _pixels([item for pack in PLAIN_PACKS for item in data.pack_items(folder / pack)][part])
    n = len(pixels)
    boxes, labels = torch.zeros(n, 0, 4), torch.zeros(n, 0, dtype=torch.int64)
    return Photographs(pixels, aspects, boxes, labels, torch.ones(n, dtype=torch.bool), torch.ones(n))


def _annotated(pack: Path) -> list[tuple[dict[str, Any], list[tuple[str, tuple[float, float, float, float]]]]]:
    """Images as COCO has them, each with its boxes: class `<pack>/<name>` and x, y, width, height."""
    coco = json.loads(gzip.decompress((pack / "annotations.json.gz").read_bytes()))
    names = {category["id"]: f"{pack.name}/{category['name']}" for category in coco["categories"]}
    of_image: dict[int, list[tuple[str, tuple[float, float, float, float]]]] = {}
    for annotation in coco["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append((names[annotation["category_id"]], tuple(annotation["bbox"])))
    return [(image, of_image.get(image["id"], [])) for image in coco["images"]]


def _pixels(items: Sequence[data.Item]) -> tuple[Tensor, Tensor]:
    """In the order of the items, unlike `data.load`: boxes lie beside them."""
    pixels, aspects = torch.empty((len(items), 3, STORED_PX, STORED_PX), dtype=torch.uint8), torch.empty(len(items))
    for row, stored in enumerate(data.stored_bytes(items)):
        square, aspects[row] = data.decode_item(items[row], stored, STORED_PX, "RGB")
        pixels[row] = torch.from_numpy(square.copy()).permute(2, 0, 1)
    return pixels, aspects


def on_device(stock: Stock, device: torch.device) -> Stock:
    def moved(one: Things) -> Things:
        pictures = one.pictures.to(device)
        return replace(one, pictures=pictures, sampler=data.ClassSampler(pictures, flatness=one.sampler.flatness))

    return Stock(tuple(map(moved, stock.things)), stock.boxed.to(device), stock.plain.to(device), stock.class_names)


# --------------------------------------------------------------------------------------------------------------- backgrounds


def view(photographs: Photographs, rows: Tensor, side_px: int, zoom: render.Range = ZOOM) -> tuple[Tensor, Tensor, Tensor]:
    """A random part of each photograph, its aspect ratio restored -> pictures (n, 3, s, s), boxes in pixels, labels.

    Grey where the photograph does not reach.
    """
    pixels = photographs.pixels[rows].float() / 255
    n = len(rows)
    aspects = photographs.aspects[rows]
    scale = torch.exp(render.uniform(n, math.log(zoom[0]), math.log(zoom[1]), pixels))
    half = torch.stack([scale * aspects.clamp(max=1), scale / aspects.clamp(min=1)], 1)  # (n, 2) of the photograph, in the frame
    centre = (torch.rand(n, 2, device=pixels.device) * 2 - 1) * (half - 1).abs()
    theta = torch.zeros(n, 2, 3, device=pixels.device)  # frame -> photograph
    theta[:, 0, 0], theta[:, 1, 1] = 1 / half[:, 0], 1 / half[:, 1]
    theta[:, :, 2] = -centre / half
    grid = F.affine_grid(theta, [n, 3, side_px, side_px], align_corners=False)
    pictures = F.grid_sample(pixels - GREY, grid, mode="bilinear", align_corners=False) + GREY
    boxes = photographs.boxes[rows] * half.repeat(1, 2)[:, None] + centre.repeat(1, 2)[:, None]  # in [-1, 1] of the frame
    return pictures, *clipped((boxes + 1) * (side_px / 2), photographs.labels[rows], side_px)


def clipped(boxes: Tensor, labels: Tensor, side_px: int) -> tuple[Tensor, Tensor]:
    """Boxes in pixels, clipped to the frame; what is outside is ABSENT, what is cut off or too small IGNORED."""
    inside = boxes.clamp(0, side_px)
    sides = inside[..., 2:] - inside[..., :2]
    whole = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    is_whole = (sides.prod(-1) >= LEAST_VISIBLE * whole) & (sides.min(-1).values >= LEAST_SIDE_PX)
    labels = torch.where((labels != ABSENT) & ~is_whole, IGNORED, labels)
    return inside, torch.where(sides.min(-1).values <= 0, ABSENT, labels)


def assembled(cells: Tensor, along: int) -> Tensor:
    """Cells (n * along * along, c, s, s) -> n pictures (n, c, along * s, along * s)."""
    channels, side = cells.shape[1], cells.shape[2]
    grid = cells.view(-1, along, along, channels, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, along * side, along * side)


def plain_grounds(photographs: Photographs, count: int, side_px: int) -> Tensor:
    """Half of them are one photograph, half four small ones: those are as sharp as the things that are laid on them."""
    fours = count // 2
    rows = torch.randint(len(photographs.pixels), (count - fours + 4 * fours,), device=photographs.pixels.device)
    single, _, _ = view(photographs, rows[: count - fours], side_px, (1.0, 1.6))
    small, _, _ = view(photographs, rows[count - fours :], side_px // 2, (1.0, 1.6))
    return torch.cat([single, assembled(small, 2)])


# -------------------------------------------------------------------------------------------------------------------- things


@dataclass(frozen=True)
class Layer:
    """Things on nothing, to be laid on as many pictures."""

    colours: Tensor  # (n, 3, s, s), premultiplied by `cover`
    cover: Tensor  # (n, 1, s, s)
    boxes: Tensor  # (n, cells, 4) in pixels
    labels: Tensor  # (n, cells); ABSENT where a cell is empty


def layer(stock: Stock, grounds: Tensor, along: int, p_thing: Tensor) -> Layer:
    """A thing in some of the cells, `along` to a side and one more: the window on them starts anywhere in the first.

    `p_thing` (n,): that a cell of a picture shows one.
    """
    n, side = len(grounds), grounds.shape[-1]
    cell, cells = -(-side // along), along + 1
    x0, y0 = torch.randint(cell, (2,), device=grounds.device).tolist()
    room = cells * cell - side
    around = F.pad(grounds, (x0, room - x0, y0, room - y0), mode="replicate") if max(x0, y0, room - x0, room - y0) else grounds
    lightness = F.avg_pool2d(around.mean(1, keepdim=True), cell).flatten()  # (n * cells * cells,) under each cell
    drawn, labels = draw_things(stock, len(lightness), cell, lightness)
    is_there = torch.rand(len(labels), device=grounds.device) < p_thing.repeat_interleave(cells * cells)
    drawn = drawn * is_there.view(-1, 1, 1, 1)
    labels = torch.where(is_there, labels, ABSENT)
    window = (slice(None), slice(None), slice(y0, y0 + side), slice(x0, x0 + side))
    boxes, seen = boxes_of(drawn[:, 4:] > 0.5)  # before the window: what is cut off by it is known by its share
    corner = torch.arange(cells, device=grounds.device) * cell
    corners = torch.cartesian_prod(corner - y0, corner - x0).flip(1).repeat(n, 2)  # x, y, x, y of each cell
    boxes, labels = clipped((boxes + corners).view(n, -1, 4), torch.where(seen, labels, ABSENT).view(n, -1), side)
    sheet = assembled(drawn[:, :4], cells)[window]
    return Layer(sheet[:, :3], sheet[:, 3:], boxes, labels)


def draw_things(stock: Stock, count: int, cell_px: int, lightness: Tensor) -> tuple[Tensor, Tensor]:
    """`count` things, each alone in a cell -> premultiplied colours, cover and the thing itself (count, 5, s, s), and labels.

    The cover is the thing and the plate that it may stand on; a box is of the thing. `lightness` (count,) of the grounds.
    """
    order = torch.randperm(count, device=lightness.device)  # kinds are drawn by position
    shares = [one.share for one in stock.things]
    ends = [round(count * sum(shares[: k + 1]) / sum(shares)) for k in range(len(shares))]
    found, labels = [], []
    for one, start, end in zip(stock.things, [0, *ends], ends, strict=False):
        if end == start:
            continue
        positions, drawn = one.sampler.draw(end - start, 1)
        faces = one.pictures.pixels[positions].float() / 255
        for _ in range(int(math.log2(max(1.0, FACE_PX / cell_px)))):
            faces = F.avg_pool2d(faces, 2)  # sampled at a smaller side, the full one would alias
        found.append(placed(faces, one.pictures.aspects[positions], one.spec, cell_px, lightness[order[start:end]]))
        labels.append(drawn + one.first_label)
    back = order.argsort()
    return torch.cat(found)[back], torch.cat(labels)[back]


def placed(faces: Tensor, aspects: Tensor, spec: render.RenderSpec, side_px: int, lightness: Tensor) -> Tensor:
    """Faces (n, 3 or 4, m, m) -> as a camera would see them, on nothing (n, 5, s, s): colours, cover, thing."""
    n = len(faces)
    strength = render.uniform(n, *spec.strength, faces)
    alpha = faces[:, 3:] if faces.shape[1] == 4 else torch.ones_like(faces[:, :1])
    colours = render.recoloured(faces[:, :3], spec)
    shown = colours * alpha
    own = shown.sum((1, 2, 3)) / (3 * alpha.sum((1, 2, 3))).clamp(min=1)
    plated = ((own - lightness).abs() < PLATE_GAP) | render.chance(n, P_PLATE, faces)
    plate = torch.rand(n, 3, 1, 1, device=faces.device)
    plate = torch.where(own.view(n, 1, 1, 1) < 0.5, 0.6 + 0.4 * plate, 0.4 * plate)  # light under what is dark
    edge = faces.shape[-1] // 8
    padded = F.pad(torch.cat([shown, alpha], 1), (edge, edge, edge, edge))
    thing = padded[:, 3:]
    on_plate = padded[:, :3] + plate * (1 - thing)
    has_plate = (plated & (alpha.mean((1, 2, 3)) < 0.95)).view(n, 1, 1, 1)  # what fills its rectangle needs none
    layered = torch.cat(
        [torch.where(has_plate, on_plate, padded[:, :3]), torch.where(has_plate, torch.ones_like(thing), thing), thing], 1
    )
    bend = render.uniform(n, 0.4, 1.2, faces) * render.chance(n, spec.p_cylinder, faces)
    wider = 1 + 2 * edge / faces.shape[-1]
    grid = render.sampling_grid(render.placement(aspects, spec, strength), side_px, bend) / wider
    sampled = F.grid_sample(layered, grid, mode="bilinear", align_corners=False)
    hidden = render.occluded(torch.zeros_like(sampled[:, :1]), torch.ones_like(sampled[:, :1]), spec.p_occluder)
    return torch.cat([sampled[:, :4] * (1 - hidden), sampled[:, 4:]], 1)  # the box is of all of the thing


def boxes_of(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (n, 1, s, s) -> tight boxes in pixels (n, 4), and whether there is anything (n,)."""
    side = masks.shape[-1]
    columns, rows = masks.any(2).squeeze(1).float(), masks.any(3).squeeze(1).float()  # (n, s) each
    low = [line.argmax(1) for line in (columns, rows)]
    high = [side - line.flip(1).argmax(1) for line in (columns, rows)]
    return torch.stack([*low, *high], 1).float(), columns.any(1)


# -------------------------------------------------------------------------------------------------------------------- scenes


@torch.no_grad()
def draw_scenes(stock: Stock, spec: SceneSpec) -> Scenes:
    """A batch of scenes, in no order."""
    device = stock.plain.pixels.device
    boxed = round(spec.count * spec.boxed_share)
    drawn = torch.multinomial(stock.boxed.weights, boxed, replacement=True)
    pictures, boxes, labels = view(stock.boxed, drawn, spec.side_px)
    pictures = torch.cat([pictures, plain_grounds(stock.plain, spec.count - boxed, spec.side_px)])
    more = spec.count - boxed
    boxes = torch.cat([boxes, boxes.new_zeros(more, boxes.shape[1], 4)])
    labels = torch.cat([labels, labels.new_full((more, labels.shape[1]), ABSENT)])
    is_complete = torch.cat([stock.boxed.is_complete[drawn], torch.ones(more, dtype=torch.bool, device=device)])
    p_thing = torch.full((spec.count,), spec.p_thing, device=device)
    p_thing[:boxed] /= 4
    order = torch.randperm(spec.count, device=device)
    pictures, boxes, labels, is_complete, p_thing = (x[order] for x in (pictures, boxes, labels, is_complete, p_thing))
    return photographed(laid_on(stock, pictures, boxes, labels, p_thing), is_complete)


def laid_on(stock: Stock, grounds: Tensor, boxes: Tensor, labels: Tensor, p_thing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Grounds with things on them, a quarter of the batch for each fineness of cells -> pictures, boxes, labels."""
    most = (CELLS[-1] + 1) ** 2
    pictures, all_boxes, all_labels = [], [], []
    for along, ground, own, named, p in zip(
        CELLS, *(x.chunk(len(CELLS)) for x in (grounds, boxes, labels, p_thing)), strict=True
    ):
        things = layer(stock, ground, along, p)
        pictures.append(ground * (1 - things.cover) + things.colours)
        named = torch.where((named != ABSENT) & (covered(own, things) > COVERED), IGNORED, named)
        room = most - things.labels.shape[1]
        all_boxes.append(torch.cat([own, F.pad(things.boxes, (0, 0, 0, room))], 1))
        all_labels.append(torch.cat([named, F.pad(things.labels, (0, room), value=ABSENT)], 1))
    return torch.cat(pictures), torch.cat(all_boxes), torch.cat(all_labels)


def covered(boxes: Tensor, things: Layer) -> Tensor:
    """The share of each box (n, b, 4) that lies under the box of the thing that covers most of it -> (n, b)."""
    if not boxes.shape[1]:
        return boxes.new_zeros(boxes.shape[:2])
    other = torch.where((things.labels == ABSENT)[..., None], 0.0, things.boxes)[:, None]  # (n, 1, cells, 4)
    shared = torch.minimum(boxes[:, :, None, 2:], other[..., 2:]) - torch.maximum(boxes[:, :, None, :2], other[..., :2])
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1).clamp(min=1)
    return shared.clamp(min=0).prod(-1).max(2).values / area


def photographed(laid: tuple[Tensor, Tensor, Tensor], is_complete: Tensor) -> Scenes:
    """Light and the camera's faults over the whole of each scene."""
    pictures, boxes, labels = laid
    order = torch.randperm(len(pictures), device=pictures.device)  # so that what is done by position differs between calls
    pictures, boxes, labels = pictures[order], boxes[order], labels[order]
    strength = render.uniform(len(pictures), *CAMERA.strength, pictures)
    pictures = render.degraded(render.lit(pictures, CAMERA, strength), CAMERA, strength).clamp(0, 1)
    return Scenes(pictures, boxes, labels, is_complete[order])

"""Measures the limits of the warnings about a picture alone: too small, blurred, several things.

    python -m training warning-limits --data DIR

Five minutes on one core. Three measurements on training packs, each of what is good against what should be warned about:

- *too small*: top-1 of plain renders among all brand marks and package fronts of split 7, each enrolled from its mark shrunk;
- *blurred*: sharpness of pictures as they are, and under a Gaussian blur in percent of the longer side;
- *several things*: disagreement of single things, and of pairs and fours of them glued together.

A limit is what `false_warnings` of the good pictures miss; too small starts where `kept` of the accuracy is lost. Sharpness
divided by contrast was chosen over plain variance of the Laplacian, which misses half of what this one finds (blur of 2 %:
42 against 95 % at 1 % false warnings), quarters over single cells of the dense map (fours: 68 against 37 % at 2 %).
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from app.adapters.networks import OnnxEmbedder
from app.domain.checks import disagreement, sharpness
from app.domain.values import FloatArray
from training import data, render, run
from training.batches import LEFT_OUT
from training.evaluate.arms import squares

MARK_PACKS = ("brand-marks", "package-fronts")  # their split 7 is for choosing
PHOTOGRAPH_PACKS = ("object-views-dev", "vehicle-logos-dev", "caltech101-dev")
MARK_PX = 128
SIDES_PX = (8, 12, 16, 20, 24, 32, 48, 64)
BLURS = (0.01, 0.02, 0.03, 0.04)  # sigma in parts of the longer side
TILE_PX = 128  # side of each of several things


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "folder with embedding.onnx"})
    pictures: int = field(default=300, metadata={"help": "of each pack"})
    false_warnings: float = field(
        default=0.01, metadata={"help": "share of good pictures that may be called blurred, or several things"}
    )
    kept: float = field(default=0.95, metadata={"help": "share of the accuracy that a picture which is not too small keeps"})
    seed: int = 0


def read_pictures(items: Sequence[data.Item]) -> list[Image.Image]:
    """At their own size, transparent parts over white."""
    with ExitStack() as stack:
        archives = {path: stack.enter_context(zipfile.ZipFile(path)) for path in {item.archive for item in items}}
        return [data.over(Image.open(io.BytesIO(archives[item.archive].read(item.entry)))) for item in items]


def usable(item: data.Item) -> bool:
    return not item.class_name.startswith(LEFT_OUT)


def single_things(config: Config) -> list[Image.Image]:
    """The same number of each pack: what a person would enrol."""
    draw = random.Random(config.seed)
    pictures = []
    for pack in (*MARK_PACKS, *PHOTOGRAPH_PACKS):
        items = [
            item for item in data.pack_items(config.data / pack, split=lambda split: split in ("7", "train")) if usable(item)
        ]
        pictures += read_pictures(draw.sample(items, min(config.pictures, len(items))))
    return pictures


def glued(things: Sequence[Image.Image], *, columns: int, rows: int) -> Image.Image:
    """Things beside each other, each stretched to a square."""
    sheet = Image.new("RGB", (columns * TILE_PX, rows * TILE_PX))
    for position, thing in enumerate(things):
        sheet.paste(thing.resize((TILE_PX, TILE_PX)), (position % columns * TILE_PX, position // columns * TILE_PX))
    return sheet


def too_small_px(config: Config, embedder: OnnxEmbedder) -> int:
    """The least shorter side that keeps `config.kept` of the accuracy."""
    marks = enrolled_marks(config)
    queries = embedder(squares(rendered(marks, config), embedder.side_px)).embedding  # (classes, d)
    clean = [data.over(Image.fromarray(mark)) for mark in marks.pixels.permute(0, 2, 3, 1).numpy()]

    def accuracy(side_px: int) -> float:
        examples = [mark.resize((side_px, side_px), Image.Resampling.LANCZOS) for mark in clean]
        sims = queries @ embedder(squares(examples, embedder.side_px)).embedding.T  # (queries, classes)
        return float((sims.argmax(axis=1) == np.arange(len(clean))).mean())

    whole = accuracy(MARK_PX)
    found = {side: accuracy(side) for side in SIDES_PX}
    print(f"too small: {len(clean)} classes; top-1 with examples of {MARK_PX} px {whole:.3f}")
    for side, share in found.items():
        print(f"  of {side:2} px: {share:.3f}")
    return min(side for side, share in found.items() if share >= config.kept * whole)


def enrolled_marks(config: Config) -> data.PictureSet:
    """The first mark or front of each class of split 7, RGBA squares."""
    packs = [data.pack_items(config.data / pack, split=lambda split: split == "7") for pack in MARK_PACKS]
    first = {item.class_name: item for items in packs for item in reversed(items)}
    return data.load(list(first.values()), side_px=MARK_PX, mode="RGBA")


def rendered(marks: data.PictureSet, config: Config) -> list[Image.Image]:
    """A plain render of each on a photograph."""
    torch.manual_seed(config.seed)
    scenes = data.load(data.pack_items(config.data / "imagenet-1-per-class"), side_px=MARK_PX).pixels.float() / 255
    grounds = scenes[torch.randint(len(scenes), (len(marks.pixels),))]
    pictures = render.render(marks.pixels.float() / 255, marks.aspects, grounds, render.PLAIN)
    return [Image.fromarray(picture) for picture in (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()]


def blurred(config: Config, things: Sequence[Image.Image]) -> float:
    """The sharpness that `config.false_warnings` of the pictures do not have."""
    limit = float(np.quantile([sharpness(np.asarray(thing)) for thing in things], config.false_warnings))
    print(f"blurred: {len(things)} pictures; limit {limit:.4f}")
    for share in BLURS:
        values = [sharpness(np.asarray(thing.filter(ImageFilter.GaussianBlur(share * max(thing.size))))) for thing in things]
        print(f"  blurred by {share:.0%}: {np.mean(np.array(values) < limit):.3f} warned about")
    return limit


def several_things(config: Config, things: Sequence[Image.Image], embedder: OnnxEmbedder) -> float:
    """The disagreement that `config.false_warnings` of the single things pass."""
    limit = float(np.quantile(disagreements(things, embedder), 1 - config.false_warnings))
    print(f"several things: {len(things)} single ones; limit {limit:.3f}")
    draw = random.Random(config.seed)
    for columns, rows in ((2, 1), (2, 2)):
        count = columns * rows
        sheets = [glued(draw.sample(things, count), columns=columns, rows=rows) for _ in range(config.pictures)]
        print(f"  {count} glued together: {np.mean(disagreements(sheets, embedder) > limit):.3f} warned about")
    return limit


def disagreements(pictures: Sequence[Image.Image], embedder: OnnxEmbedder) -> FloatArray:
    return np.array([disagreement(dense) for dense in embedder(squares(pictures, embedder.side_px)).dense], np.float32)


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description=__doc__ or "")
    embedder = OnnxEmbedder((config.models / "embedding.onnx").read_bytes())
    things = single_things(config)
    limits = {
        "too_small_px": too_small_px(config, embedder),
        "blurred": round(blurred(config, things), 3),
        "several_things": round(several_things(config, things, embedder), 3),
    }
    print(json.dumps(limits))

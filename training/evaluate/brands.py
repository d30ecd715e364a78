"""Every brand of the pack enrolled from one clean mark, and renders asked of those that nothing was learnt from.

    python -m training evaluate brands --data DIR

Split 8 of `brand-marks`, rendered *plain* and *hard* (rule 9 of the data folder's README), with all twelve thousand brands of the
pack enrolled through the service's own use cases. What a few marks were taken for is drawn (`confusions.webp`): of brands whose
marks are in the public domain, rendered on plain ground, because neither marks nor photographs of the packs are to be published.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from app.domain.values import Answer, Upload
from training import run
from training.evaluate import in_process, items
from training.evaluate.intervals import by_pictures
from training.evaluate.items import AskedItem
from training.evaluate.results import kind_of, shares, write_counted

FREE_SOURCES = frozenset(("simple-icons", "gilbarbara", "crypto", "geticon", "iconify:cib"))  # CC0, as SOURCE.md of the pack says
SHEET = "confusions.webp"
SHOWN, COLUMNS, TILE_PX, TEXT_PX = 24, 4, 96, 14


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "model set of the service"})
    service: str = field(default="auto,off", metadata={"help": "FIRSTSIGHT_VERIFY; confusions are of the first"})
    sample: int = field(default=0, metadata={"help": "only so many brands, and no result: to see that it works; 0: all"})
    results: Path = field(default=Path("docs/accuracy"), metadata={"help": "folder for JSON with every figure"})


@dataclass(frozen=True)
class Confusion:
    """What was asked, beside what it is, and what it was taken for."""

    truth: str
    taken_for: str
    asked: Image.Image
    right: Image.Image
    wrong: Image.Image


async def ask_service(config: Config, shown: Sequence[AskedItem], questions: Sequence[Upload]) -> dict[str, list[Answer]]:
    """What the first setting enrols the others find in the store."""
    adapters = in_process.emptied(in_process.open_cached(config.models, keep_embeddings=False))
    found = dict[str, list[Answer]]()
    for name in config.service.split(","):
        async with in_process.serving(adapters, name) as use_cases:
            if not found:
                uploads: list[Upload] = items.uploads_of(shown, config.data)
                pictures = {item.class_name: [upload] for item, upload in zip(shown, uploads, strict=True)}
                await in_process.enrol_all(use_cases, pictures)
                print(f"{len(shown)} enrolled", flush=True)
            found[name] = await in_process.ask_all(use_cases, questions)
    return found


def figures_of(asked: Sequence[AskedItem], answers: Sequence[Answer]) -> dict[str, Any]:
    """By form of render: the share whose first candidate is right, and what was answered."""
    found = {}
    for form in ("plain", "hard"):
        own = [(item.class_name, answer) for item, answer in zip(asked, answers, strict=True) if item.form == form]
        right = np.array([answer.candidates[0].class_name == truth for truth, answer in own], np.float64)
        found[form] = {
            "pictures": len(own),
            "top_1": by_pictures(right, np.arange(len(own)), weigh="pictures").numbers(),
            "answers": shares(kind_of(answer, truth) for truth, answer in own),
        }
        print(f"{form}: {found[form]}", flush=True)
    return found


def free_brands(pack: Path) -> set[str]:
    """Classes whose mark number 0 is in the public domain."""
    listed = json.loads((pack / "brands.json").read_text())
    return {f"{pack.name}/{brand['slug']}" for brand in listed if brand["marks"][0]["src"] in FREE_SOURCES}


def confusions(
    config: Config,
    shown: Sequence[AskedItem],
    asked: Sequence[AskedItem],
    questions: Sequence[Upload],
    answers: Sequence[Answer],
    free: set[str],
) -> list[Confusion]:
    """Those that the service was most sure of. `questions`: what was asked; renders made again of a few items would be others."""
    clean = {item.class_name: item for item in shown}
    wrong = []
    for item, question, answer in zip(asked, questions, answers, strict=True):
        first = answer.candidates[0]
        if item.form == "on paper" and first.class_name != item.class_name and first.class_name in free:
            wrong.append((first, item, question))
    chosen = sorted(wrong, key=lambda one: (-one[0].probability, one[1].id))[:SHOWN]
    names = [(item.class_name, first.class_name) for first, item, _ in chosen]
    sides = [items.uploads_of([clean[pair[side]] for pair in names], config.data) for side in (0, 1)]
    pictures = [items.pictures_of(column) for column in ([question for *_, question in chosen], *sides)]
    return [Confusion(*pair, *drawn) for pair, *drawn in zip(names, *pictures, strict=True)]


def draw_sheet(found: Sequence[Confusion], path: Path) -> None:
    """Three pictures each: what was asked, what it is, what it was taken for, the last two with their names."""
    width, height = 3 * TILE_PX + 12, TILE_PX + TEXT_PX + 8
    rows = max(1, -(-len(found) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, one in enumerate(found):
        left, top = number % COLUMNS * width, number // COLUMNS * height
        names = ("asked", *(name.split("/", 1)[1][:16] for name in (one.truth, one.taken_for)))
        for place, (name, picture) in enumerate(zip(names, (one.asked, one.right, one.wrong), strict=True)):
            x = left + place * TILE_PX
            tile = picture.copy()
            tile.thumbnail((TILE_PX - 8, TILE_PX - 8))
            sheet.paste(tile, (x + (TILE_PX - tile.width) // 2, top + TEXT_PX + (TILE_PX - tile.height) // 2))
            draw.text((x + 4, top + 2), name, fill="#b00020" if place == 2 else "#333333")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "WEBP", quality=80)


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Brands never learnt from, among twelve thousand.")
    pack = config.data / "brand-marks"
    shown, asked = items.brands(pack)
    if config.sample:
        names = {item.class_name for item in asked[: config.sample]}
        shown, asked = ([item for item in part if item.class_name in names] for part in (shown, asked))
    free = free_brands(pack)
    may_be_shown = free & {item.class_name for item in asked}
    on_paper = [items.rendered_of(item, "on paper") for item in shown if item.class_name in may_be_shown]
    asked = [*asked, *on_paper]
    questions = items.uploads_of(asked, config.data)
    found = asyncio.run(ask_service(config, shown, questions))
    figures = {}
    for name, answers in found.items():
        print(f"FIRSTSIGHT_VERIFY={name}")
        figures[name] = figures_of(asked, answers)
    if config.sample:
        return
    draw_sheet(confusions(config, shown, asked, questions, next(iter(found.values())), free), config.results / SHEET)
    write_counted(config.results / "brands.json", {"enrolled": len(shown), "on_paper": len(on_paper), "brands": figures})

"""One picture of many answers, to be looked at: the asked picture with the quad drawn in it, beside what was enrolled.

Pictures of the packs are not to be published: the sheet goes into a run folder, which git ignores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

TILE_PX = 190  # a side, for each of the two pictures of an answer
MARGIN_PX = 14  # around the asked picture, because quads reach beyond it; and for the number above
COLUMNS = 6
RIGHT, WRONG = "#00e04a", "#ff2020"


@dataclass(frozen=True)
class Seen:
    """A match. `quad`: corners in pixels of the asked picture."""

    asked_id: str
    class_name: str
    is_right: bool
    quad: tuple[tuple[float, float], ...]
    asked: Image.Image
    shown: Image.Image


def write_sheet(seen: Sequence[Seen], folder: Path) -> None:
    """`quads.png`, and `quads.json` that says which number is what; green is the right class, red a wrong one."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = -(-len(seen) // COLUMNS) or 1
    width, height = 2 * TILE_PX + 4, TILE_PX + 4
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "#303030")
    for number, one in enumerate(seen):
        sheet.paste(_tile(number, one), (number % COLUMNS * width, number // COLUMNS * height))
    sheet.save(folder / "quads.png")
    listed = [{"number": n, "asked": one.asked_id, "class": one.class_name, "right": one.is_right} for n, one in enumerate(seen)]
    (folder / "quads.json").write_text(json.dumps(listed, indent=1) + "\n")


def _tile(number: int, one: Seen) -> Image.Image:
    tile = Image.new("RGB", (2 * TILE_PX, TILE_PX), "black")
    room = TILE_PX - 2 * MARGIN_PX
    scale = room / max(one.asked.size)
    tile.paste(_sized(one.asked, room), (MARGIN_PX, MARGIN_PX))
    tile.paste(_sized(one.shown, room), (TILE_PX + MARGIN_PX, MARGIN_PX))
    draw = ImageDraw.Draw(tile)
    corners = [(MARGIN_PX + x * scale, MARGIN_PX + y * scale) for x, y in one.quad]
    colour = RIGHT if one.is_right else WRONG
    draw.line([*corners, *corners[:1]], fill=colour, width=2)
    draw.ellipse([corners[0][0] - 4, corners[0][1] - 4, corners[0][0] + 4, corners[0][1] + 4], fill=colour)  # its top left
    draw.rectangle([TILE_PX, 0, 2 * TILE_PX, TILE_PX], outline="#303030")
    draw.text((3, 1), f"{number}", fill="white")
    draw.text((TILE_PX + 3, 1), one.class_name.split("/", 1)[-1][:30], fill="white")
    return tile


def _sized(picture: Image.Image, side_px: int) -> Image.Image:
    scale = side_px / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))

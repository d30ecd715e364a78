"""One picture of some scenes with what was found in them, to be looked at.

White: what is there. Green: found, and right; red: found, and wrong, or found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from training.evaluate.average_precision import Edges
from training.evaluate.finders import Spotted

TILE_PX = 320
COLUMNS = 4
THERE, RIGHT, WRONG = "white", "#00a03c", "#d81414"
QUALITY = 70


@dataclass(frozen=True)
class Judged:
    """A scene, the boxes of what is in it, and what was found, each with whether it is right."""

    picture: Image.Image
    things: Sequence[Edges]
    found: Sequence[tuple[Spotted, bool]]


def write_sheet(scenes: Sequence[Judged], path: Path) -> None:
    rows = -(-len(scenes) // COLUMNS) or 1
    sheet = Image.new("RGB", (COLUMNS * TILE_PX, rows * TILE_PX), "#303030")
    for number, scene in enumerate(scenes):
        sheet.paste(_tile(scene), (number % COLUMNS * TILE_PX, number // COLUMNS * TILE_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "WEBP", quality=QUALITY, method=6)


def _tile(scene: Judged) -> Image.Image:
    scale = (TILE_PX - 4) / max(scene.picture.size)
    size = [max(1, round(side * scale)) for side in scene.picture.size]
    tile = scene.picture.resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=2.0)
    draw = ImageDraw.Draw(tile)
    for edges in scene.things:
        draw.rectangle(_scaled(edges, scale), outline=THERE, width=1)
    for spotted, is_right in sorted(scene.found, key=lambda one: one[0].score):  # the surest last, above the others
        _outline(draw, spotted, _scaled(spotted.edges, scale), RIGHT if is_right else WRONG)
    return tile


def _outline(draw: ImageDraw.ImageDraw, spotted: Spotted, edges: Edges, colour: str) -> None:
    left, top, _, _ = edges
    draw.rectangle(edges, outline=colour, width=2)
    label = f"{spotted.class_name.split('/', 1)[-1][:20]} {100 * spotted.score:.0f}"
    words = draw.textbbox((left + 2, max(0.0, top - 12)), label)
    draw.rectangle((words[0] - 2, words[1] - 1, words[2] + 2, words[3] + 1), fill=colour)
    draw.text((left + 2, max(0.0, top - 12)), label, fill="white")


def _scaled(edges: Edges, scale: float) -> Edges:
    left, top, right, bottom = (edge * scale for edge in edges)
    return left, top, right, bottom

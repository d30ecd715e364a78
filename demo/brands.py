"""Brands that do not exist, drawn here, so that the demonstration shows nobody's property.

Each is drawn on a square of `SIDE_PX` at four times the size and shrunk, which is Pillow's way to smooth edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE_PX = 320
SCALE = 4
WIDE = SIDE_PX * SCALE

Colour = str
Point = tuple[float, float]


@dataclass(frozen=True)
class Brand:
    name: str
    ground: Colour
    draw: Callable[[ImageDraw.ImageDraw], None]

    def mark(self) -> Image.Image:
        """The brand's label as a square RGB picture."""
        picture = Image.new("RGB", (WIDE, WIDE), self.ground)
        self.draw(ImageDraw.Draw(picture))
        return picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


def at(x: float, y: float) -> Point:
    """A place on the label, both from 0 to 1."""
    return x * WIDE, y * WIDE


def disc(x: float, y: float, radius: float) -> tuple[Point, Point]:
    return at(x - radius, y - radius), at(x + radius, y + radius)


def write(pen: ImageDraw.ImageDraw, text: str, *, y: float, size: float, colour: Colour) -> None:
    pen.text(at(0.5, y), text, fill=colour, font=ImageFont.load_default(size * WIDE), anchor="mm", stroke_width=size * WIDE / 28)


def turned(points: list[Point], degrees: float, *, around: Point = (0.5, 0.42)) -> list[Point]:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    centred = [(x - around[0], y - around[1]) for x, y in points]
    return [at(around[0] + x * cosine - y * sine, around[1] + x * sine + y * cosine) for x, y in centred]


def draw_ovolune(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse(disc(0.5, 0.41, 0.29), fill="#f4e3b2")
    pen.ellipse(disc(0.61, 0.36, 0.25), fill="#16244f")
    pen.ellipse((at(0.57, 0.26), at(0.73, 0.48)), fill="#e86a4f")
    write(pen, "ovolune", y=0.83, size=0.17, colour="#f4e3b2")


def draw_kestrika(pen: ImageDraw.ImageDraw) -> None:
    top, right, bottom, left, heart = at(0.5, 0.07), at(0.8, 0.34), at(0.5, 0.72), at(0.2, 0.34), at(0.5, 0.34)
    pen.polygon([top, right, heart], fill="#d7263d")
    pen.polygon([right, bottom, heart], fill="#1b1b1e")
    pen.polygon([bottom, left, heart], fill="#d7263d")
    pen.polygon([left, top, heart], fill="#1b1b1e")
    write(pen, "KESTRIKA", y=0.86, size=0.145, colour="#1b1b1e")


def draw_brumelo(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse(disc(0.5, 0.42, 0.35), fill="#ffffff")
    for row, colour in enumerate(("#0b7a75", "#19b5a5", "#0b7a75")):
        crest = [(0.2 + step / 100, 0.32 + row * 0.11 + 0.035 * math.sin(step / 4.8)) for step in range(61)]
        pen.line([at(x, y) for x, y in crest], fill=colour, width=WIDE // 17, joint="curve")
    write(pen, "Brumelo", y=0.88, size=0.17, colour="#ffffff")


def draw_tindrax(pen: ImageDraw.ImageDraw) -> None:
    hexagon = [
        (0.5 + 0.36 * math.sin(math.radians(turn)), 0.4 + 0.36 * math.cos(math.radians(turn))) for turn in range(0, 360, 60)
    ]
    pen.polygon([at(x, y) for x, y in hexagon], fill="#c81d25")
    bolt = [(0.57, 0.12), (0.34, 0.45), (0.48, 0.45), (0.42, 0.69), (0.67, 0.34), (0.52, 0.34)]
    pen.polygon([at(x, y) for x, y in bolt], fill="#ffd23f")
    write(pen, "TINDRAX", y=0.88, size=0.165, colour="#ffffff")


def draw_pellawi(pen: ImageDraw.ImageDraw) -> None:
    petal = [(0.5 + 0.075 * math.sin(turn / 10), 0.27 - 0.16 * math.cos(turn / 10)) for turn in range(63)]
    for turn in range(0, 360, 60):
        pen.polygon(turned(petal, turn), fill="#7b2d8b" if turn % 120 else "#d65db1")
    pen.ellipse(disc(0.5, 0.42, 0.08), fill="#ffc75f")
    write(pen, "pellawi", y=0.88, size=0.17, colour="#4b1d52")


def draw_zurivo(pen: ImageDraw.ImageDraw) -> None:
    for turn in range(0, 360, 30):
        pen.polygon(turned([(0.46, 0.42), (0.54, 0.42), (0.5, 0.06)], turn), fill="#20639b")
    pen.ellipse(disc(0.5, 0.42, 0.17), fill="#f6d55c")
    write(pen, "ZURIVO", y=0.88, size=0.17, colour="#173f5f")


ENROLLED = (
    Brand("Ovolune", "#16244f", draw_ovolune),
    Brand("Kestrika", "#f4f1ea", draw_kestrika),
    Brand("Brumelo", "#0f4c5c", draw_brumelo),
    Brand("Tindrax", "#232528", draw_tindrax),
    Brand("Pellawi", "#e9f5db", draw_pellawi),
)
STRANGER = Brand("Zurivo", "#e8eef2", draw_zurivo)

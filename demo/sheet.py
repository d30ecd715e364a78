"""The result as one picture: a column for each brand, what was enrolled on top, what was asked below, each with its answer.

Under them are scenes with several things, and what was found in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE_WIDTH_PX, TILE_HEIGHT_PX = 216, 162
FOUND_WIDTH_PX, FOUND_HEIGHT_PX = 446, 334  # of a scene with several things: two columns
CAPTION_PX, GAP_PX, FRAME_PX, TITLE_PX = 30, 14, 4, 44
PAPER, INK, FAINT = "#ffffff", "#1f2430", "#8a90a0"
RIGHT, UNSURE, WRONG = "#2a9d5c", "#d98e04", "#c62828"


@dataclass(frozen=True)
class Tile:
    picture: Image.Image
    caption: str
    colour: str = INK
    size: tuple[int, int] = (TILE_WIDTH_PX, TILE_HEIGHT_PX)


@dataclass(frozen=True)
class Column:
    title: str
    enrolled: Image.Image | None
    asked: Sequence[Tile]


@dataclass(frozen=True)
class Outline:
    """A thing that was found, as it is drawn into its picture."""

    name: str
    quad: Sequence[tuple[float, float]]
    box: tuple[int, int, int, int]  # left, top, right, bottom
    colour: str


def contact_sheet(columns: Sequence[Column], scenes: Sequence[Tile]) -> Image.Image:
    step = TILE_HEIGHT_PX + CAPTION_PX + GAP_PX
    under = TITLE_PX + (1 + max(len(column.asked) for column in columns)) * step
    height = under + FOUND_HEIGHT_PX + CAPTION_PX + GAP_PX
    sheet = Image.new("RGB", (GAP_PX + len(columns) * (TILE_WIDTH_PX + GAP_PX), height), PAPER)
    for number, scene in enumerate(scenes):
        show(sheet, scene, GAP_PX + number * (FOUND_WIDTH_PX + GAP_PX), under)
    for number, column in enumerate(columns):
        x = GAP_PX + number * (TILE_WIDTH_PX + GAP_PX)
        write(sheet, column.title, x, TITLE_PX // 2, size_px=20)
        show(sheet, Tile(enrolled_tile(column.enrolled), "enrolled once" if column.enrolled else "", FAINT), x, TITLE_PX)
        for row, tile in enumerate(column.asked, start=1):
            show(sheet, tile, x, TITLE_PX + row * step)
    return sheet


def enrolled_tile(mark: Image.Image | None) -> Image.Image:
    tile = Image.new("RGB", (TILE_WIDTH_PX, TILE_HEIGHT_PX), PAPER)
    if mark is None:
        write(tile, "never enrolled", 0, TILE_HEIGHT_PX // 2, size_px=17, colour=FAINT)
    else:
        tile.paste(mark.resize((TILE_HEIGHT_PX, TILE_HEIGHT_PX)), ((TILE_WIDTH_PX - TILE_HEIGHT_PX) // 2, 0))
    return tile


def show(sheet: Image.Image, tile: Tile, x: int, y: int) -> None:
    width, height = tile.size
    sheet.paste(tile.picture.resize(tile.size), (x, y))
    if tile.colour != FAINT:
        ImageDraw.Draw(sheet).rectangle((x, y, x + width - 1, y + height - 1), outline=tile.colour, width=FRAME_PX)
    write(sheet, tile.caption, x, y + height + CAPTION_PX // 2, size_px=16, colour=tile.colour, width=width)


def outlined(picture: Image.Image, outlines: Sequence[Outline]) -> Image.Image:
    """The picture as large as it is shown, with the quad, the box and the name of each thing in it."""
    drawn = picture.resize((FOUND_WIDTH_PX, FOUND_HEIGHT_PX))
    across, down = FOUND_WIDTH_PX / picture.width, FOUND_HEIGHT_PX / picture.height
    pen = ImageDraw.Draw(drawn)
    for outline in outlines:
        left, top, right, bottom = outline.box
        pen.rectangle((left * across, top * down, right * across - 1, bottom * down - 1), outline=PAPER)
        corners = [(x * across, y * down) for x, y in outline.quad]
        pen.line([*corners, corners[0]], fill=outline.colour, width=3, joint="curve")
        place, font = (left * across + 4, top * down + 4), ImageFont.load_default(14)
        pen.rectangle(pen.textbbox(place, outline.name, font=font), fill=PAPER, outline=PAPER, width=3)
        pen.text(place, outline.name, fill=outline.colour, font=font)
    return drawn


def write(
    picture: Image.Image, text: str, x: int, y: int, *, size_px: int, colour: str = INK, width: int = TILE_WIDTH_PX
) -> None:
    """A line of text, centred on a tile that starts at x."""
    centre = (x + width / 2, y)
    ImageDraw.Draw(picture).text(centre, text, fill=colour, font=ImageFont.load_default(size_px), anchor="mm")

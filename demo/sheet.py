"""The result as one picture: a column for each brand, what was enrolled on top, what was asked below, each with its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE_WIDTH_PX, TILE_HEIGHT_PX = 216, 162
CAPTION_PX, GAP_PX, FRAME_PX, TITLE_PX = 30, 14, 4, 44
PAPER, INK, FAINT = "#ffffff", "#1f2430", "#8a90a0"
RIGHT, UNSURE, WRONG = "#2a9d5c", "#d98e04", "#c62828"


@dataclass(frozen=True)
class Tile:
    picture: Image.Image
    caption: str
    colour: str = INK


@dataclass(frozen=True)
class Column:
    title: str
    enrolled: Image.Image | None
    asked: Sequence[Tile]


def contact_sheet(columns: Sequence[Column]) -> Image.Image:
    step = TILE_HEIGHT_PX + CAPTION_PX + GAP_PX
    rows = 1 + max(len(column.asked) for column in columns)
    sheet = Image.new("RGB", (GAP_PX + len(columns) * (TILE_WIDTH_PX + GAP_PX), TITLE_PX + rows * step), PAPER)
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
    sheet.paste(tile.picture.resize((TILE_WIDTH_PX, TILE_HEIGHT_PX)), (x, y))
    if tile.colour != FAINT:
        frame = (x, y, x + TILE_WIDTH_PX - 1, y + TILE_HEIGHT_PX - 1)
        ImageDraw.Draw(sheet).rectangle(frame, outline=tile.colour, width=FRAME_PX)
    write(sheet, tile.caption, x, y + TILE_HEIGHT_PX + CAPTION_PX // 2, size_px=16, colour=tile.colour)


def write(picture: Image.Image, text: str, x: int, y: int, *, size_px: int, colour: str = INK) -> None:
    """A line of text, centred on a tile that starts at x."""
    centre = (x + TILE_WIDTH_PX / 2, y)
    ImageDraw.Draw(picture).text(centre, text, fill=colour, font=ImageFont.load_default(size_px), anchor="mm")

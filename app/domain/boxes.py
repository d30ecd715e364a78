"""Boxes in whole pixels of the upright picture: the one rule for what a box may be."""

from __future__ import annotations

from app.domain.values import Box
from app.errors import InvalidInput

MIN_SIDE_PX = 8  # of a picture and of a box; design 4.1: smaller is refused, small is only warned about


def check_box(box: Box, width: int, height: int, *, field: str) -> Box:
    """The same box, or InvalidInput saying which limit of a picture of width x height it breaks."""
    if min(box.width, box.height) < MIN_SIDE_PX:
        raise InvalidInput(
            f"A box has sides of {MIN_SIDE_PX} pixels or more, this one is {box.width} x {box.height}.",
            field=field,
            limit=MIN_SIDE_PX,
        )
    if min(box.x, box.y) < 0 or box.x + box.width > width or box.y + box.height > height:
        raise InvalidInput(
            f"The box x={box.x}, y={box.y}, width={box.width}, height={box.height} reaches outside of the upright picture, "
            f"which is {width} x {height}.",
            field=field,
            limit=f"{width}x{height}",
        )
    return box

"""The support views of an example: the whole crop and a few mild crops of it, the same ones every time.

Averaged over views, the embedding of a single photograph depends less on how tightly it was framed. No mirror images: print does
not come mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.values import Box, PixelArray


def view_boxes(width: int, height: int, shares: Sequence[float]) -> list[Box]:
    """The whole picture first, then for each share of its sides (0 to 1) the crops at the four corners and in the middle."""
    boxes = [Box(0, 0, width, height)]
    for share in shares:
        view_width, view_height = max(1, round(width * share)), max(1, round(height * share))
        right, bottom = width - view_width, height - view_height
        corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]
        boxes += [Box(x, y, view_width, view_height) for x, y in corners]
    return list(dict.fromkeys(boxes))  # in a tiny picture several views can be one


def crop(pixels: PixelArray, box: Box) -> PixelArray:
    """The part of (h, w, 3) inside the box; a view of the same memory."""
    return pixels[box.y : box.y + box.height, box.x : box.x + box.width]

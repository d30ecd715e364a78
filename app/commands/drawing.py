"""Pictures that commands make: with what was found in them, and small ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from app.client import Detection, Outcome

COLOURS: dict[Outcome, tuple[int, int, int]] = {"match": (22, 163, 74), "doubtful": (217, 119, 6), "unknown": (120, 120, 120)}
STROKE_SHARE = 1 / 250  # of the longest side
TEXT_SHARE = 1 / 45


def draw_detections(file: Path, detections: Sequence[Detection], *, to: Path) -> None:
    """Writes the upright picture with an outline and a name for each detection. OSError where that fails, and for no format."""
    with Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for detection in reversed(detections):  # the surest last, above the others
        _outline(draw, detection, longest_px=max(picture.size))
    try:
        picture.save(to)
    except ValueError as error:  # pillow goes by the name's ending
        raise OSError(f"{to}: {error}; .jpg and .png are known.") from error


def thumbnail(file: Path, *, side_px: int) -> bytes:
    """A small JPEG of the upright picture, no side longer than that."""
    with Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture.thumbnail((side_px, side_px))
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=80)
    return small.getvalue()


def _outline(draw: ImageDraw.ImageDraw, detection: Detection, *, longest_px: int) -> None:
    colour, box = COLOURS[detection.outcome], detection.box
    corners = detection.quad or [
        (box.x, box.y),
        (box.x + box.width, box.y),
        (box.x + box.width, box.y + box.height),
        (box.x, box.y + box.height),
    ]
    draw.line([*corners, corners[0]], fill=colour, width=max(2, round(longest_px * STROKE_SHARE)), joint="curve")
    font = ImageFont.load_default(size=max(11, longest_px * TEXT_SHARE))
    label = f" {detection.class_name}  {detection.probability:.0%} "
    left, top, right, bottom = draw.textbbox((box.x, box.y), label, font=font)
    up = min(bottom - top + 6, box.y)  # above the box, or within it at the picture's edge
    draw.rectangle((left, box.y - up, right, box.y - up + bottom - top + 6), fill=colour)
    draw.text((box.x, box.y - up + 3), label, fill=(255, 255, 255), font=font)

"""Pictures for the HTTP tests: bands of colour, which the fake network tells apart by where which colour is, and print."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from app.domain.values import PixelArray

Colour = tuple[int, int, int]
RED, GREEN, BLUE, YELLOW = (230, 20, 20), (20, 200, 20), (20, 20, 230), (230, 230, 20)


def drawing(*bands: Colour, side_px: int = 64, file_format: str = "PNG") -> bytes:
    """Bands from top to bottom, with a grain so that the picture is not blank."""
    rows = np.array_split(np.arange(side_px), len(bands))
    pixels = np.empty((side_px, side_px, 3))
    for colour, band in zip(bands, rows, strict=True):
        pixels[band] = colour
    pixels += np.random.default_rng(0).normal(0, 8, pixels.shape)
    return encoded(pixels.clip(0, 255).astype(np.uint8), file_format)


def printed(seed: int = 0, *, side_px: int = 64) -> bytes:
    """A picture full of print: squares of 2 pixels, black or white at random: no two blocks of 8 are alike."""
    squares = np.random.default_rng(seed).integers(0, 2, (side_px // 2, side_px // 2, 1), dtype=np.uint8) * 255
    return encoded(squares.repeat(2, axis=0).repeat(2, axis=1).repeat(3, axis=2), "PNG")


def encoded(pixels: PixelArray, file_format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


ACME = drawing(RED, GREEN)
ACME_AGAIN = drawing(RED, GREEN, side_px=80)
OTHER = drawing(BLUE, YELLOW)
STRANGE = drawing(GREEN, BLUE, RED, YELLOW)


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def form(*pictures: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Multipart parts for httpx, a file each."""
    return [("image", ("picture", data, "application/octet-stream")) for data in pictures]

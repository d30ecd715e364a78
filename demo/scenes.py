"""Scenes that look like photographs: a label on a thing, seen from an angle, on a ground, in some light, by a poor camera.

Everything is drawn from a seed, so that two runs show the same pictures.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH_PX, HEIGHT_PX = 480, 360

Pixels = NDArray[np.float32]  # (height, width, 3), 0 to 255
Quad = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]  # from top left, clockwise


def noise(rng: np.random.Generator, columns: int, rows: int) -> Pixels:
    """Smooth noise from 0 to 1 of about that many bumps across and down, as (height, width, 1)."""
    bumps = Image.fromarray(rng.integers(0, 256, (rows, columns), dtype=np.uint8))
    smooth = bumps.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32)[..., None] / np.float32(255)


def blend(amount: Pixels, dark: tuple[int, int, int], light: tuple[int, int, int]) -> Pixels:
    return np.asarray(dark, np.float32) + amount * (np.asarray(light, np.float32) - np.asarray(dark, np.float32))


def wood(rng: np.random.Generator) -> Pixels:
    grain = 0.55 * noise(rng, 4, 60) + 0.3 * noise(rng, 12, 150) + 0.15 * noise(rng, 240, 180)
    planks = blend(grain, (84, 50, 26), (190, 132, 82))
    planks[:: HEIGHT_PX // 4] *= 0.45
    return planks


def plaster(rng: np.random.Generator) -> Pixels:
    grain = 0.5 * noise(rng, 5, 4) + 0.3 * noise(rng, 30, 24) + 0.2 * noise(rng, 240, 180)
    return blend(grain, (142, 138, 130), (214, 209, 198))


def cloth(rng: np.random.Generator) -> Pixels:
    threads = np.indices((HEIGHT_PX, WIDTH_PX)).sum(axis=0)[..., None] % 6 / 6
    folds = noise(rng, 7, 2)
    return blend((0.25 * threads + 0.75 * folds).astype(np.float32), (38, 58, 84), (112, 140, 170))


def street(rng: np.random.Generator) -> Pixels:
    """Lights of a street at night, out of focus."""
    night = Image.fromarray(blend(noise(rng, 3, 3), (18, 20, 34), (74, 66, 78)).astype(np.uint8))
    pen = ImageDraw.Draw(night)
    for _ in range(34):
        x, y, radius = rng.integers((0, 0, 9), (WIDTH_PX, HEIGHT_PX, 30)).tolist()
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(rng.integers(70, 240, 3).tolist()))
    return np.asarray(night.filter(ImageFilter.GaussianBlur(6)), np.float32)


def shore(rng: np.random.Generator) -> Pixels:
    """Sky, sea and sand: a picture of nothing that anybody enrolled."""
    down = np.linspace(0, 1, HEIGHT_PX, dtype=np.float32)[:, None, None] * np.ones((1, WIDTH_PX, 1), np.float32)
    sky = blend(0.75 * down + 0.25 * noise(rng, 6, 5), (92, 148, 214), (240, 232, 216))
    sea = blend(0.6 * noise(rng, 10, 90) + 0.4 * down, (18, 70, 104), (86, 160, 176))
    sand = blend(0.6 * noise(rng, 8, 6) + 0.4 * noise(rng, 240, 180), (188, 156, 108), (236, 212, 168))
    beach = 0.78 + 0.05 * noise(rng, 4, 1)
    return np.where(down < 0.45, sky, np.where(down < beach, sea, sand)).astype(np.float32)


def around_a_cup(label: Image.Image) -> Image.Image:
    """The label bent round an upright cylinder: its sides narrow and darken."""
    side = label.width
    across = np.linspace(-1, 1, side)
    columns = ((np.arcsin(across * 0.94) / np.arcsin(0.94) + 1) / 2 * (side - 1)).astype(int)
    shade = 0.45 + 0.6 * np.sqrt(1 - (across * 0.94 + 0.25) ** 2 / 1.6)
    bent = np.asarray(label, np.float32)[:, columns] * shade[None, :, None]
    return Image.fromarray(bent.clip(0, 255).astype(np.uint8))


def put(label: Image.Image, corners: Quad, ground: Pixels) -> Pixels:
    """The label laid onto the ground so that its corners land on `corners`, with the shadow it throws."""
    frame = (WIDTH_PX, HEIGHT_PX)
    turned = label.convert("RGBA").transform(
        frame, Image.Transform.PERSPECTIVE, perspective(corners, label.width), Image.Resampling.BICUBIC
    )
    opacity = turned.getchannel("A")
    shadow = Image.new("L", frame)
    shadow.paste(opacity, (9, 12))
    shade = np.asarray(shadow.filter(ImageFilter.GaussianBlur(9)), np.float32)[..., None] / 255
    cover = np.asarray(opacity.filter(ImageFilter.GaussianBlur(0.7)), np.float32)[..., None] / 255
    seen = ground * (1 - 0.55 * shade) * (1 - cover) + np.asarray(turned.convert("RGB"), np.float32) * cover
    return seen.astype(np.float32)


def perspective(corners: Quad, side_px: int) -> list[float]:
    """Pillow's eight numbers that lead from a place in the scene back to one on the label."""
    rows: list[list[float]] = []
    targets: list[float] = []
    for (x, y), (u, v) in zip(corners, ((0, 0), (side_px, 0), (side_px, side_px), (0, side_px)), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    numbers: list[float] = np.linalg.solve(np.array(rows), np.array(targets)).tolist()
    return numbers


@dataclass(frozen=True)
class Scene:
    ground: Callable[[np.random.Generator], Pixels]
    corners: Quad
    brightness: tuple[float, float]  # at the left and at the right edge
    blur_px: float
    bent: bool = False


SCENES = (
    Scene(wood, ((128, 40), (362, 66), (378, 316), (96, 300)), (1.15, 0.8), 0.6),
    Scene(plaster, ((150, 26), (340, 26), (340, 330), (150, 330)), (0.7, 1.15), 0.8, bent=True),
    Scene(cloth, ((164, 22), (402, 92), (322, 340), (84, 262)), (1.1, 0.75), 1.0),
    Scene(street, ((96, 58), (342, 24), (384, 292), (116, 338)), (0.55, 0.95), 1.3),
)


@dataclass(frozen=True)
class Crowd:
    """A scene with room for several labels."""

    ground: Callable[[np.random.Generator], Pixels]
    corners: tuple[Quad, ...]
    brightness: tuple[float, float]
    blur_px: float


CROWDS = (
    Crowd(
        wood,
        (
            ((24, 26), (172, 34), (164, 178), (16, 164)),
            ((276, 18), (430, 44), (412, 194), (262, 160)),
            ((72, 196), (216, 186), (232, 330), (82, 344)),
            ((318, 214), (490, 232), (480, 396), (300, 384)),  # the edge of the picture cuts it off
        ),
        (1.15, 0.8),
        0.6,
    ),
    Crowd(
        cloth,
        (
            ((40, 22), (190, 46), (170, 190), (18, 168)),
            ((250, 30), (386, 22), (396, 160), (258, 172)),
            ((90, 208), (232, 196), (236, 336), (96, 346)),
            ((292, 196), (440, 204), (436, 350), (284, 338)),
        ),
        (1.1, 0.75),
        0.7,
    ),
    Crowd(
        street,
        (
            ((30, 20), (166, 44), (150, 184), (12, 158)),
            ((208, 96), (330, 78), (344, 206), (222, 222)),
            ((346, 8), (466, 26), (458, 142), (338, 128)),
            ((70, 214), (204, 226), (192, 352), (58, 338)),
        ),
        (0.6, 1.0),
        0.8,
    ),
)
EMPTY = Scene(shore, ((0, 0), (1, 0), (1, 1), (0, 1)), (1.05, 0.95), 0.6)


def photograph(scene: Scene, label: Image.Image | None, *, seed: int) -> Image.Image:
    """What a camera sees of a scene: light from one side, a soft lens, a noisy sensor."""
    rng = np.random.default_rng(seed)
    seen = scene.ground(rng)
    if label is not None:
        seen = put(around_a_cup(label) if scene.bent else label, scene.corners, seen)
    return camera(seen, scene, rng)


def photograph_of_many(crowd: Crowd, labels: Sequence[Image.Image], *, seed: int) -> Image.Image:
    """What a camera sees of a scene with a label at each of its places."""
    rng = np.random.default_rng(seed)
    seen = crowd.ground(rng)
    for label, corners in zip(labels, crowd.corners, strict=True):
        seen = put(label, corners, seen)
    return camera(seen, crowd, rng)


def camera(seen: Pixels, scene: Scene | Crowd, rng: np.random.Generator) -> Image.Image:
    light = np.linspace(*scene.brightness, WIDTH_PX, dtype=np.float32)[None, :, None]
    lens = Image.fromarray((seen * light).clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(scene.blur_px))
    sensor = np.asarray(lens, np.float32) + rng.normal(0, 5, (HEIGHT_PX, WIDTH_PX, 3))
    return Image.fromarray(sensor.clip(0, 255).astype(np.uint8))


def as_jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return data.getvalue()

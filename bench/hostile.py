"""What do the worst pictures cost, refused and accepted, until they are answered?"""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from app.adapters.images import MAX_JPEG_SCANS, PictureDecoder
from app.errors import CallerError
from app.settings import Settings
from bench.figures import Figure
from tests.pictures import HOSTILE, drawing, encoded, progressive_jpeg

WANTED_PX = 256
SIDE_OF_MEGAPIXELS = 1000  # a picture of n megapixels is n * 1000 x 1000


@dataclass(frozen=True)
class Cost:
    cpu_ms: float
    peak_mb: float  # above what the process held before


def measure() -> list[Figure]:
    megapixels = int(Settings().max_image_megapixels)
    decode = PictureDecoder(max_pixels=megapixels * 10**6)
    refused = {name: cost_of(decode, make()) for name, (make, _) in HOSTILE.items()}
    figures = [figure for name in costliest(refused) for figure in figures_of(f"refused, {name}", refused[name])]
    for name, make in accepted(megapixels).items():
        figures += figures_of(f"accepted, {megapixels} megapixels, {name}", cost_of(decode, make()))
    return figures


def accepted(megapixels: int) -> dict[str, Callable[[], bytes]]:
    width, height = megapixels * SIDE_OF_MEGAPIXELS // 5, 5 * SIDE_OF_MEGAPIXELS
    return {
        "PNG with alpha": lambda: encoded(drawing(width, height).convert("RGBA"), compress_level=1),
        "noisy JPEG": lambda: encoded(noise(width, height), "JPEG"),
        f"JPEG of {MAX_JPEG_SCANS} scans": lambda: progressive_jpeg(MAX_JPEG_SCANS, noise(width, height)),
        "CMYK JPEG": lambda: encoded(drawing(width, height).convert("CMYK"), "JPEG"),
        "packed TIFF": lambda: encoded(drawing(width, height), "TIFF", compression="tiff_adobe_deflate"),
    }


def noise(width: int, height: int) -> Image.Image:
    """Coarse enough that no encoder takes minutes, fine enough that every block has something in it."""
    cells = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height))


def cost_of(decode: PictureDecoder, data: bytes) -> Cost:
    held_mb = memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM, the peak, back to VmRSS
    before_s = cpu_s()
    with suppress(CallerError):
        decode(data, box=None, wanted_px=WANTED_PX, field="image")
    return Cost((cpu_s() - before_s) * 1e3, memory_mb("VmHWM") - held_mb)


def costliest(costs: dict[str, Cost], count: int = 3) -> list[str]:
    return sorted(costs, key=lambda name: costs[name].cpu_ms, reverse=True)[:count]


def figures_of(what: str, cost: Cost) -> list[Figure]:
    return [Figure(what, cost.cpu_ms, "ms of CPU"), Figure(what, cost.peak_mb, "MB at peak")]


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6

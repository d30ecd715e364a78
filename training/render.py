"""Clean marks -> pictures as a camera would take them, and photographs -> augmented views, as batched tensor operations.

Everything runs on the device of its inputs and draws from that device's default random state. Ranges are those of the committed
specification that every reported table uses (`HARD`, `PLAIN`), or others for training (`TRAIN`, `SHELF`). Nothing is
jpeg-decoded, looped over pictures or copied to the host, so that rendering costs a small part of a training step.

Geometry: output and mark coordinates are both [-1, 1] squares. A mark is stored stretched to a square with its aspect ratio
beside it; `H` maps mark to output, and the picture is sampled through its inverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

Range = tuple[float, float]


@dataclass(frozen=True)
class RenderSpec:
    """How far a render departs from the clean mark. `p_` are probabilities; angles in degrees."""

    scale: Range = (0.85, 1.35)  # of the frame's side
    rotation_sd: float = 7.0
    shear_sd: float = 0.1
    perspective_sd: float = 0.12
    p_cylinder: float = 1 / 3
    shift: float = 0.0  # of half a side, either way
    stretch: Range = (1.0, 1.0)  # 1: the aspect ratio is lost, as in a tight box made square; 0: it is kept
    p_invert: float = 0.10
    p_grey: float = 0.12
    p_tint: float = 0.10
    p_flat: float = 0.45  # flat ground, else a photograph
    light: float = 0.2  # either way, across the picture
    contrast: Range = (0.55, 1.25)
    p_resample: float = 0.40  # down by a factor and up again
    resample: tuple[int, ...] = (2, 3)  # the factors, each as often as the other
    p_occluder: float = 0.25  # of an eighth to a third of the side
    noise: float = 0.05  # largest standard deviation
    colour: float = 0.0  # gain of each channel, and saturation, either way
    strength: Range = (1.0, 1.0)  # each render's own factor on placement, light, contrast, colour and noise


HARD = RenderSpec()
PLAIN = RenderSpec(
    scale=(0.925, 1.175), rotation_sd=3.5, shear_sd=0.05, perspective_sd=0.06, p_cylinder=1 / 6, p_invert=0, p_grey=0, p_tint=0,
    light=0.1, contrast=(0.775, 1.125), p_resample=0.2, p_occluder=0, noise=0.025,
)  # fmt: skip
# A printed thing in a telephone's picture: smaller than the frame, anywhere in it, under any lamp. With gentler colours and light
# the place looked far more like the example than it does in photographs of scans: docs/experiments.md.
PHONE = RenderSpec(
    scale=(0.55, 1.1), rotation_sd=8, shear_sd=0.07, perspective_sd=0.13, p_cylinder=0.25, shift=0.25, stretch=(0, 0), p_invert=0,
    p_grey=0, p_tint=0, p_flat=0, light=0.6, contrast=(0.3, 1.2), p_resample=0.7, resample=(2,), p_occluder=0.15, noise=0.03,
    colour=0.5,
)  # fmt: skip
# The same held before the camera, near and in good light.
SHOWN = replace(
    PHONE, scale=(0.9, 1.1), perspective_sd=0.05, shift=0.05, light=0.2, contrast=(0.8, 1.2), p_resample=0, p_occluder=0
)  # fmt: skip
TRAIN = RenderSpec(
    scale=(0.55, 1.4), rotation_sd=11, shear_sd=0.14, perspective_sd=0.15, shift=0.25, stretch=(0.0, 1.0), p_flat=0.4, light=0.35,
    contrast=(0.45, 1.3), p_resample=0.5, p_occluder=0.35, noise=0.06, colour=0.2, strength=(0.0, 1.0),
)  # fmt: skip

# Crops from a shop's video: dim, blurred, in the shop's light, cut by a careless box.
SHELF = RenderSpec(
    scale=(0.8, 1.6), rotation_sd=5, shear_sd=0.05, perspective_sd=0.1, p_cylinder=1 / 6, shift=0.3, stretch=(0.4, 1), p_invert=0,
    p_grey=0, p_tint=0, p_flat=0, light=0.5, contrast=(0.35, 1.15), p_resample=1, resample=(2, 3, 6), p_occluder=0.15, noise=0.05,
    colour=0.12,
)  # fmt: skip


def uniform(n: int, low: float, high: float, like: Tensor) -> Tensor:
    return torch.rand(n, device=like.device) * (high - low) + low


def chance(n: int, p: float, like: Tensor) -> Tensor:
    return torch.rand(n, device=like.device) < p


def composed(matrices: list[Tensor]) -> Tensor:
    product = matrices[0]
    for matrix in matrices[1:]:
        product = product @ matrix
    return product


def affine(a: Tensor, b: Tensor, c: Tensor, d: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[[a, b, x], [c, d, y], [0, 0, 1]] for each of a batch -> (n, 3, 3)."""
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, b, x, c, d, y, zero, zero, one], -1).view(-1, 3, 3)


def placement(aspects: Tensor, spec: RenderSpec, strength: Tensor) -> Tensor:
    """Homographies mark -> output (n, 3, 3): scale, aspect, rotation, shear, perspective, shift."""
    n, zero, one = len(aspects), torch.zeros_like(aspects), torch.ones_like(aspects)
    middle = (spec.scale[0] * spec.scale[1]) ** 0.5
    spread = math.log(spec.scale[1] / middle)
    scale = middle * torch.exp(uniform(n, -spread, spread, aspects) * strength)
    # What is kept of the aspect ratio; the longer side fills the frame.
    kept = aspects ** (1 - uniform(n, *spec.stretch, aspects))
    width, height = (kept / torch.maximum(kept, one)), (1 / torch.maximum(kept, one))
    angle = torch.randn(n, device=aspects.device) * math.radians(spec.rotation_sd) * strength
    shear = torch.randn(n, device=aspects.device) * spec.shear_sd * strength
    tilt = torch.randn(n, 2, device=aspects.device) * spec.perspective_sd * strength[:, None]
    room = spec.shift * strength
    projective = affine(one, zero, zero, one, zero, zero)
    projective[:, 2, 0], projective[:, 2, 1] = tilt[:, 0].clamp(-0.4, 0.4), tilt[:, 1].clamp(-0.4, 0.4)
    return composed(
        [
            affine(one, zero, zero, one, uniform(n, -1, 1, aspects) * room, uniform(n, -1, 1, aspects) * room),
            projective,
            affine(torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle), zero, zero),
            affine(one, shear, zero, one, zero, zero),
            affine(scale * width, zero, zero, scale * height, zero, zero),
        ]
    )


def sampling_grid(homographies: Tensor, side_px: int, bend: Tensor) -> Tensor:
    """Where each output pixel looks in the mark (n, side, side, 2). `bend` (n,) > 0 lays the mark on an upright cylinder."""
    axis = (torch.arange(side_px, device=bend.device, dtype=torch.float32) + 0.5) * (2 / side_px) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3)  # (1, side * side, 3)
    mapped = points @ torch.linalg.inv(homographies).transpose(1, 2)  # (n, side * side, 3)
    # Behind the camera the divisor turns negative: such points are sent outside the mark.
    divisor = mapped[..., 2:]
    u, v = (mapped[..., :2] / divisor.clamp(min=1e-3)).unbind(-1)
    k = bend[:, None]
    around = torch.asin((u * torch.sin(k)).clamp(-1, 1)) / k.clamp(min=1e-3)
    u = torch.where((k > 1e-3) & (u.abs() <= 1), around, u)
    u = torch.where(divisor[..., 0] > 1e-3, u, torch.full_like(u, 9.0))
    return torch.stack([u, v], -1).view(len(bend), side_px, side_px, 2)


def recoloured(colours: Tensor, spec: RenderSpec) -> Tensor:
    """Some marks inverted, grey or tinted: the same mark in another print."""
    n = len(colours)
    invert, grey, tint = (chance(n, p, colours).view(n, 1, 1, 1) for p in (spec.p_invert, spec.p_grey, spec.p_tint))
    colours = torch.where(invert, 1 - colours, colours)
    luminance = colours.mean(1, keepdim=True)
    colours = torch.where(grey, luminance.expand_as(colours), colours)
    hue = torch.rand(n, 3, 1, 1, device=colours.device)
    return torch.where(tint, hue + (1 - hue) * luminance, colours)


def grounds(photographs: Tensor, mark: Tensor, alpha: Tensor, p_flat: float) -> Tensor:
    """Flat or photographic ground, kept apart from the mark's own lightness so that it can be seen at all."""
    n = len(photographs)
    flat = torch.rand(n, 3, 1, 1, device=mark.device)
    flat = torch.where(chance(n, 0.4, mark).view(n, 1, 1, 1), 1 - 0.1 * flat, flat).expand_as(photographs)
    ground = torch.where(chance(n, p_flat, mark).view(n, 1, 1, 1), flat, photographs)
    lightness = (mark * alpha).sum((1, 2, 3)) / (3 * alpha.sum((1, 2, 3))).clamp(min=1)
    gap = lightness - ground.mean((1, 2, 3))
    towards = (lightness < 0.5).float().view(n, 1, 1, 1)  # a dark mark gets a lighter ground
    pull = ((0.3 - gap.abs()).clamp(min=0) / 0.3 * 0.7).view(n, 1, 1, 1)
    return ground + (towards - ground) * pull


def lit(pictures: Tensor, spec: RenderSpec, strength: Tensor) -> Tensor:
    """Light falling off across the picture, contrast, and the camera's colour."""
    n, side = len(pictures), pictures.shape[-1]
    axis = torch.linspace(-1, 1, side, device=pictures.device)
    angle = uniform(n, 0, 2 * math.pi, pictures)
    slope = torch.cos(angle)[:, None, None] * axis[None, None, :] + torch.sin(angle)[:, None, None] * axis[None, :, None]
    pictures = pictures * (1 + slope * (uniform(n, 0, spec.light, pictures) * strength)[:, None, None])[:, None]
    contrast = 1 + (uniform(n, *spec.contrast, pictures) - 1) * strength
    pictures = (pictures - 0.5) * contrast.view(n, 1, 1, 1) + 0.5
    if spec.colour:
        gain = 1 + (torch.rand(n, 3, 1, 1, device=pictures.device) * 2 - 1) * spec.colour * strength.view(n, 1, 1, 1)
        luminance = pictures.mean(1, keepdim=True)
        saturation = 1 + uniform(n, -1.5, 1.0, pictures) * spec.colour * strength
        pictures = (luminance + (pictures - luminance) * saturation.view(n, 1, 1, 1)) * gain
    return pictures


def occluded(pictures: Tensor, fillers: Tensor, p: float) -> Tensor:
    """A rectangle of an eighth to a third of the side covers part of some pictures."""
    n, side = len(pictures), pictures.shape[-1]
    axis = torch.linspace(-1, 1, side, device=pictures.device)
    half = uniform(2 * n, 1 / 8, 1 / 3, pictures).view(2, n, 1)
    centre = uniform(2 * n, -0.8, 0.8, pictures).view(2, n, 1)
    inside = (axis - centre).abs() < half  # (2, n, side)
    mask = inside[0][:, None, None, :] & inside[1][:, None, :, None] & chance(n, p, pictures).view(n, 1, 1, 1)
    return torch.where(mask, fillers, pictures)


def degraded(pictures: Tensor, spec: RenderSpec, strength: Tensor) -> Tensor:
    """Resampling on a share of the batch, then sensor noise. Which share is by position: a batch has no order."""
    n, side = len(pictures), pictures.shape[-1]
    share = round(n * spec.p_resample / len(spec.resample))
    resampled = min(n, share * len(spec.resample))
    parts = [pictures[resampled:]]
    for factor, part in zip(spec.resample, pictures[:resampled].split(max(1, share)), strict=False):
        small = F.interpolate(part, size=(side // factor,) * 2, mode="area")
        parts.append(F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False))
    pictures = torch.cat(parts)
    pictures = pictures.roll(resampled, 0)  # back into the order they came in
    noise = (uniform(n, 0, spec.noise, pictures) * strength).view(n, 1, 1, 1)
    return pictures + torch.randn_like(pictures) * noise


def render(marks: Tensor, aspects: Tensor, photographs: Tensor, spec: RenderSpec) -> Tensor:
    """Marks as RGBA in [0, 1] (n, 4, m, m), RGB photographs (n, 3, s, s) to lay them on -> pictures in [0, 1] (n, 3, s, s)."""
    n, side = len(marks), photographs.shape[-1]
    order = torch.randperm(n, device=marks.device)  # so that the shares taken by position differ between calls
    marks, aspects = marks[order], aspects[order]
    strength = uniform(n, *spec.strength, marks)
    colours, alpha = recoloured(marks[:, :3], spec), marks[:, 3:]
    bend = uniform(n, 0.4, 1.2, marks) * chance(n, spec.p_cylinder, marks)
    grid = sampling_grid(placement(aspects, spec, strength), side, bend)
    # Colours are premultiplied, so that what is transparent does not bleed in at the edges.
    sampled = F.grid_sample(torch.cat([colours * alpha, alpha], 1), grid, mode="bilinear", align_corners=False)
    premultiplied, alpha = sampled[:, :3], sampled[:, 3:]
    colours = premultiplied / alpha.clamp(min=1e-3)
    ground = grounds(photographs, colours, alpha, spec.p_flat)
    pictures = premultiplied + ground * (1 - alpha)
    pictures = occluded(pictures, photographs.roll(1, 0), spec.p_occluder)
    pictures = degraded(lit(pictures, spec, strength), spec, strength).clamp(0, 1)
    return pictures[order.argsort()]


@dataclass(frozen=True)
class ViewSpec:
    """How far a view of a photograph departs from it."""

    area: Range = (0.35, 1.0)  # of the photograph that is kept
    aspect: Range = (0.75, 4 / 3)
    rotation_sd: float = 6.0
    p_flip: float = 0.5
    p_grey: float = 0.02
    p_occluder: float = 0.25
    appearance: RenderSpec = replace(TRAIN, contrast=(0.7, 1.25), p_resample=0.3, colour=0.1)


def photograph_views(photographs: Tensor, may_flip: Tensor, side_px: int, spec: ViewSpec) -> Tensor:
    """Photographs in [0, 1] (n, 3, s, s) -> one augmented view of each (n, 3, side, side). `may_flip` (n,) bool."""
    n = len(photographs)
    strength = uniform(n, *spec.appearance.strength, photographs)
    area = uniform(n, *spec.area, photographs)
    ratio = torch.exp(uniform(n, math.log(spec.aspect[0]), math.log(spec.aspect[1]), photographs))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x = uniform(n, -1, 1, photographs) * (1 - width)
    y = uniform(n, -1, 1, photographs) * (1 - height)
    flip = 1 - 2 * (may_flip & chance(n, spec.p_flip, photographs)).float()
    angle = torch.randn(n, device=photographs.device) * math.radians(spec.rotation_sd) * strength
    theta = torch.stack(
        [
            torch.stack([torch.cos(angle) * width * flip, -torch.sin(angle) * height, x], -1),
            torch.stack([torch.sin(angle) * width * flip, torch.cos(angle) * height, y], -1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, 3, side_px, side_px], align_corners=False)
    views = F.grid_sample(photographs, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    grey = chance(n, spec.p_grey, photographs).view(n, 1, 1, 1)
    views = torch.where(grey, views.mean(1, keepdim=True).expand_as(views), views)
    views = occluded(views, views.roll(1, 0), spec.p_occluder)
    order = torch.randperm(n, device=photographs.device)
    return degraded(lit(views, spec.appearance, strength)[order], spec.appearance, strength[order])[order.argsort()].clamp(0, 1)


def clean(marks: Tensor, side_px: int, ground: float | Tensor = 1.0) -> Tensor:
    """Marks (n, 4, m, m) as they are enrolled: tight, on a flat ground that shows them -> (n, 3, side, side).

    White, or black for marks that are nearly white themselves.
    """
    colours, alpha = marks[:, :3], marks[:, 3:]
    lightness = (colours * alpha).sum((1, 2, 3)) / (3 * alpha.sum((1, 2, 3))).clamp(min=1)
    ground = torch.where(lightness > 0.85, 0.1, ground).view(-1, 1, 1, 1)
    return F.interpolate(colours * alpha + ground * (1 - alpha), size=(side_px, side_px), mode="bilinear", align_corners=False)

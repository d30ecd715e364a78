"""What the embedding network is trained on, as batches: marks and package fronts rendered on photographs, and photographs.

Each batch is pairs of pictures of one class, from three sources in fixed shares. Which packs, and what of them is left out,
stands here and nowhere else; the packs' own rules are in the data folder's README.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from training import data, render
from training.teacher import LESSON_PX, TEACHER, Teacher, features_of

CLASS_PACKS = (
    "tiny-imagenet-dev", "pokemon-pictures-dev", "object-views-dev", "clothing-dev", "euro-coins-dev", "gtsrb-dev",
    "fod-a-crops-dev", "vehicle-logos-dev",
)  # fmt: skip
BOX_PACKS = ("multidomain-det-dev", "freiburg-groceries-dev", "toplogo10-dev")
# Print keeps its colours: inverting or tinting a package makes another package of it, and products are told apart by colour.
FRONTS = replace(render.TRAIN, p_invert=0.0, p_grey=0.0, p_tint=0.0, p_cylinder=0.4, scale=(0.7, 1.5), colour=0.1)
# Near-square photographs that look the same mirrored; print, signs and coins do not.
FLIPPABLE = ("mini-imagenet/", "tiny-imagenet-dev/", "object-views-dev/eth80")
# In the rules of the data folder's README, or generic: one name for many products.
LEFT_OUT = (
    "multidomain-det-dev/candy-bars/Twix", "multidomain-det-dev/candy-bars/Snickers", "object-views-dev/coil100-obj031",
    "multidomain-det-dev/groceries-object/", "multidomain-det-dev/medicine-packs/", "multidomain-det-dev/boxes/",
    "vehicle-logos-dev/Ford", "vehicle-logos-dev/Porsche", "toplogo10-dev/Nike",
    "object-views-dev/smvs", "object-views-dev/beer-",
)  # fmt: skip
# Never trained on, so that choosing and calibration can use classes the network has not seen.
HELD_BACK_PACKS = ("object-views-dev", "vehicle-logos-dev")
HELD_BACK_SHARE = 0.25


def held_back(class_name: str) -> bool:
    """A quarter of the objects and car emblems is for choosing and calibration."""
    return class_name.startswith(HELD_BACK_PACKS) and data.share_of(class_name) < HELD_BACK_SHARE


@dataclass(frozen=True)
class BatchSpec:
    data: Path  # folder with the packs
    cache: Path  # where the teacher's features are kept
    size: int  # pictures a batch
    marks_share: float
    fronts_share: float
    same_share: float  # of the pairs of photographs: two views of one photograph, as of one product; the rest are two photographs
    lessons: bool  # give the teacher's features with each batch
    few: bool = False  # only some hundred pictures of each source


@dataclass(frozen=True)
class Source:
    """One part of a batch."""

    pictures: data.PictureSet
    sampler: data.ClassSampler
    first_label: int
    pairs: int
    same_share: float  # of the pairs
    may_flip: Tensor  # bool (classes,); only photographs use it
    lessons: Tensor | None  # fp16 (n, 1280): the teacher's features, centred


def training_split(split: str) -> bool:
    return split in set("0123456")


def read_sources(spec: BatchSpec, device: torch.device) -> list[Source]:
    """Marks, fronts, photographs: the order of a batch."""
    workers = os.cpu_count() or 1
    few = slice(None, 300) if spec.few else slice(None)
    marks = data.load(
        data.pack_items(spec.data / "brand-marks", split=training_split)[few], side_px=128, mode="RGBA", workers=workers
    )
    fronts = data.load(
        data.pack_items(spec.data / "package-fronts", split=training_split)[few], side_px=128, mode="RGBA", workers=workers
    )
    photographs = data.load(photograph_items(spec.data)[few], side_px=96, workers=workers)
    pairs = spec.size // 2
    shares = [round(pairs * spec.marks_share), round(pairs * spec.fronts_share)]
    shares.append(pairs - sum(shares))
    sources, first_label = [], 0
    for name, pictures, count, flatness in zip(
        ("marks", "fronts", "photographs"), (marks, fronts, photographs), shares, (0.0, 0.0, 0.6), strict=True
    ):
        flips = torch.tensor([name.startswith(FLIPPABLE) for name in pictures.class_names], device=device)
        lessons = read_lessons(spec, name, pictures).to(device) if spec.lessons else None
        on_device = pictures.to(device)
        sampler = data.ClassSampler(on_device, flatness=flatness)
        same_share = spec.same_share if name == "photographs" else 0.0
        sources.append(Source(on_device, sampler, first_label, count, same_share, flips, lessons))
        first_label += len(pictures.class_names)
    return sources


def read_lessons(spec: BatchSpec, name: str, pictures: data.PictureSet) -> Tensor:
    """The teacher's features of each picture less their mean: what tells these pictures apart, not what they share."""
    shown = hashlib.sha256(pictures.pixels[:, :, ::8, ::8].contiguous().numpy().tobytes()).hexdigest()[:16]
    cache = spec.cache / f"teacher-{name}-{LESSON_PX}px-{shown}.npy"
    lessons = features_of(pictures.pixels, Teacher(spec.data / TEACHER, side_px=LESSON_PX), cache)
    return (lessons.float() - lessons.float().mean(0)).half()


def photograph_items(folder: Path) -> list[data.Item]:
    """Every photograph that may teach the network that ships."""
    items = data.pack_items(folder / "mini-imagenet", split=lambda split: split == "train")
    for pack in CLASS_PACKS:
        items += data.pack_items(folder / pack)
    for pack in BOX_PACKS:
        items += data.box_items(folder / pack, margin=0.05)
    return [item for item in items if not item.class_name.startswith(LEFT_OUT) and not held_back(item.class_name)]


@torch.no_grad()
def draw_batch(sources: list[Source], side_px: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """-> pictures in [0, 1] (b, 3, side, side), labels (b,), and the teacher's features of what they show (b, 1280)."""
    marks, fronts, photographs = sources
    pictures, labels, chosen = [], [], []
    for source in (marks, fronts):
        positions, drawn = source.sampler.draw(source.pairs, 2)
        stock = photographs.pictures.pixels
        grounds = stock[torch.randint(len(stock), positions.shape, device=stock.device)]
        grounds = F.interpolate(grounds.float() / 255, size=(side_px, side_px), mode="bilinear", align_corners=False)
        ranges = render.TRAIN if source is marks else FRONTS
        faces = source.pictures.pixels[positions].float() / 255
        if side_px <= 96:
            faces = F.avg_pool2d(faces, 2)  # sampled at a smaller side, the full one would alias
        pictures.append(render.render(faces, source.pictures.aspects[positions], grounds, ranges))
        labels.append(drawn + source.first_label)
        chosen.append(positions)
    positions, drawn = photographs.sampler.draw(photographs.pairs, 2)
    # Products are instances: classes alone teach to overlook what tells one of their members from another, colour first.
    same = torch.rand(photographs.pairs, device=positions.device) < photographs.same_share
    positions = torch.where(same.repeat_interleave(2), positions[::2].repeat_interleave(2), positions)
    views = photographs.pictures.pixels[positions].float() / 255
    pictures.append(render.photograph_views(views, photographs.may_flip[drawn], side_px, render.ViewSpec()))
    labels.append(drawn + photographs.first_label)
    chosen.append(positions)
    lessons = [source.lessons[rows].float() for source, rows in zip(sources, chosen, strict=True) if source.lessons is not None]
    return torch.cat(pictures), torch.cat(labels), torch.cat(lessons) if lessons else None

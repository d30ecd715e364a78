"""What choices are made on: classes that training never sees, of packs that may be used for choosing and are not reported on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from training import data, render
from training.batches import HELD_BACK_PACKS, LEFT_OUT, held_back

Embeds = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # uint8-valued (n, 3, side, side) -> embedding, features, dense map


class Validation:
    """Top-1 accuracies.

    Marks and fronts of split 7 (one clean picture each enrolled, one *hard* render each asked, all classes against each other);
    mini-ImageNet `val`, car emblems and objects held back (one random picture a class enrolled, others asked, mean of 20; of
    objects not the views on either side of it, which are near frames).
    """

    def __init__(self, folder: Path, device: torch.device, *, side_px: int, few: bool = False) -> None:
        part = slice(None, 200) if few else slice(None)
        workers = os.cpu_count() or 1

        def load(items: list[data.Item], mode: str = "RGB", side_px: int = 128) -> data.PictureSet:
            return data.load(items[part], side_px=side_px, mode=mode, workers=workers).to(device)

        def chosen(split: str) -> bool:
            return split == "7"

        self.side_px = side_px
        self.marks = load(data.pack_items(folder / "brand-marks", split=chosen), "RGBA")
        self.fronts = load(data.pack_items(folder / "package-fronts", split=chosen), "RGBA")
        mini_val = data.pack_items(folder / "mini-imagenet", split=lambda split: split == "val")
        self.photographs = {"mini_val": load(mini_val[::6])}
        for pack in HELD_BACK_PACKS:
            items = [item for item in data.pack_items(folder / pack) if held_back(item.class_name)]
            self.photographs[pack] = load([item for item in items if not item.class_name.startswith(LEFT_OUT)])

    @torch.no_grad()
    def scores(self, network: Embeds) -> dict[str, float]:
        with torch.random.fork_rng(devices=[self.marks.pixels.device] if self.marks.pixels.is_cuda else []):
            torch.manual_seed(7)  # the same renders and the same supports each time
            found = {"marks": self._renders(network, self.marks), "fronts": self._renders(network, self.fronts)}
            return found | {
                name: self._one_shot(network, pictures, neighbours=name == "object-views-dev")
                for name, pictures in self.photographs.items()
            }

    def _embed(self, network: Embeds, pictures: Tensor) -> Tensor:
        sized = F.interpolate(pictures, size=(self.side_px,) * 2, mode="bilinear", align_corners=False, antialias=True)
        return torch.cat([network(part * 255)[0] for part in sized.split(256)])

    def _renders(self, network: Embeds, pictures: data.PictureSet) -> float:
        first = torch.cumsum(pictures.counts, 0) - pictures.counts  # mark number 0 of each class
        faces, aspects = pictures.pixels[first].float() / 255, pictures.aspects[first]
        stock = self.photographs["mini_val"].pixels
        grounds = stock[torch.randint(len(stock), (len(first),), device=stock.device)].float() / 255
        asked = self._embed(network, render.render(faces, aspects, grounds, render.HARD))
        similarity = asked @ self._embed(network, render.clean(faces, 128)).T
        return float((similarity.argmax(1) == torch.arange(len(first), device=first.device)).float().mean())

    def _one_shot(self, network: Embeds, pictures: data.PictureSet, *, neighbours: bool) -> float:
        """`neighbours`: pictures of a class lie in a circle, and those beside the enrolled one are not asked."""
        embedding = self._embed(network, pictures.pixels.float() / 255)
        sampler, right = data.ClassSampler(pictures, flatness=0.0), []
        for _ in range(20):
            drawn = (torch.rand(sampler.starts.shape, device=sampler.starts.device) * sampler.counts).long()
            support = sampler.starts + drawn
            asked = torch.ones(len(embedding), dtype=torch.bool, device=embedding.device)
            for step in (-1, 0, 1) if neighbours else (0,):
                asked[sampler.starts + (drawn + step) % sampler.counts] = False
            nearest = (embedding[asked] @ embedding[support].T).argmax(1)
            right.append((nearest == pictures.labels[asked]).float().mean())
        return float(torch.stack(right).mean())

"""The standard benchmark: a ResNet-10 on the 64 base classes of mini-ImageNet, from a random start, on nothing else.

After SimpleShot (Wang et al. 2019; 3x3 convolutions, no 7x7 stem, nearest centred mean of supports), with the rotation pretext of
S2M2 (Mangla et al., WACV 2020) and EASY (Bendou et al. 2022) on a part of each batch. Departures, for two CPU cores: the stem
halves the picture, the sides grow from 32 to 80 px during the run, the weights are averaged, Muon (`optimizer.py`) for SGD.

    python -m training mini-imagenet --data DIR --run runs/mini-imagenet

0.37 GMAC a picture of 80 px, 4.9 M parameters. `val` is for choosing; the 20 test classes are not in the pack.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from training import data, loop, ranks, render, run
from training.backbone import Block, rate_at
from training.optimizer import optimizer_of

STORED_PX = 84
ENLARGE = 1.15  # a picture to be embedded is enlarged by this, and its middle taken (SimpleShot, section 4; EASY, section 3)
VIEWS = render.ViewSpec(
    area=(0.3, 1.0), rotation_sd=0, p_grey=0.05, p_occluder=0,
    appearance=replace(render.PLAIN, light=0, contrast=(0.6, 1.4), p_resample=0, noise=0, colour=0.12),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    run: Path = field(default=Path("runs/mini-imagenet"), metadata={"help": "run folder; an unfinished run goes on"})
    minutes: float = field(default=480.0, metadata={"help": "of training in all; the schedule fits it"})
    steps: int = field(default=0, metadata={"help": "train for so many steps instead of minutes"})
    batch: int = field(default=128, metadata={"help": "pictures a step, of all ranks together"})
    sides_px: str = field(default="32,48,64,80", metadata={"help": "input sides, one after the other"})
    until: str = field(default="0.1,0.45,0.85", metadata={"help": "progress at which each side but the last ends"})
    kernel_rate: float = field(default=0.08, metadata={"help": "peak rate of kernels, by Muon; 0: AdamW for them too"})
    rate: float = field(default=2e-3, metadata={"help": "peak rate of all else, by AdamW"})
    weight_decay: float = field(default=0.1, metadata={"help": "decoupled, on matrices"})
    warmup: float = field(default=0.02, metadata={"help": "share of the run"})
    ema: float = field(default=0.999, metadata={"help": "decay of the weight average that is kept"})
    smoothing: float = field(default=0.1, metadata={"help": "of labels"})
    rotated: float = field(default=0.25, metadata={"help": "share of a batch that is turned by 90, 180 or 270 degrees"})
    rotation_weight: float = field(default=0.5, metadata={"help": "of the loss that tells how a picture was turned"})
    checkpoint_s: float = field(default=600.0, metadata={"help": "seconds between checkpoints, each with a validation"})
    precision: str = field(default="auto", metadata={"help": "auto, fp32 or bf16"})
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    seed: int = 0
    compile: bool = field(default=False, metadata={"help": "compile the network: a quarter faster, a minute more for each side"})
    smoke: bool = field(default=False, metadata={"help": "a tiny network, a few pictures, six steps: does it run at all"})


class ResNet10(nn.Module):
    """uint8-valued RGB (n, 3, side, side) -> features (n, 8 * width), not negative: means over the last map."""

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU())
        widths = [width // 2, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(*[Block(widths[n], widths[n + 1], 2 if n else 1) for n in range(4)])
        self.features = 8 * width

    def forward(self, pictures: Tensor) -> Tensor:
        return self.stages(self.stem((pictures - 127.5) / 64.0)).mean((2, 3))


def read_network(path: Path) -> tuple[ResNet10, Tensor]:
    """Bare weights, or the average of a run's checkpoint -> the network, ready to compute, and what its features are centred on.

    That is (f,), or () and nothing where the file has no `centre`. ValueError for other weights.
    """
    tensors = load_file(path)
    weights = {name: tensor.float() for name, tensor in (run.without_prefix("average", tensors) or tensors).items()}
    centre = weights.pop("centre", torch.zeros(()))
    network = network_of(weights)
    if centre.shape not in ((), (network.features,)):
        raise ValueError(f"its centre is {tuple(centre.shape)}, its features are ({network.features},)")
    return network.eval().to(memory_format=torch.channels_last), centre


def network_of(weights: Mapping[str, Tensor]) -> ResNet10:
    """ValueError for other weights."""
    try:
        network = ResNet10(width=2 * len(weights["stem.0.weight"]))
        network.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise ValueError("it does not hold the weights of training.mini_imagenet.ResNet10") from error
    return network


class Learner(nn.Module):
    """The network and the two heads that only training needs."""

    def __init__(self, classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.network = ResNet10(width=width)
        self.classify = nn.Linear(self.network.features, classes)
        self.turned = nn.Linear(self.network.features, 4)


def side_at(config: Config, progress: float) -> int:
    """Input side in px: smaller pictures first, as most of what is learnt early is learnt at half the price."""
    ends = [float(end) for end in config.until.split(",")]
    return int(config.sides_px.split(",")[sum(progress >= end for end in ends)])


def turned(pictures: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The last `share` of square pictures turned by a quarter, a half or three quarters -> pictures, quarters turned (n,)."""
    count = round(share * len(pictures))
    quarters = torch.zeros(len(pictures), dtype=torch.int64, device=pictures.device)
    pieces = [pictures[: len(pictures) - count]]
    for number, piece in enumerate(pictures[len(pictures) - count :].chunk(3), start=1):
        pieces.append(torch.rot90(piece, number, (2, 3)))
    quarters[len(pictures) - count :] = torch.cat([torch.full((len(piece),), n) for n, piece in enumerate(pieces) if n])
    return torch.cat(pieces), quarters


@torch.no_grad()
def features_of(network: nn.Module, pixels: Tensor, side_px: int) -> Tensor:
    """uint8 (n, 3, 84, 84) -> features (n, f): the middle of each picture, enlarged, and its mirror image, averaged."""
    edge, found = round((ENLARGE - 1) * side_px / 2), []
    for part in pixels.split(256):
        enlarged = F.interpolate(part.float(), size=(side_px + 2 * edge,) * 2, mode="bilinear", align_corners=False)
        middle = enlarged[:, :, edge : edge + side_px, edge : edge + side_px].to(memory_format=torch.channels_last)
        found.append((network(middle) + network(middle.flip(3))) / 2)
    return torch.cat(found)


def few_shot(features: Tensor, labels: Tensor, *, ways: int, shots: int, episodes: int, asked: int = 15, seed: int = 7) -> Tensor:
    """Accuracy of the nearest mean of supports in each of `episodes` drawn at random (episodes,), by cosine.

    `features` (n, f) are to be centred on the base classes' mean already (CL2N).
    """
    generator = torch.Generator().manual_seed(seed)
    unit = F.normalize(features)
    members = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    ways = min(ways, len(members))
    found = torch.empty(episodes)
    for episode in range(episodes):
        classes = torch.randperm(len(members), generator=generator)[:ways]
        drawn = [members[c][torch.randperm(len(members[c]), generator=generator)[: shots + asked]] for c in classes.tolist()]
        means = torch.stack([unit[rows[:shots]].mean(0) for rows in drawn])
        nearest = torch.cat([unit[rows[shots:]] for rows in drawn]) @ F.normalize(means).T
        truth = torch.arange(ways).repeat_interleave(torch.tensor([len(rows) - shots for rows in drawn]))
        found[episode] = (nearest.argmax(1).cpu() == truth).float().mean()
    return found


def read(folder: Path, split: str, *, every: int = 1) -> data.PictureSet:
    """One split of the pack, every so many pictures of it."""
    items = data.pack_items(folder / "mini-imagenet", split=lambda found: found == split)
    return data.load(items[::every], side_px=STORED_PX, workers=os.cpu_count() or 1)


def train(config: Config) -> None:
    device = run.pick_device(config.device)
    torch.manual_seed(config.seed)
    base = read(config.data, "train", every=40 if config.smoke else 1).to(device)
    chosen_on = read(config.data, "val", every=1 if config.smoke else 6).to(device)
    learner = Learner(len(base.class_names), width=8 if config.smoke else 64).to(device, memory_format=torch.channels_last)
    network = torch.compile(learner.network, dynamic=False) if config.compile else learner.network
    own = ranks.own_share(config.batch)
    may_flip = torch.ones(own, dtype=torch.bool, device=device)

    def losses(progress: float, precision: str) -> dict[str, Tensor]:
        rows = torch.randint(len(base.pixels), (own,), device=device)
        views = render.photograph_views(base.pixels[rows].float() / 255, may_flip, side_at(config, progress), VIEWS)
        views, quarters = turned(views, config.rotated)
        with run.autocast(device, precision):
            features = network(255 * views.to(memory_format=torch.channels_last)).float()
        return {
            "class": F.cross_entropy(learner.classify(features), base.labels[rows], label_smoothing=config.smoothing),
            "turned": config.rotation_weight * F.cross_entropy(learner.turned(features), quarters),
        }

    def scores(network: nn.Module) -> dict[str, float]:
        side_px = side_at(config, 1.0)
        centre = features_of(network, base.pixels[::40], side_px).mean(0)
        features = features_of(network, chosen_on.pixels, side_px) - centre
        return {
            f"val_{shots}shot": float(few_shot(features, chosen_on.labels, ways=5, shots=shots, episodes=600).mean())
            for shots in (1, 5)
        }

    loop.fit(
        config, device, learner, learner.network,
        optimizer_of(learner, rate=config.rate, kernel_rate=config.kernel_rate, weight_decay=config.weight_decay),
        losses=losses, rate_at=lambda progress: rate_at(config, progress), scores=scores,
    )  # fmt: skip


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Train the benchmark network on mini-ImageNet's base classes.")
    train(replace(config, steps=6) if config.smoke and not config.steps else config)

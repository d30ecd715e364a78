"""RepMet as a classifier (its paper's first table): the error on pictures held out of classes that were learnt.

    python -m training evaluate repmet --data DIR --out docs/accuracy/repmet-classifier.json

The 64 base classes of mini-ImageNet, a tenth of the pictures of each held out. Every arm trains the network of the benchmark,
narrower, from the same random start and on the same batches of some classes and some pictures of each, for as many steps, with a
head of its own: softmax; triplets, the hardest of a batch (Hermans et al. 2017, eq. 5); RepMet with one representative a class
and with three (section 3: shares of Gaussians of all representatives, and the margin). Where there is no classifier an answer is
the nearest mean of the class's training pictures; of the network that softmax trained, too (*prototypes*).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training import data, mini_imagenet, render, repmet, run
from training.evaluate.intervals import by_pictures
from training.evaluate.results import write_counted
from training.optimizer import optimizer_of

HELD_OUT = 10  # every so many pictures of a class
TRIPLET_MARGIN = 0.2  # on distances of unit vectors
REPMET_MARGIN = 1.0  # on squared distances: the paper's, where it classifies
MODES = (1, 3)
RATE, KERNEL_RATE, WEIGHT_DECAY = 2e-3, 0.08, 0.1  # as of `training mini-imagenet`


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    out: Path = field(default=Path("docs/accuracy/repmet-classifier.json"), metadata={"help": "JSON with every figure"})
    steps: int = field(default=600, metadata={"help": "of each arm"})
    classes: int = field(default=32, metadata={"help": "of a batch"})
    pictures: int = field(default=4, metadata={"help": "of each of its classes"})
    side_px: int = field(default=32, metadata={"help": "side of the input"})
    width: int = field(default=32, metadata={"help": "channels of the first of four stages"})
    dim: int = field(default=128, metadata={"help": "size of an embedding"})
    precision: str = field(default="fp32", metadata={"help": "fp32 or bf16"})
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    seed: int = 0
    smoke: bool = field(default=False, metadata={"help": "two steps on a few pictures, and no result: does it run at all"})


class Head(nn.Module):
    """What is learnt on top of the network, and what it says of a picture."""

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def scores(self, features: Tensor) -> Tensor | None:
        """(n, f) -> (n, classes), or None where the nearest mean of `embed` decides."""
        return None

    def embed(self, features: Tensor) -> Tensor:
        """(n, f) -> unit vectors."""
        raise NotImplementedError


class Softmax(Head):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(features, classes)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.classify(features), labels)

    def scores(self, features: Tensor) -> Tensor:
        return self.classify(features)

    def embed(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=1)


class Embedding(Head):
    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, dim)

    def embed(self, features: Tensor) -> Tensor:
        return F.normalize(self.project(features), dim=1)


class Triplets(Embedding):
    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Of each picture the farthest of its class has to be nearer than the nearest of any other."""
        embedding = self.embed(features)
        distances = (2 - 2 * embedding @ embedding.T).clamp(min=1e-6).sqrt()
        same = labels[:, None] == labels[None]
        farthest = distances.masked_fill(~same, 0).max(1).values
        nearest = distances.masked_fill(same, repmet.FAR).min(1).values
        return F.relu(farthest - nearest + TRIPLET_MARGIN).mean()


class RepMet(Embedding):
    def __init__(self, features: int, dim: int, classes: int, *, modes: int) -> None:
        super().__init__(features, dim)
        self.representatives = repmet.Representatives(F.normalize(torch.randn(classes, dim), dim=1), modes=modes)

    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of the classes (n, classes), and squared distances (n, classes, modes)."""
        everyone = torch.arange(len(self.representatives.vectors), device=features.device)
        distances = self.representatives.squared_distances(self.embed(features), everyone)
        return repmet.mixture_posterior(distances, self.representatives.width), distances

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        shares, distances = self.posterior(features)
        return F.nll_loss(shares.clamp(min=1e-12).log(), labels) + repmet.margin_loss(distances, labels, margin=REPMET_MARGIN)

    def scores(self, features: Tensor) -> Tensor:
        return self.posterior(features)[0]


def heads(config: Config, features: int, classes: int) -> dict[str, Callable[[], Head]]:
    return {
        "softmax": lambda: Softmax(features, classes),
        "triplets": lambda: Triplets(features, config.dim),
        **{f"RepMet, {modes} a class": lambda modes=modes: RepMet(features, config.dim, classes, modes=modes) for modes in MODES},
    }


def train(config: Config, learnt: data.PictureSet, make: Callable[[], Head], name: str) -> tuple[nn.Module, Head]:
    """The network and its head; start and batches depend on the seed alone."""
    torch.manual_seed(config.seed)
    network = mini_imagenet.ResNet10(width=config.width).to(learnt.pixels.device, memory_format=torch.channels_last)
    head = make().to(learnt.pixels.device)
    optimizer = optimizer_of(nn.ModuleList([network, head]), rate=RATE, kernel_rate=KERNEL_RATE, weight_decay=WEIGHT_DECAY)
    may_flip = torch.ones(config.classes * config.pictures, dtype=torch.bool, device=learnt.pixels.device)
    sampler = data.ClassSampler(learnt, flatness=1.0)
    for step in tqdm(range(config.steps), desc=name, mininterval=10):
        torch.manual_seed(config.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / config.steps)
        rows, labels = sampler.draw(config.classes, config.pictures)
        views = render.photograph_views(learnt.pixels[rows].float() / 255, may_flip, config.side_px, mini_imagenet.VIEWS)
        with run.autocast(learnt.pixels.device, config.precision):
            features = network(255 * views.to(memory_format=torch.channels_last)).float()
        head.loss(features, labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return network.eval(), head.eval()


@torch.no_grad()
def errors(
    config: Config, network: nn.Module, head: Head, learnt: data.PictureSet, asked: data.PictureSet
) -> tuple[np.ndarray, np.ndarray]:
    """Of each picture asked whether the answer is wrong (n,): by the head, and by the nearest mean, which may be the same."""
    features = mini_imagenet.features_of(network, asked.pixels, config.side_px)
    by_mean = head.embed(features) @ nearest_mean(config, network, head, learnt).T
    by_head = head.scores(features)
    found = (by_mean if by_head is None else by_head), by_mean
    wrong, wrong_by_mean = ((scores.argmax(1) != asked.labels).float().cpu().numpy() for scores in found)
    return wrong, wrong_by_mean


def nearest_mean(config: Config, network: nn.Module, head: Head, learnt: data.PictureSet) -> Tensor:
    """The mean of what was learnt of each class, of unit length (classes, e)."""
    embedded = head.embed(mini_imagenet.features_of(network, learnt.pixels, config.side_px))
    means = torch.stack([embedded[learnt.labels == label].mean(0) for label in range(len(learnt.class_names))])
    return F.normalize(means, dim=1)


def split(base: data.PictureSet) -> tuple[data.PictureSet, data.PictureSet]:
    """What is learnt from, and every `HELD_OUT`th picture of each class."""
    starts = torch.cumsum(base.counts, 0) - base.counts
    held_out = (torch.arange(len(base.labels)) - starts[base.labels]) % HELD_OUT == HELD_OUT - 1
    learnt, asked = (
        data.PictureSet(base.pixels[kept], base.labels[kept], base.aspects[kept], base.class_names)
        for kept in (~held_out, held_out)
    )
    return learnt, asked


def evaluate(config: Config, learnt: data.PictureSet, asked: data.PictureSet) -> dict[str, np.ndarray]:
    """Of each picture asked whether an arm is wrong (n,)."""
    found: dict[str, np.ndarray] = {}
    features = mini_imagenet.ResNet10(width=config.width).features
    for name, make in heads(config, features, len(learnt.class_names)).items():
        wrong, by_mean = errors(config, *train(config, learnt, make, name), learnt, asked)
        found |= {name: wrong, "prototypes": by_mean} if name == "softmax" else {name: wrong}
        print({arm: round(100 * float(values.mean()), 1) for arm, values in found.items()}, flush=True)
    return found


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="RepMet as a classifier, beside softmax and triplets.")
    device = run.pick_device(config.device)
    if config.smoke:
        config = replace(config, steps=2, width=8)
    learnt, asked = (one.to(device) for one in split(mini_imagenet.read(config.data, "train", every=40 if config.smoke else 1)))
    wrong, labels = evaluate(config, learnt, asked), asked.labels.cpu().numpy()
    if config.smoke:
        return
    first = next(iter(wrong))
    pairs = {f"{name} - {first}": values - wrong[first] for name, values in wrong.items() if name != first}
    result = {
        "steps": config.steps, "batch": f"{config.classes} classes x {config.pictures}", "side_px": config.side_px,
        "learnt": len(learnt.labels), "asked": len(asked.labels), "classes": len(asked.class_names), "seed": config.seed,
        "errors": {name: by_pictures(values, labels, weigh="pictures").numbers() for name, values in wrong.items()},
        "differences": {name: by_pictures(values, labels, weigh="pictures").numbers() for name, values in pairs.items()},
    }  # fmt: skip
    write_counted(config.out, result)

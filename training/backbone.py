"""The embedding network: plain residual convolutions beside explicit colour and shape signatures.

Trained on pairs of pictures of one class: brand marks and package fronts, rendered, and photographs. No one paper; the losses are
CosFace (Wang et al., CVPR 2018, eq. 4), supervised contrast (Khosla et al., NeurIPS 2020, eq. 2) and distillation of an ImageNet
network's features. Dense 3x3 convolutions only: depthwise ones train slower on CPUs although they count fewer multiplications.

    python -m training embedding --data DIR --run runs/embedding

0.28 GMAC a picture of 96 px. Minutes, results and intervals: models/cards/embedding.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from training import loop, ranks, run
from training.batches import BatchSpec, draw_batch, read_sources
from training.optimizer import optimizer_of
from training.validation import Validation

TEACHER_FEATURES = 1280
HISTOGRAM_BINS = 12 * 4 * 4


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    run: Path = field(default=Path("runs/embedding"), metadata={"help": "run folder; an unfinished run in it is gone on with"})
    start_from: str = field(default="", metadata={"help": "weights (.safetensors) of an earlier run to start from"})
    minutes: float = field(
        default=170.0, metadata={"help": "of training in all, however often interrupted; the schedule fits it"}
    )
    steps: int = field(default=0, metadata={"help": "train for so many steps instead of minutes"})
    batch: int = field(default=128, metadata={"help": "pictures a step, of all ranks together, in pairs of one class"})
    side_px: int = field(default=96, metadata={"help": "input side of what ships; the first part of a run uses `early_px`"})
    early_px: int = field(default=64, metadata={"help": "input side of the first part"})
    early_share: float = field(default=0.6, metadata={"help": "of the run that is spent at `early_px`"})
    dim: int = field(default=256, metadata={"help": "size of the embedding"})
    rate: float = field(default=2e-3, metadata={"help": "peak learning rate of AdamW"})
    kernel_rate: float = field(default=0.0, metadata={"help": "peak rate of kernels, by Muon; 0: AdamW for them too"})
    weight_decay: float = field(default=0.05, metadata={"help": "decoupled, on weights of more than one axis"})
    warmup: float = field(default=0.03, metadata={"help": "share of the run"})
    ema: float = field(default=0.999, metadata={"help": "decay of the weight average that is shipped"})
    margin: float = field(default=0.2, metadata={"help": "CosFace margin"})
    scale: float = field(default=24.0, metadata={"help": "CosFace scale"})
    contrast_weight: float = field(default=0.5, metadata={"help": "of the supervised contrastive loss"})
    teach_weight: float = field(default=2.0, metadata={"help": "of the distillation; 0 trains without a teacher"})
    cache: Path = field(default=Path("runs/cache"), metadata={"help": "where the teacher's features are kept between runs"})
    marks_share: float = field(default=0.45, metadata={"help": "of a batch: brand marks"})
    fronts_share: float = field(default=0.2, metadata={"help": "of a batch: package fronts; photographs are the rest"})
    same_share: float = field(default=0.5, metadata={"help": "of the pairs of photographs: two views of one"})
    checkpoint_s: float = field(default=600.0, metadata={"help": "seconds between checkpoints, each with a validation"})
    precision: str = field(default="auto", metadata={"help": "auto, fp32 or bf16"})
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    compile: bool = field(default=False, metadata={"help": "compile the network; pays on a GPU from some minutes"})
    seed: int = 0
    smoke: bool = field(default=False, metadata={"help": "a tiny network, a few pictures, six steps: does it run at all"})


# ---------------------------------------------------------------------------------------------------------------- network


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016), the shortcut averaged where the block halves the map."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.widen = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.norm2.weight)  # each block starts as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.widen(F.avg_pool2d(x, self.stride) if self.stride > 1 else x)
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)) + shortcut)


class ColourSignature(nn.Module):
    """Soft colour histogram over a learnt palette, of the whole picture and its quarters: (n, 3, s, s) -> (n, 5 * colours).

    Colour decides on shelf products, where a plain histogram beats a network trained for an hour; an explicit signature gives the
    embedding that much from the start, and the loss decides what of it to use.
    """

    def __init__(self, colours: int = 64, grid_px: int = 32) -> None:
        super().__init__()
        self.grid_px = grid_px
        steps = torch.linspace(-1.5, 1.5, round(colours ** (1 / 3)))
        self.palette = nn.Parameter(torch.cartesian_prod(steps, steps, steps))  # (colours, 3) of normalised RGB
        self.sharpness = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, x.shape[-1] // self.grid_px)  # (n, 3, grid, grid)
        # -|x - p|^2 up to a term that softmax drops: a 1x1 convolution.
        logits = F.conv2d(x, (2 * self.palette)[:, :, None, None]) - self.palette.square().sum(1)[:, None, None]
        share = torch.softmax(logits * self.sharpness, 1)  # (n, colours, grid, grid)
        quarters = F.avg_pool2d(share, self.grid_px // 2)  # (n, colours, 2, 2)
        whole = quarters.mean((2, 3), keepdim=True)
        return torch.cat([whole.flatten(1), quarters.flatten(1)], 1).clamp(min=1e-6).sqrt()


class ShapeSignature(nn.Module):
    """Histograms of gradient orientations in 8x8 cells, each normalised by its surroundings: (n, 3, s, s) -> (n, 512).

    Dalal and Triggs (CVPR 2005) as fixed convolutions. On car emblems and logos plain HOG beats what a network learns from marks
    in an hour; given it from the start, the network learns a metric on it and adds what it misses.
    """

    CELLS, ORIENTATIONS = 8, 8

    def __init__(self) -> None:
        super().__init__()
        angle = torch.arange(self.ORIENTATIONS) * (math.pi / self.ORIENTATIONS)
        difference = torch.tensor([-0.5, 0.0, 0.5])
        kernels = torch.zeros(self.ORIENTATIONS, 1, 3, 3)
        kernels[:, 0, 1, :] += torch.cos(angle)[:, None] * difference
        kernels[:, 0, :, 1] += torch.sin(angle)[:, None] * difference
        self.register_buffer("kernels", kernels, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        along = F.conv2d(grey, self.kernels).square()  # (n, 8, s, s): energy of the derivative along each
        energy = along.sum(1, keepdim=True) + 1e-4
        # along^2 / energy^1.5: the gradient's length, shared out sharply among its nearest orientations without an arctangent.
        cells = F.avg_pool2d(along.square() / energy**1.5, x.shape[-1] // self.CELLS)  # (n, 8, 8, 8)
        around = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1, count_include_pad=False)
        return (cells / (around.sqrt() + 0.02)).flatten(1)


class Backbone(nn.Module):
    """uint8-valued RGB (n, 3, side, side) -> unit embedding (n, dim), features (n, f), dense map (n, c, side / 16, side / 16)."""

    def __init__(self, *, dim: int = 256, widths: tuple[int, ...] = (64, 128, 256), blocks: int = 2, features: int = 512) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(first // 2), nn.ReLU(),
            nn.Conv2d(first // 2, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        layers, inputs = [], first
        for stage, outputs in enumerate(widths):
            for number in range(blocks):
                layers.append(Block(inputs, outputs, 2 if stage and not number else 1))
                inputs = outputs
        self.stages, self.blocks = nn.Sequential(*layers), blocks  # blocks of each width
        self.expand = nn.Sequential(nn.Conv2d(inputs, features, 1, bias=False), nn.BatchNorm2d(features), nn.ReLU())
        self.colour, self.shape = ColourSignature(), ShapeSignature()
        self.pooled: int = features  # of the features, the first: what the convolutions found
        self.map_channels = first + sum(widths)
        joined = features + 5 * len(self.colour.palette) + ShapeSignature.ORIENTATIONS * ShapeSignature.CELLS**2
        self.norm = nn.BatchNorm1d(joined)
        self.project = nn.Linear(joined, dim, bias=False)
        self.centre = nn.BatchNorm1d(dim, affine=False)  # the mean of the training pictures goes to the origin before L2
        self.power = nn.Parameter(torch.tensor(3.0))  # generalised mean pooling (Radenovic et al. 2018)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.with_maps(pictures)[:3]

    def with_maps(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """As `forward`, and the maps (n, c, h, w) that the stem and each width of the stages leave."""
        x = (pictures - 127.5) / 64.0
        maps = [self.stem(x)]
        for first in range(0, len(self.stages), self.blocks):
            maps.append(self.stages[first : first + self.blocks](maps[-1]))
        dense = self.expand(maps[-1])  # (n, f, side / 16, side / 16)
        pooled = dense.float().clamp(min=1e-4).pow(self.power).mean((2, 3)).pow(1 / self.power)
        features = self.norm(torch.cat([pooled, self.colour(x.float()), self.shape(x.float())], 1))  # (n, f)
        return F.normalize(self.centre(self.project(features)).float()), features, dense, maps


def colour_histogram(pictures: Tensor) -> Tensor:
    """Shares of 12 hues x 4 saturations x 4 values, square-rooted: RGB in 0 to 255 (n, 3, s, s) -> unit length (n, 192)."""
    red, green, blue = F.avg_pool2d(pictures, 2).flatten(2).unbind(1)  # (n, pixels) each
    value = torch.maximum(torch.maximum(red, green), blue)
    range_ = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = range_.clamp(min=1e-3)
    sixths = torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    sixths = torch.where(value == red, (green - blue) / divisor, sixths)  # -1 to 5, red at 0
    hue = torch.where(sixths < 0, sixths + 6, sixths) / 6
    bins = (hue * 12).floor().clamp(max=11) * 16 + (range_ / value.clamp(min=1e-3) * 4).floor().clamp(max=3) * 4
    bins = bins + (value / 64).floor().clamp(max=3)
    kinds = torch.arange(HISTOGRAM_BINS, device=pictures.device, dtype=bins.dtype)
    return (bins[:, None] == kinds[None, :, None]).float().mean(2).clamp(min=1e-12).sqrt()


def tiny_backbone() -> Backbone:
    """The same graph at a size that tests can afford."""
    return Backbone(dim=16, widths=(8, 16, 16), blocks=1, features=32)


def averaged_weights(run_folder: Path) -> dict[str, Tensor]:
    """The weight average of a run's checkpoint, in fp16, as it is shipped; counters of the norms are not kept."""
    average = run.without_prefix("average", load_file(run_folder / "checkpoint.safetensors"))
    return {name: value.half().contiguous() for name, value in average.items() if not name.endswith("num_batches_tracked")}


def from_weights(weights: Mapping[str, Tensor]) -> Backbone:
    """The network that these weights are of, ready to compute."""
    network = Backbone(dim=weights["project.weight"].shape[0])
    load_weights(network, weights)
    return network.eval()


def load_weights(network: Backbone, weights: Mapping[str, Tensor]) -> None:
    """ValueError unless these are all of the network's, but for the counters of norms; a discriminant's may lie beside them."""
    found = network.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    unknown = [name for name in found.unexpected_keys if not name.startswith("discriminant.")]
    if missing or unknown:
        raise ValueError(f"these weights are not of this network: they lack {missing} and have {unknown}")


def hash_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------------------------- losses


def cosface(embedding: Tensor, proxies: Tensor, labels: Tensor, *, margin: float, scale: float) -> Tensor:
    """Softmax over cosines to one proxy a class, the right one handicapped by `margin` (CosFace, eq. 4)."""
    cosines = embedding @ F.normalize(proxies.float()).T  # (b, d), (classes, d) -> (b, classes)
    handicap = F.one_hot(labels, len(proxies)) * margin
    return F.cross_entropy(scale * (cosines - handicap), labels)


def supervised_contrast(embedding: Tensor, labels: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Pictures of one class against the rest of the batch (Khosla et al., eq. 2)."""
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    logits = (embedding @ embedding.T / temperature).masked_fill(itself, -1e4)  # (b, b)
    positive = (labels[:, None] == labels[None]) & ~itself
    log_share = logits - logits.logsumexp(1, keepdim=True)
    return -((log_share * positive).sum(1) / positive.sum(1).clamp(min=1)).mean()


def distilled(student: Tensor, lessons: Tensor) -> Tensor:
    """1 - cosine between the student's projection and the teacher's centred features."""
    return (1 - F.cosine_similarity(student, lessons)).mean()


# ------------------------------------------------------------------------------------------------------------------- loop


class Learner(nn.Module):
    """The network and what only training needs of it: proxies and the projection onto the teacher's features."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.network = tiny_backbone() if config.smoke else Backbone(dim=config.dim)
        self.proxies = nn.Parameter(torch.randn(classes, self.network.project.out_features) * 0.05)
        self.to_teacher = nn.Linear(self.network.project.in_features, TEACHER_FEATURES)


def phase_side(config: Config, progress: float) -> int:
    """Smaller pictures first: most of what is learnt early is learnt at half the price."""
    return config.early_px if progress < config.early_share or config.smoke else config.side_px


def rate_at(config: Config, progress: float) -> float:
    """Linear warm-up, then a cosine to a hundredth."""
    if progress < config.warmup:
        return config.rate * progress / config.warmup
    return config.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / (1 - config.warmup))))


def train(config: Config) -> None:
    device = run.pick_device(config.device)
    torch.manual_seed(config.seed)
    spec = BatchSpec(
        data=config.data, cache=config.cache, size=ranks.own_share(config.batch),
        marks_share=config.marks_share, fronts_share=config.fronts_share,
        same_share=config.same_share, lessons=config.teach_weight > 0, few=config.smoke,
    )  # fmt: skip
    sources = read_sources(spec, device)
    validation = Validation(config.data, device, side_px=phase_side(config, 1.0), few=config.smoke)
    learner = Learner(config, classes=sources[-1].first_label + len(sources[-1].pictures.class_names))
    learner = learner.to(device, memory_format=torch.channels_last)
    if config.start_from:
        load_weights(learner.network, load_file(config.start_from))
    network = torch.compile(learner.network) if config.compile else learner.network

    def losses(progress: float, precision: str) -> dict[str, Tensor]:
        pictures, labels, lessons = draw_batch(sources, phase_side(config, progress))
        pictures = pictures.to(memory_format=torch.channels_last)
        with run.autocast(device, precision):
            embedding, features, _ = network(pictures * 255)
        terms = {
            "class": cosface(embedding, learner.proxies, labels, margin=config.margin, scale=config.scale),
            "contrast": config.contrast_weight * supervised_contrast(embedding, labels),
        }
        if lessons is not None:
            terms["teach"] = config.teach_weight * distilled(learner.to_teacher(features.float()), lessons)
        return terms

    loop.fit(
        config, device, learner, learner.network,
        optimizer_of(learner, rate=config.rate, kernel_rate=config.kernel_rate, weight_decay=config.weight_decay),
        losses=losses, rate_at=lambda progress: rate_at(config, progress), scores=validation.scores,
    )  # fmt: skip


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Train the embedding network.")
    train(replace(config, steps=6) if config.smoke and not config.steps else config)

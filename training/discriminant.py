"""What the trained network is not taught to keep, weighed by what tells classes apart: a linear discriminant in closed form.

Training makes the learnt vector forget much that the network's own maps still hold, colour and texture first: marks come in any.
So the vector that is served starts from more than the learnt one, and a shrunk within-class scatter with one covariance for all
classes (Fisher 1936; Friedman 1989, eq. 18) says which directions vary inside a class: these are scaled down. Of a new class
there are no pictures to estimate its own scatter from; that of other classes serves it.

    python -m training discriminant --data DIR --run runs/embedding

fits it on training classes and leaves `discriminant.safetensors` in the run folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from training import data, render, run
from training.backbone import HISTOGRAM_BINS, Backbone, averaged_weights, colour_histogram, from_weights, hash_of
from training.batches import photograph_items, training_split
from training.validation import Validation

# Chosen on validation classes, with the number of dimensions: docs/experiments.md, "a discriminant on top".
HISTOGRAM_SCALE = 0.45  # beside the learnt vector and the pooled features at 1
MAP_SCALE = 1.0  # of each mean and each deviation of a map
SHRINKAGE = 0.1
DIMENSIONS = 512
RENDERED_CLASSES, RENDERS = 1000, 3  # of each rendered kind, and of each of its classes
CANVAS_PX = 128


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    run: Path = field(default=Path("runs/embedding"), metadata={"help": "run folder with the trained network"})
    side_px: int = field(default=96, metadata={"help": "side of the network's input"})
    seed: int = 0


class Discriminant(nn.Module):
    """Description (n, f) -> unit vector (n, d): what all classes share goes to the origin, then `matrix`, then length 1."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)  # (f,)
        self.register_buffer("matrix", matrix)  # (f, d)

    def forward(self, description: Tensor) -> Tensor:
        return F.normalize((description - self.mean) @ self.matrix)


class Embedding(nn.Module):
    """What is served: the trained network, the description made of it, and the discriminant."""

    def __init__(self, network: Backbone, discriminant: Discriminant) -> None:
        super().__init__()
        self.network, self.discriminant = network, discriminant

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8-valued RGB (n, 3, side, side) -> unit embedding (n, d), features (n, f), dense map, as `Backbone` has them."""
        description, features, dense = describe(self.network, pictures)
        return self.discriminant(description), features, dense


def describe(network: Backbone, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Learnt vector, what the convolutions pooled, statistics of all maps and a colour histogram, side by side; and the network's
    other outputs."""
    learnt, features, dense, maps = network.with_maps(pictures)
    pooled = F.normalize(features[:, : network.pooled])
    statistics = [MAP_SCALE * part for one in maps for part in map_statistics(one)]
    return torch.cat([learnt, pooled, *statistics, HISTOGRAM_SCALE * colour_histogram(pictures)], 1), features, dense


def map_statistics(one: Tensor) -> tuple[Tensor, Tensor]:
    """Of a map (n, c, h, w) >= 0: mean and deviation of each channel, square-rooted, unit length: (n, c) each."""
    mean, square = one.mean((2, 3)), one.square().mean((2, 3))
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    return F.normalize(mean.clamp(min=1e-12).sqrt()), F.normalize(deviation.clamp(min=1e-12).sqrt())


def untrained(network: Backbone) -> Embedding:
    """The description as it is."""
    size = network.project.out_features + network.pooled + 2 * network.map_channels + HISTOGRAM_BINS
    return Embedding(network, Discriminant(torch.zeros(size), torch.eye(size)))


# -------------------------------------------------------------------------------------------------------------------- fit


def within_class_scatter(vectors: Tensor, labels: Tensor) -> Tensor:
    """Unbiased covariance around the class means, over classes of two pictures and more: (n, f), (n,) -> (f, f)."""
    counts = torch.bincount(labels).to(vectors)  # (classes,)
    sums = vectors.new_zeros(len(counts), vectors.shape[1]).index_add_(0, labels, vectors)
    apart = vectors - (sums / counts.clamp(min=1)[:, None])[labels]
    return apart.T @ apart / (counts - 1).clamp(min=0).sum()


def fit(kinds: Mapping[str, tuple[Tensor, Tensor]], *, shrinkage: float, dimensions: int) -> Discriminant:
    """Descriptions (n, f) and labels (n,) of several kinds of pictures, each kind weighing the same.

    Whitens the shrunk scatter, then keeps the `dimensions` in which the vectors, centred and of length 1, differ most.
    """
    mean = torch.stack([vectors.double().mean(0) for vectors, _ in kinds.values()]).mean(0)
    scatter = torch.stack([within_class_scatter(vectors.double(), labels) for vectors, labels in kinds.values()]).mean(0)
    round_ = scatter.trace() / len(scatter) * torch.eye(len(scatter), dtype=scatter.dtype)
    values, axes = torch.linalg.eigh((1 - shrinkage) * scatter + shrinkage * round_)
    whiten = (axes * values.rsqrt()) @ axes.T  # (f, f)
    units = [F.normalize((vectors.double() - mean) @ whiten) for vectors, _ in kinds.values()]
    _, directions = torch.linalg.eigh(torch.stack([u.T @ u / len(u) for u in units]).mean(0))  # ascending
    matrix = whiten @ directions[:, -dimensions:]
    return Discriminant(mean.float(), (matrix / matrix.norm() * dimensions**0.5).float())  # a scale that fp16 holds well


def training_pictures(config: Config) -> dict[str, tuple[Tensor, Tensor]]:
    """Of training classes: objects from several sides, signs and logos in the wild, marks and fronts as a camera takes them, and
    fronts as a shop's video does.

    Values in 0 to 255 (n, 3, side, side), and labels (n,).
    """
    scenes = data.load(data.pack_items(config.data / "imagenet-1-per-class"), side_px=CANVAS_PX).pixels
    items = photograph_items(config.data)
    marks, fronts = (faces(config.data / pack) for pack in ("brand-marks", "package-fronts"))
    return {
        "objects": photographs(items, "object-views-dev", each=12, side_px=config.side_px),
        # Real light, blur and distance, which renders do not know.
        "signs": photographs(items, "gtsrb-dev", each=25, side_px=config.side_px),
        "logos": photographs(items, "vehicle-logos-dev", "toplogo10-dev", each=25, side_px=config.side_px),
        "marks": renders(marks, scenes, render.PLAIN, config.side_px),
        "fronts": renders(fronts, scenes, render.PLAIN, config.side_px),
        "shelves": renders(fronts, scenes, render.SHELF, config.side_px),
    }


def photographs(items: Sequence[data.Item], *packs: str, each: int, side_px: int) -> tuple[Tensor, Tensor]:
    """Up to `each` of every class of these packs, spread over what there is."""
    by_class: dict[str, list[data.Item]] = {}
    for item in items:
        if item.class_name.startswith(packs):
            by_class.setdefault(item.class_name, []).append(item)
    spread = [item for own in by_class.values() for item in own[:: -(-len(own) // each)]]
    pictures = data.load(spread, side_px=CANVAS_PX)
    return sized(pictures.pixels.float() / 255, side_px), pictures.labels


def faces(pack: Path) -> data.PictureSet:
    """Clean pictures of some training classes of a pack, drawn at random: RGBA."""
    items = data.pack_items(pack, split=training_split)
    chosen = [items[position] for position in torch.randperm(len(items))[:RENDERED_CLASSES]]
    return data.load(chosen, side_px=CANVAS_PX, mode="RGBA")


def renders(clean: data.PictureSet, scenes: Tensor, ranges: render.RenderSpec, side_px: int) -> tuple[Tensor, Tensor]:
    """RENDERS of each picture on scenes (m, 3, s, s), and which picture it is of."""
    shown, pictures = torch.arange(len(clean.pixels)).repeat(RENDERS), []
    for rows in shown.split(256):
        grounds = scenes[torch.randint(len(scenes), rows.shape)]
        pictures.append(sized(render.render(clean.pixels[rows] / 255, clean.aspects[rows], grounds / 255, ranges), side_px))
    return torch.cat(pictures), shown


def sized(pictures: Tensor, side_px: int) -> Tensor:
    """[0, 1] (n, 3, s, s) -> whole values in 0 to 255 (n, 3, side, side)."""
    return (F.interpolate(pictures, size=(side_px,) * 2, mode="bilinear", antialias=True) * 255).round().clamp(0, 255)


@torch.no_grad()
def descriptions(network: Backbone, pictures: Tensor) -> Tensor:
    return torch.cat([describe(network, part)[0] for part in pictures.split(128)])


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Fit the discriminant on top of the trained network.")
    torch.manual_seed(config.seed)
    weights = averaged_weights(config.run)
    network = from_weights(weights)
    kinds = {name: (descriptions(network, pictures), labels) for name, (pictures, labels) in training_pictures(config).items()}
    discriminant = fit(kinds, shrinkage=SHRINKAGE, dimensions=DIMENSIONS)
    # Fitted to these weights and of no use with others, so it names them.
    save_file(discriminant.state_dict(), config.run / "discriminant.safetensors", {"network": hash_of(weights)})
    validation = Validation(config.data, torch.device("cpu"), side_px=config.side_px)
    for name, embed in (("network", network), ("with discriminant", Embedding(network, discriminant).eval())):
        print(name, {column: round(value, 3) for column, value in validation.scores(embed).items()}, flush=True)

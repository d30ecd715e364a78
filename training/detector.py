"""The detector: where things are, whatever they are, and beside each box an embedding that tells which.

One static network, as FCOS (Tian et al., ICCV 2019, sections 3.1 and 3.2) has it: no anchors; each cell of three maps of
strides 8, 16 and 32 (Lin et al., CVPR 2017) says whether the middle of a thing is there, how good its box is (FCOS's centre-ness,
here the IoU itself), and the four sides of the box. RepMet's head (`repmet.py`) learns the embedding on the cells of things.
Classes are no part of the network: a new one is enrolled by representatives, without training. All boxes teach where things are,
named or not.

What differs: plain 3x3 convolutions with batch norms of each level's own, which fold away; the first block of each width of the
embedding network that ships is the start, its stem with a stride instead of the pooling, which is a quarter of the cost; the
embedding is drawn to what that network makes of the clean mark, so that classes nobody has trained lie where it has them.

    python -m training detector --data DIR --run runs/detector

1.9 GMAC (3.8 GFLOP) a picture of 320 px. Minutes and results: docs/experiments.md.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training import loop, ranks, render, repmet, run, scenes
from training.backbone import Block, hash_of, rate_at
from training.export import embedding_of
from training.optimizer import optimizer_of

STRIDES = (8, 16, 32)
# Root of a box's area, in pixels, from which the next coarser level takes it.
LEVEL_ENDS = (56.0, 144.0)
CENTRE_RADIUS = 1.5  # cells around the middle of a box that are its own: FCOS's centre sampling
PRIOR = 0.01  # of a cell being a thing's, before anything is learnt (Lin et al., ICCV 2017, section 4.1)
LARGEST_LOG = 4.0  # of a side in strides: e^4 strides are more than any frame
UNLABELLED = 0.3  # objectness from which a cell without a box, where not all has one, may well be a thing
CELLS_OF_A_THING = 3  # whose embeddings are taught in a step; its cells are nearly alike
HARD_CELLS = 6  # of background in a scene: those that look most like a thing


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    run: Path = field(default=Path("runs/detector"), metadata={"help": "run folder; an unfinished run in it is gone on with"})
    embedding: Path = field(
        default=Path("models/embedding.safetensors"), metadata={"help": "weights of the embedding network: start and teacher"}
    )
    start_from: str = field(
        default="", metadata={"help": "run folder of another detector to start from, with its classes; or detector.onnx"}
    )
    cache: Path = field(default=Path("runs/cache"), metadata={"help": "where the embeddings of classes are kept between runs"})
    minutes: float = field(
        default=110.0, metadata={"help": "of training in all, however often interrupted; the schedule fits it"}
    )
    steps: int = field(default=0, metadata={"help": "train for so many steps instead of minutes"})
    batch: int = field(default=16, metadata={"help": "scenes a step, of all ranks together; four at least for each"})
    side_px: int = field(default=256, metadata={"help": "side of a scene; the network takes any multiple of 32"})
    dim: int = field(default=128, metadata={"help": "size of the embedding"})
    modes: int = field(default=3, metadata={"help": "representatives of a class"})
    sampled: int = field(default=2000, metadata={"help": "classes that those of a batch are compared with"})
    repmet_weight: float = field(default=1.0, metadata={"help": "of RepMet's two losses; 0 trains the same without them"})
    linear_weight: float = field(default=0.5, metadata={"help": "of the auxiliary linear classifier"})
    teach_weight: float = field(default=1.0, metadata={"help": "of the distance to the embedding network's vector of the class"})
    box_weight: float = field(default=2.0, metadata={"help": "of the loss of boxes"})
    rate: float = field(default=1e-3, metadata={"help": "peak learning rate of AdamW"})
    kernel_rate: float = field(default=0.0, metadata={"help": "peak rate of kernels, by Muon; 0: AdamW for them too"})
    weight_decay: float = field(default=0.05, metadata={"help": "decoupled, on weights of more than one axis"})
    warmup: float = field(default=0.03, metadata={"help": "share of the run"})
    ema: float = field(default=0.998, metadata={"help": "decay of the weight average that is shipped"})
    checkpoint_s: float = field(default=900.0, metadata={"help": "seconds between checkpoints, each with a validation"})
    precision: str = field(default="auto", metadata={"help": "auto, fp32 or bf16"})
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    seed: int = 0
    smoke: bool = field(default=False, metadata={"help": "a tiny network, a few pictures, six steps: does it run at all"})


# ------------------------------------------------------------------------------------------------------------------ network


@dataclass(frozen=True)
class Found:
    """What the network says of the cells of all levels, m of them, finest first."""

    objectness: Tensor  # (n, m) logits: the middle of a thing is here
    fit: Tensor  # (n, m) logits: the IoU that the box will have
    distances: Tensor  # (n, m, 4) from the cell to the box's left, top, right and bottom, in pixels
    features: Tensor  # (n, m, f); `Detector.embed` makes unit vectors of them


class Levels(nn.Module):
    """One convolution for all levels, and a norm of each level's own: what they see differs in scale."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in STRIDES)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [F.relu(norm(self.conv(one))) for one, norm in zip(maps, self.norms, strict=True)]


class Detector(nn.Module):
    """uint8-valued RGB (n, 3, s, s), s a multiple of 32 -> `Found`."""

    def __init__(self, *, dim: int = 128, widths: tuple[int, int, int] = (64, 128, 256), neck: int = 96) -> None:
        super().__init__()
        first, second, third = widths
        # Where the embedding network pools, the second convolution has a stride: see the module's docstring.
        self.stem = nn.Sequential(
            nn.Conv2d(3, first // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(first // 2), nn.ReLU(),
            nn.Conv2d(first // 2, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(),
        )  # fmt: skip
        self.stages = nn.ModuleList([Block(first, first, 1), Block(first, second, 2), Block(second, third, 2)])
        self.coarsest = Block(third, second, 2)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, neck, 1, bias=False), nn.BatchNorm2d(neck)) for inputs in (second, third, second)
        )
        self.shared, self.where, self.which = Levels(neck, neck), Levels(neck, 64), Levels(neck, neck)
        self.say = nn.Conv2d(64, 6, 1)  # objectness, fit, four sides
        self.project = nn.Linear(neck, dim)
        nn.init.normal_(self.say.weight, std=0.01)
        nn.init.zeros_(self.say.bias)
        nn.init.constant_(self.say.bias[:1], -math.log((1 - PRIOR) / PRIOR))
        nn.init.constant_(self.say.bias[2:], math.log(2.5))  # strides from the middle to a side, of most boxes of a level

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """Of strides 8, 16 and 32, each with what the coarser ones see (n, neck, h, w)."""
        x = self.stem((pictures - 127.5) / 64.0)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        found = [*found[1:], self.coarsest(x)]
        fine, middle, coarse = (side(one) for side, one in zip(self.lateral, found, strict=True))
        middle = middle + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return [fine + F.interpolate(middle, scale_factor=2.0, mode="nearest"), middle, coarse]

    def forward(self, pictures: Tensor) -> Found:
        shared = self.shared(self.maps(pictures))
        said = torch.cat([flat(self.say(one)) for one in self.where(shared)], 1).float()  # (n, m, 6)
        features = torch.cat([flat(one) for one in self.which(shared)], 1)
        _, strides = cells_of(pictures.shape[-1], pictures.device)
        return Found(said[..., 0], said[..., 1], said[..., 2:].clamp(max=LARGEST_LOG).exp() * strides[:, None], features)

    def embed(self, features: Tensor) -> Tensor:
        """(…, f) -> unit vectors (…, dim)."""
        return F.normalize(self.project(features).float(), dim=-1)


def flat(one: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, h * w, c)."""
    return one.flatten(2).transpose(1, 2)


def cells_of(side_px: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Middles (m, 2), x and y in pixels, and strides (m,) of all cells of a picture, in the order of `Found`."""
    points, strides = [], []
    for stride in STRIDES:
        cells = side_px // stride
        axis = (torch.arange(cells, device=device, dtype=torch.float32) + 0.5) * stride
        x, y = axis[None].expand(cells, cells), axis[:, None].expand(cells, cells)
        points.append(torch.stack([x, y], -1).view(-1, 2))
        strides.append(torch.full((cells * cells,), float(stride), device=device))
    return torch.cat(points), torch.cat(strides)


def boxes_from(points: Tensor, distances: Tensor) -> Tensor:
    """Cells (m, 2) and distances (…, m, 4) -> left, top, right, bottom (…, m, 4)."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


def distances_to(points: Tensor, boxes: Tensor) -> Tensor:
    """The inverse of `boxes_from`: negative where a cell is outside of its box."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)


def start_weights(network: Detector, weights: Mapping[str, Tensor]) -> None:
    """Stem and the first block of each width, from those of `training.backbone.Backbone`. ValueError for other weights."""
    own = network.state_dict()
    blocks = sum(name.startswith("stages.") and name.endswith("conv1.weight") for name in weights) // len(network.stages)
    for name in own:
        head, _, rest = name.partition(".")
        if head == "stages":
            number, _, rest = rest.partition(".")
            source = f"stages.{int(number) * blocks}.{rest}"
        else:
            source = name
        if head in ("stem", "stages") and not name.endswith("num_batches_tracked"):
            if source not in weights or weights[source].shape != own[name].shape:
                raise ValueError(f"these weights are not of the embedding network: {source} is missing or of another size")
            own[name] = weights[source].float()
    network.load_state_dict(own)


# ------------------------------------------------------------------------------------------------------------------ targets


@dataclass(frozen=True)
class Targets:
    """What each cell should say; (n, m) but for `boxes`."""

    is_thing: Tensor  # bool
    is_background: Tensor  # bool; what is neither teaches nothing
    boxes: Tensor  # (n, m, 4) of the thing
    labels: Tensor  # its class, or below 0
    number: Tensor  # its column among the boxes of its scene
    is_clear: Tensor  # bool: background that lies in no box


def targets_of(drawn: scenes.Scenes) -> Targets:
    """A box is told by the cells around its middle, of the level that its size is for; of two boxes the smaller has a cell."""
    points, strides = cells_of(drawn.pictures.shape[-1], drawn.pictures.device)
    level = torch.log2(strides / STRIDES[0])  # (m,)
    boxes, labels = drawn.boxes[:, None], drawn.labels[:, None]  # (n, 1, b, …)
    sides = boxes[..., 2:] - boxes[..., :2]
    size = sides.clamp(min=0).prod(-1).sqrt()
    ends = torch.tensor(LEVEL_ENDS, device=size.device)
    is_level = torch.bucketize(size, ends, right=True) == level[:, None]  # (n, m, b)
    inside = distances_to(points[:, None], boxes).min(-1).values > 0
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    away = (points[:, None] - middle).abs().max(-1).values / strides[:, None]  # in strides
    # A thing smaller than a cell still has the one that its middle is in.
    near = (inside & (away < CENTRE_RADIUS)) | (away <= 0.5)
    candidates = near & is_level & (labels >= scenes.UNNAMED)
    area = torch.where(candidates, size, torch.inf)
    smallest, number = area.min(2)
    is_thing = smallest < torch.inf
    ignored = (inside & (labels == scenes.IGNORED)).any(2)
    rows = torch.arange(len(drawn.boxes), device=number.device)[:, None]
    is_background = ~is_thing & ~ignored
    clear = is_background & ~(inside & (labels != scenes.ABSENT)).any(2)
    return Targets(is_thing, is_background, drawn.boxes[rows, number], drawn.labels[rows, number], number, clear)


# ------------------------------------------------------------------------------------------------------------------- losses


def focal_loss(logits: Tensor, is_thing: Tensor, weight: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Binary cross-entropy that counts little where it is right already (Lin et al., ICCV 2017, eq. 5), summed."""
    target = is_thing.float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p_right = torch.exp(-entropy)  # p_t
    alpha_t = alpha * target + (1 - alpha) * (1 - target)
    return (weight * alpha_t * (1 - p_right) ** gamma * entropy).sum()


def overlaps(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes (k, 4) with their partners (Rezatofighi et al., CVPR 2019, algorithm 1)."""
    areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (one, other)]
    shared = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(1)
    hull = (torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])).prod(1).clamp(min=1e-6)
    union = (areas[0] + areas[1] - shared).clamp(min=1e-6)
    iou = shared / union
    return iou, iou - (hull - union) / hull


def box_losses(found: Found, targets: Targets, is_complete: Tensor, side_px: int) -> dict[str, Tensor]:
    """Where things are: objectness of all cells, boxes and their fit on the cells of things. Means over the cells of things."""
    things = targets.is_thing
    count = things.sum().clamp(min=1)
    # Where not everything has a box, a cell that looks like a thing may be one: it is not taught the contrary.
    unsure = ~is_complete[:, None] & (found.objectness.detach().sigmoid() > UNLABELLED)
    weight = (things | (targets.is_background & ~unsure)).float()
    points, _ = cells_of(side_px, things.device)
    boxes = boxes_from(points, found.distances)[things]
    iou, generalised = overlaps(boxes, targets.boxes[things])
    return {
        "objectness": focal_loss(found.objectness, things, weight) / count,
        "boxes": (1 - generalised).sum() / count,
        "fit": F.binary_cross_entropy_with_logits(found.fit[things], iou.detach(), reduction="sum") / count,
    }


def cells_to_name(found: Found, targets: Targets, is_complete: Tensor) -> tuple[Tensor, Tensor]:
    """Cells (k, 2) as scene and cell, and their labels (k,): some of each thing that has a class, and hard background (-1)."""
    named = torch.nonzero(targets.is_thing & (targets.labels >= 0))
    named = named[torch.randperm(len(named), device=named.device)]
    thing = named[:, 0] * targets.number.shape[1] + targets.number[named[:, 0], named[:, 1]]  # each thing's own number
    order = thing.argsort(stable=True)
    place = torch.arange(len(order), device=order.device) - torch.searchsorted(thing[order], thing[order])  # among its cells
    chosen = named[order[place < CELLS_OF_A_THING]]
    # Not those on a thing beside its middle: what they see is the thing.
    ground = torch.where(targets.is_clear & is_complete[:, None], found.objectness.detach(), -torch.inf)
    hardest = ground.topk(min(HARD_CELLS, ground.shape[1]), 1)
    scene, rank = torch.nonzero(hardest.values > -torch.inf, as_tuple=True)
    background = torch.stack([scene, hardest.indices[scene, rank]], 1)
    labels = targets.labels[chosen[:, 0], chosen[:, 1]]
    return torch.cat([chosen, background]), torch.cat([labels, labels.new_full((len(background),), -1)])


class Learner(nn.Module):
    """The network, and what only training needs: representatives, the linear classifier, and the vectors that teach."""

    def __init__(self, network: Detector, centres: Tensor, *, modes: int) -> None:
        """`centres` (classes, dim): the embedding network's vector of each class."""
        super().__init__()
        self.network = network
        self.representatives = repmet.Representatives(centres, modes=modes)
        self.classify = nn.Linear(network.project.in_features, len(centres) + 1)  # background first
        self.register_buffer("lessons", centres, persistent=False)

    lessons: Tensor  # (classes, dim)

    def class_losses(self, features: Tensor, labels: Tensor, groups: Tensor, config: Config) -> dict[str, Tensor]:
        """Features (k, f) of cells and their labels (k,), -1 for background. `groups` (classes,): see `groups_of`."""
        embedding = self.network.embed(features)
        competing, target = repmet.competing_classes(labels, len(groups), config.sampled)
        things = labels >= 0
        own = torch.where(things, groups[labels.clamp(min=0)], 0)
        rivals = groups[competing]
        strange = (own[:, None] > 0) & (rivals > 0) & (own[:, None] != rivals)  # (k, c): may be the same thing by another name
        distances = self.representatives.squared_distances(embedding, competing).masked_fill(strange[..., None], repmet.FAR)
        rows = torch.cat([competing.new_zeros(1), competing + 1])
        logits = F.linear(features.float(), self.classify.weight[rows], self.classify.bias[rows])
        logits = logits.masked_fill(F.pad(strange, (1, 0)), -1e4)
        losses = {"linear": config.linear_weight * repmet.linear_loss(logits, target)}
        if config.teach_weight:
            taught = (embedding[things] * self.lessons[labels[things]]).sum(1)
            losses["teach"] = config.teach_weight * (1 - taught).sum() / things.sum().clamp(min=1)
        if config.repmet_weight:
            probabilities = repmet.class_probabilities(distances, self.representatives.width)
            losses["repmet"] = config.repmet_weight * repmet.cross_entropy(probabilities, target)
            losses["margin"] = config.repmet_weight * repmet.margin_loss(distances, target)
        return losses


def groups_of(class_names: tuple[str, ...]) -> Tensor:
    """A number for each class (classes,): 0, or that of its source in `multidomain-det-dev`. Classes of two of its sources may be
    one thing by two names, so they are not told apart."""
    sources = sorted({name.split("/")[1] for name in class_names if name.startswith("multidomain-det-dev/")})
    number_of = {f"multidomain-det-dev/{source}": number for number, source in enumerate(sources, start=1)}
    return torch.tensor([number_of.get("/".join(name.split("/")[:2]), 0) for name in class_names])


# -------------------------------------------------------------------------------------------------------------------- start


@torch.no_grad()
def class_vectors(stock: scenes.Stock, weights: Mapping[str, Tensor], *, side_px: int = 96, most: int = 2) -> Tensor:
    """The shipped embedding of each class's clean pictures, `most` of them, averaged -> (classes, d) of unit length."""
    embedding = embedding_of(dict(weights))
    found = []
    for things in stock.things:
        pictures = things.pictures
        starts = torch.cumsum(pictures.counts, 0) - pictures.counts
        total = torch.zeros(len(starts), embedding.discriminant.matrix.shape[1])
        for number in range(most):
            rows = starts + number % pictures.counts
            for part in torch.arange(len(rows)).split(128):
                faces = pictures.pixels[rows[part]].float().cpu() / 255
                shown = render.clean(faces, side_px) if faces.shape[1] == 4 else F.interpolate(faces, (side_px,) * 2, mode="area")
                total[part] += embedding(shown * 255)[0]
            if int(pictures.counts.max()) <= number + 1:
                break
        found.append(F.normalize(total))
    return torch.cat(found)


def narrowed(vectors: Tensor, dim: int) -> Tensor:
    """Unit vectors (n, d) -> (n, dim), of unit length again: onto the directions that hold most of them."""
    _, _, directions = torch.linalg.svd(vectors.T @ vectors)
    return F.normalize(vectors @ directions[:dim].T)


def read_lessons(config: Config, stock: scenes.Stock, weights: Mapping[str, Tensor]) -> Tensor:
    """`class_vectors` narrowed to the detector's size, from the cache where they are."""
    made_of = hashlib.sha256("\n".join([hash_of(weights), *stock.class_names]).encode()).hexdigest()[:16]
    file = config.cache / f"classes-{config.dim}-{made_of}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{os.getpid()}-{file.name}")  # ranks that train together make it at the same time
        save_file({"vectors": narrowed(class_vectors(stock, weights), config.dim).contiguous()}, partial)
        os.replace(partial, file)
    return load_file(file)["vectors"]


# ------------------------------------------------------------------------------------------------------------------- chosen


class Validation:
    """What choices are made on, the same scenes each time.

    Of rendered scenes with marks and fronts of split 7: the share of things among the 100 most likely boxes (IoU 0.5), and of
    those found the share whose embedding is nearest to that of its own class, shown once and clean, among all of the scenes. Of
    photographs of held-out sources: the share of things among the 100 most likely boxes.
    """

    def __init__(self, stock: scenes.Stock, *, side_px: int, few: bool = False, seed: int = 7) -> None:
        self.side_px = side_px
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            spec = scenes.SceneSpec(side_px=side_px, count=4, boxed_share=0.25)
            self.drawn = [scenes.draw_scenes(stock, spec) for _ in range(2 if few else 16)]
            rows = torch.randperm(len(stock.boxed.pixels))[: 8 if few else 128]
            pictures, boxes, labels = scenes.view(stock.boxed, rows, side_px, (1.0, 1.0))
            self.photographs = scenes.Scenes(pictures, boxes, labels, stock.boxed.is_complete[rows])
        shown = torch.unique(torch.cat([one.labels[one.labels >= 0] for one in self.drawn]))
        self.labels = shown  # of the classes that are enrolled
        self.clean = enrolled_pictures(stock, shown, side_px)

    @torch.no_grad()
    def scores(self, network: nn.Module) -> dict[str, float]:
        points, _ = cells_of(self.side_px, self.clean.device)
        middle = (self.side_px / 2 - points).abs().sum(1)
        shown = []
        for part in self.clean.split(8):
            found: Found = network(part * 255)
            likely = found.objectness - middle / 8  # the most likely cell near the middle, where the mark is
            cell = likely.argmax(1)
            shown.append(network.embed(found.features[torch.arange(len(part)), cell]))  # type: ignore[operator]
        representatives = torch.cat(shown)
        hits, named = [], []
        for drawn in self.drawn:
            hit, embedding, labels = self._look(network, drawn)
            hits.append(hit)
            named.append(self.labels[(embedding @ representatives.T).argmax(1)] == labels)
        of_photographs = [
            self._look(network, scenes.Scenes(*(part[None] for part in one)))[0]
            for one in zip(*(getattr(self.photographs, name) for name in self.photographs.__dataclass_fields__), strict=True)
        ]
        return {
            "recall": float(torch.cat(hits).float().mean()),
            "named": float(torch.cat(named).float().mean()) if len(torch.cat(named)) else 0.0,
            "recall_photographs": float(torch.cat(of_photographs).float().mean()),
        }

    def _look(self, network: nn.Module, drawn: scenes.Scenes) -> tuple[Tensor, Tensor, Tensor]:
        """Things -> whether each is found (things,); of those found that have a class, embeddings (f, dim) and labels (f,)."""
        found: Found = network(drawn.pictures * 255)
        points, _ = cells_of(self.side_px, drawn.pictures.device)
        boxes, likely = boxes_from(points, found.distances), objectness_of(found)
        hits, embeddings, labels = [], [], []
        for scene in range(len(drawn.pictures)):
            things = drawn.labels[scene] >= scenes.UNNAMED
            kept = most_likely(boxes[scene], likely[scene], 100)
            iou = pairwise_iou(drawn.boxes[scene][things], boxes[scene][kept])
            best = iou.max(1)
            hit, classes = best.values >= 0.5, drawn.labels[scene][things]
            hits.append(hit)
            cells = kept[best.indices][hit & (classes >= 0)]
            embeddings.append(network.embed(found.features[scene, cells]))  # type: ignore[operator]
            labels.append(classes[hit & (classes >= 0)])
        return torch.cat(hits), torch.cat(embeddings), torch.cat(labels)


def objectness_of(found: Found) -> Tensor:
    """How likely a cell has a thing with a good box (n, m), in [0, 1]."""
    return (found.objectness.sigmoid() * found.fit.sigmoid()).sqrt()


def pairwise_iou(one: Tensor, other: Tensor) -> Tensor:
    """Boxes (a, 4) and (b, 4) -> (a, b)."""
    if not len(one) or not len(other):
        return one.new_zeros(len(one), max(1, len(other)))
    pairs = one.repeat_interleave(len(other), 0), other.repeat(len(one), 1)
    return overlaps(*pairs)[0].view(len(one), len(other))


def most_likely(boxes: Tensor, likely: Tensor, most: int, *, largest_overlap: float = 0.7) -> Tensor:
    """Cells of the `most` likely boxes (m, 4), less those that overlap a likelier one: their numbers, likeliest first."""
    order = likely.topk(min(300, len(likely))).indices
    iou = pairwise_iou(boxes[order], boxes[order])
    kept: list[int] = []
    for number in range(len(order)):
        if len(kept) < most and not bool((iou[number, kept] > largest_overlap).any()):
            kept.append(number)
    return order[kept]


def enrolled_pictures(stock: scenes.Stock, labels: Tensor, side_px: int) -> Tensor:
    """The clean mark or front of each class, aspect ratio kept, over half of a frame (classes, 3, side, side)."""
    found = []
    for label in labels.tolist():
        picture, aspect = stock.first_of(label)
        w, h = (max(16, round(side_px / 2 * share)) for share in (min(1.0, aspect), min(1.0, 1 / aspect)))
        face = render.clean(picture, side_px)
        face = F.interpolate(face, size=(h, w), mode="bilinear", align_corners=False, antialias=True)
        ground = float(face[0, :, 0, 0].mean())
        left, top = (side_px - w) // 2, (side_px - h) // 2
        found.append(F.pad(face, (left, side_px - w - left, top, side_px - h - top), value=ground))
    return torch.cat(found)


# --------------------------------------------------------------------------------------------------------------------- loop


def tiny_detector(dim: int) -> Detector:
    """The same graph at a size that tests can afford."""
    return Detector(dim=dim, widths=(16, 16, 16), neck=16)


def averaged_weights(run_folder: Path) -> dict[str, Tensor]:
    """The weight average of a run's checkpoint; counters of the norms are not kept."""
    average = run.without_prefix("average", load_file(run_folder / "checkpoint.safetensors"))
    return {name: value for name, value in average.items() if not name.endswith("num_batches_tracked")}


def weights_in(exported: Path) -> dict[str, Tensor]:
    """Of a file of `training export-detector`: the weights by their names in the network."""
    found = {}
    for initializer in onnx.load(exported).graph.initializer:
        name = initializer.name.removeprefix("network.").removesuffix("_half")
        found[name] = torch.from_numpy(numpy_helper.to_array(initializer).copy()).float()
    return found


def from_weights(weights: Mapping[str, Tensor]) -> Detector:
    """The network that these weights are of, ready to compute."""
    widths = tuple(len(weights[f"stages.{number}.conv1.weight"]) for number in range(3))
    neck, dim = len(weights["shared.conv.weight"]), len(weights["project.weight"])
    network = Detector(dim=dim, widths=widths, neck=neck)  # type: ignore[arg-type]
    missing = network.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False).missing_keys
    if lacking := [name for name in missing if not name.endswith("num_batches_tracked")]:
        raise ValueError(f"these weights are not of this network: they lack {lacking}")
    return network.eval().to(memory_format=torch.channels_last)


def start_from(learner: Learner, other: Path) -> None:
    """Weights of another run, with its classes, or of an exported network. SystemExit where there are none that fit."""
    try:
        if other.suffix == ".onnx":
            learner.network.load_state_dict(from_weights(weights_in(other)).state_dict())
        else:
            learner.load_state_dict(run.without_prefix("learner", load_file(other / "checkpoint.safetensors")))
    except (OSError, KeyError, ValueError, RuntimeError, DecodeError, SafetensorError) as error:
        raise SystemExit(f"--start-from {other}: no weights of such a detector: {error}") from error


def train(config: Config) -> None:
    own = ranks.own_share(config.batch)
    if own % len(scenes.CELLS):
        raise SystemExit(f"--batch {config.batch}: each process has to have a multiple of {len(scenes.CELLS)} scenes, not {own}")
    device = run.pick_device(config.device)
    torch.manual_seed(config.seed)
    stock = scenes.read_stock(config.data, few=config.smoke)
    validation = Validation(scenes.read_chosen_on(config.data, few=config.smoke), side_px=config.side_px, few=config.smoke)
    weights = load_file(config.embedding)
    network = tiny_detector(config.dim) if config.smoke else Detector(dim=config.dim)
    if not config.smoke:
        start_weights(network, weights)
    learner = Learner(network, read_lessons(config, stock, weights), modes=config.modes)
    if config.start_from:
        start_from(learner, Path(config.start_from))
    learner = learner.to(device, memory_format=torch.channels_last)
    groups = groups_of(stock.class_names).to(device)
    stock = scenes.on_device(stock, device)
    spec = scenes.SceneSpec(side_px=config.side_px, count=own)

    def losses(_progress: float, precision: str) -> dict[str, Tensor]:
        drawn = scenes.draw_scenes(stock, spec)
        pictures = (drawn.pictures * 255).to(memory_format=torch.channels_last)
        with run.autocast(device, precision):
            found = learner.network(pictures)
        targets = targets_of(drawn)
        terms = box_losses(found, targets, drawn.is_complete, config.side_px)
        terms["boxes"] = config.box_weight * terms["boxes"]
        cells, labels = cells_to_name(found, targets, drawn.is_complete)
        return terms | learner.class_losses(found.features[cells[:, 0], cells[:, 1]], labels, groups, config)

    def scores(network: nn.Module) -> dict[str, float]:
        return validation.scores(network.cpu())  # a few hundred pictures, now and then

    loop.fit(
        config, device, learner, learner.network,
        optimizer_of(learner, rate=config.rate, kernel_rate=config.kernel_rate, weight_decay=config.weight_decay),
        losses=losses, rate_at=lambda progress: rate_at(config, progress), scores=scores,  # type: ignore[arg-type]
    )  # fmt: skip


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Train the detector with RepMet's head.")
    train(replace(config, steps=config.steps or 6, batch=8, side_px=128) if config.smoke else config)

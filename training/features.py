"""Pictures -> features, once: what is learnt on frozen features (delta_encoder.py) and compared on them (evaluate/synthesis.py)
reads files that this writes, and decodes nothing.

    python -m training features --data DIR --model models --split train --out runs/features/train.npz
    python -m training features --data DIR --model models --split val --shown 30 --views 8 --out runs/features/val.npz
    python -m training features --data DIR --model models --pack base --out runs/features/base

`--model` is a model set or an ONNX file, of which the embedding is kept, or weights (.safetensors) of the benchmark network, of
which the features are. About 15 ms a picture and a view on one core. Which pictures may be shown and which asked is said in the
file, so that no later step can ask what it was shown; `--shown` is for photographs, objects and marks have rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from app.adapters.images import resize
from app.adapters.model_set import read_model_set
from app.adapters.networks import OnnxEmbedder
from app.domain.values import FloatArray
from training import data, mini_imagenet, render, run
from training.batches import held_back, photograph_items, training_split

PACKS = ("mini-imagenet", "object-views-dev", "brand-marks", "package-fronts")
BASE = "base"  # all that the synthesizer learns from, a file each: pack, classes, pictures of one
BASE_FILES = {
    "marks": ("brand-marks", 800, 150),
    "fronts": ("package-fronts", 500, 150),
    "objects": ("object-views-dev", 0, 150),
    "mini-imagenet": ("mini-imagenet", 0, 60),
    "photographs": ("photographs", 60, 14),
}
OTHERS = "photographs"  # of the packs that training may use, but for those and `tiny-imagenet-dev`, which is as mini-imagenet
LEAST_OF_OTHERS = 5  # photographs of a class
CANVAS_PX = 128
RENDERED_PLAIN, RENDERED_HARD = 4, 8  # of each mark, beside the clean one: the first are for showing, the second for asking
# The objects that were photographed from several sides: the other sources of the pack are for evaluation only.
OBJECT_SOURCES = tuple(
    f"object-views-dev/{name}-" for name in ("coil100", "eth80", "eafit", "dreambooth", "lego", "eurocoin", "gryfo")
)
VIEW_AREA = (0.3, 1.0)  # of the picture; EASY (Bendou et al. 2022) takes 0.14 and more of pictures that are shown larger
BATCH = 64  # pictures in memory at a time

Embed = Callable[[Tensor], FloatArray]  # uint8 (n, 3, side, side) of any side -> (n, d)


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    model: Path = field(default=Path("models"), metadata={"help": "folder of a model set, .onnx, or .safetensors of ResNet10"})
    pack: str = field(default="mini-imagenet", metadata={"help": f"one of {', '.join(PACKS)}, {OTHERS} or {BASE}"})
    split: str = field(default="train", metadata={"help": "train or val; of objects and marks train or held-back"})
    out: Path = field(default=Path("runs/features/train.npz"), metadata={"help": f"file to write; of {BASE}, a folder"})
    each: int = field(default=150, metadata={"help": "pictures of a class, spread over what there is; 0 for all"})
    classes: int = field(default=0, metadata={"help": "take so many, spread over what there is; 0 for all"})
    shown: int = field(default=0, metadata={"help": "of mini-imagenet: for showing only, the rest for asking; 0 for either"})
    views: int = field(default=0, metadata={"help": "random crops of each picture that may be shown"})
    side_px: int = field(default=80, metadata={"help": "input side of ResNet10; a model set says its own"})
    seed: int = 0


@dataclass(frozen=True)
class FeatureSet:
    """Features of pictures, sorted by class and within it in the pack's order."""

    features: FloatArray  # (n, d)
    labels: NDArray[np.int64]  # (n,)
    class_names: tuple[str, ...]
    may_show: NDArray[np.bool_]  # (n,)
    may_ask: NDArray[np.bool_]  # (n,)
    views: FloatArray  # (pictures that may be shown, views, d): crops of those, in their order
    in_circle: bool  # pictures beside each other in a class, last and first too, are near frames

    def __post_init__(self) -> None:
        rows, size = self.features.shape
        if not len(self.labels) == len(self.may_show) == len(self.may_ask) == rows:
            raise ValueError(f"{rows} features want as many labels and marks of what may be shown and asked")
        if self.views.shape[::2] != (self.may_show.sum(), size):
            raise ValueError(f"views are of {self.may_show.sum()} pictures with {size} numbers each, not {self.views.shape}")
        if (np.diff(self.labels) < 0).any() or self.labels[-1] >= len(self.class_names):
            raise ValueError("labels are positions in class_names, in order")

    def of_classes(self, keep: NDArray[np.bool_]) -> FeatureSet:
        """Only the classes (classes,) that are to be kept, numbered anew."""
        rows, number = keep[self.labels], np.cumsum(keep) - 1
        names = tuple(name for name, kept in zip(self.class_names, keep, strict=True) if kept)
        views = self.views[rows[self.may_show]]
        labels = number[self.labels[rows]]
        return FeatureSet(self.features[rows], labels, names, self.may_show[rows], self.may_ask[rows], views, self.in_circle)


def write(found: FeatureSet, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, features=found.features.astype(np.float16), labels=found.labels, class_names=np.array(found.class_names),
        may_show=found.may_show, may_ask=found.may_ask, views=found.views.astype(np.float16), in_circle=found.in_circle,
    )  # fmt: skip


def read(path: Path) -> FeatureSet:
    """ValueError for arrays that do not fit each other."""
    with np.load(path) as stored:
        return FeatureSet(
            stored["features"].astype(np.float32), stored["labels"], tuple(stored["class_names"].tolist()),
            stored["may_show"], stored["may_ask"], stored["views"].astype(np.float32), bool(stored["in_circle"]),
        )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------- networks


def embedder_of(model: Path, side_px: int) -> Embed:
    """A model set's embedding or an ONNX file's, through the adapter that serves it; or the benchmark network's features."""
    if model.suffix == ".safetensors":
        return benchmark_network(model, side_px)
    embedder = OnnxEmbedder(model.read_bytes() if model.suffix == ".onnx" else read_model_set(model).embedding_network)

    def embed(pixels: Tensor) -> FloatArray:
        rows = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        return embedder(np.stack([resize(picture, embedder.side_px) for picture in rows])).embedding

    return embed


def benchmark_network(path: Path, side_px: int) -> Embed:
    """Features as they are: what is learnt on them centres them itself."""
    network, _ = mini_imagenet.read_network(path)

    def embed(pixels: Tensor) -> FloatArray:
        side = mini_imagenet.STORED_PX
        stored = F.interpolate(pixels.float(), size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        return mini_imagenet.features_of(network, stored, side_px).numpy()

    return embed


# ----------------------------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Pictures:
    """What is embedded: uint8 (n, 3, s, s) with labels, what each may be used for, and how its crops are made."""

    pixels: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    may_show: Tensor  # bool (n,)
    may_ask: Tensor  # bool (n,)
    mirrored: bool  # crops of photographs may be mirrored, those of print may not
    in_circle: bool = False


def pictures_of(config: Config) -> Pictures:
    """ValueError for another pack."""
    match config.pack:
        case "mini-imagenet":
            return photographs(config)
        case "object-views-dev":
            return objects(config)
        case "brand-marks":
            return marks(config, shown=render.PLAIN, asked=render.HARD)
        case "package-fronts":
            return marks(config, shown=render.SHOWN, asked=render.PHONE)
        case "photographs":
            return other_photographs(config)
    raise ValueError(f"features are made of {', '.join(PACKS)} and {OTHERS}, not of {config.pack!r}")


def photographs(config: Config) -> Pictures:
    items = data.pack_items(config.data / config.pack, split=lambda found: found == config.split)
    found = data.load(spread(items, config), side_px=mini_imagenet.STORED_PX, workers=1)
    either = torch.ones(len(found.labels), dtype=torch.bool)
    shown = either if config.shown == 0 else torch.cat([torch.arange(n) < config.shown for n in found.counts.tolist()])
    return Pictures(found.pixels, found.labels, found.class_names, shown, ~shown if config.shown else either, mirrored=True)


def other_photographs(config: Config) -> Pictures:
    """Of each pack at most `classes` classes. Any picture may be shown and any asked, in `train` alone."""
    by_pack: dict[str, dict[str, list[data.Item]]] = {}
    for item in photograph_items(config.data):
        pack = item.class_name.split("/", 1)[0]
        if pack not in (*PACKS, "tiny-imagenet-dev"):
            by_pack.setdefault(pack, {}).setdefault(item.class_name, []).append(item)
    able = [[item for own in classes.values() if len(own) >= LEAST_OF_OTHERS for item in own] for classes in by_pack.values()]
    found = data.load([item for items in able for item in spread(items, config)], side_px=CANVAS_PX, workers=1)
    either = torch.ones(len(found.labels), dtype=torch.bool)
    return Pictures(found.pixels, found.labels, found.class_names, either, either, mirrored=False)


def objects(config: Config) -> Pictures:
    """Any view may be shown and any asked, but for those beside a view that is shown."""

    def wanted(name: str) -> bool:
        return name.startswith(OBJECT_SOURCES) and held_back(name) == (config.split == "held-back")

    items = [item for item in data.pack_items(config.data / config.pack) if wanted(item.class_name)]
    found = data.load(spread(items, config), side_px=CANVAS_PX, workers=1)
    either = torch.ones(len(found.labels), dtype=torch.bool)
    return Pictures(found.pixels, found.labels, found.class_names, either, either, mirrored=False, in_circle=True)


def marks(config: Config, *, shown: render.RenderSpec, asked: render.RenderSpec) -> Pictures:
    """Of each class its first picture, clean, and easy renders of it for showing, and hard renders for asking."""
    torch.manual_seed(config.seed)
    in_split = training_split if config.split == "train" else lambda split: split == "7"
    first: dict[str, data.Item] = {}
    for item in data.pack_items(config.data / config.pack, split=in_split):
        first.setdefault(item.class_name, item)
    clean = data.load(spread(list(first.values()), config), side_px=CANVAS_PX, mode="RGBA", workers=1)
    scenes = data.load(data.pack_items(config.data / "imagenet-1-per-class"), side_px=CANVAS_PX, workers=1).pixels
    pixels = []
    for face, aspect in zip(clean.pixels.float() / 255, clean.aspects, strict=True):
        own = [render.clean(face[None], CANVAS_PX)]
        for count, ranges in ((RENDERED_PLAIN, shown), (RENDERED_HARD, asked)):
            grounds = scenes[torch.randint(len(scenes), (count,))].float() / 255
            own.append(render.render(face.expand(count, -1, -1, -1), aspect.expand(count), grounds, ranges))
        pixels.append((torch.cat(own) * 255).round().byte())
    may_show = (torch.arange(1 + RENDERED_PLAIN + RENDERED_HARD) <= RENDERED_PLAIN).repeat(len(pixels))
    labels = torch.arange(len(pixels)).repeat_interleave(1 + RENDERED_PLAIN + RENDERED_HARD)
    return Pictures(torch.cat(pixels), labels, clean.class_names, may_show, ~may_show, mirrored=False)


def spread(items: list[data.Item], config: Config) -> list[data.Item]:
    """At most `classes` classes and at most `each` pictures of one, evenly over what there is."""
    by_class: dict[str, list[data.Item]] = {}
    for item in items:
        by_class.setdefault(item.class_name, []).append(item)
    names = evenly(sorted(by_class), config.classes)
    return [item for name in names for item in evenly(by_class[name], config.each)]


def evenly(things: list[Any], count: int) -> list[Any]:
    return things if not 0 < count < len(things) else [things[position * len(things) // count] for position in range(count)]


def crops(pixels: Tensor, count: int, *, mirrored: bool, generator: torch.Generator) -> Tensor:
    """Random crops of `VIEW_AREA` of each picture, stretched to its size: uint8 (n, 3, s, s) -> (n * count, 3, s, s)."""
    side, found = pixels.shape[-1], []
    for picture in pixels:
        for _ in range(count):
            area, ratio, x, y, turn = torch.rand(5, generator=generator).tolist()
            area = VIEW_AREA[0] + area * (VIEW_AREA[1] - VIEW_AREA[0])
            ratio = (3 / 4) ** (2 * ratio - 1)  # 3 : 4 to 4 : 3
            width, height = (min(side, round(side * (area * part) ** 0.5)) for part in (ratio, 1 / ratio))
            left, top = round(x * (side - width)), round(y * (side - height))
            view = picture[:, top : top + height, left : left + width]
            view = torch.from_numpy(resize(view.permute(1, 2, 0).contiguous().numpy(), side).copy()).permute(2, 0, 1)
            found.append(view.flip(2) if mirrored and turn < 0.5 else view)
    return torch.stack(found) if found else pixels.new_empty((0, 3, side, side))


def extract(pictures: Pictures, embed: Embed, *, views: int, seed: int) -> FeatureSet:
    generator = torch.Generator().manual_seed(seed)
    features = np.concatenate([embed(part) for part in tqdm(pictures.pixels.split(BATCH), desc="pictures", mininterval=10)])
    shown, of_views = pictures.pixels[pictures.may_show], [np.empty((0, features.shape[1]), np.float32)]
    if views:
        parts = tqdm(shown.split(max(1, BATCH // views)), desc="views", mininterval=10)
        of_views = [embed(crops(part, views, mirrored=pictures.mirrored, generator=generator)) for part in parts]
    size = features.shape[1]
    return FeatureSet(
        features, pictures.labels.numpy(), pictures.class_names, pictures.may_show.numpy(), pictures.may_ask.numpy(),
        np.concatenate(of_views).reshape(len(shown), views, size), pictures.in_circle,
    )  # fmt: skip


def cache(config: Config, embed: Embed) -> None:
    """Writes the file of one pack."""
    found = extract(pictures_of(config), embed, views=config.views, seed=config.seed)
    write(found, config.out)
    size = f"{len(found.labels)} pictures of {len(found.class_names)} classes, {found.features.shape[1]} numbers each"
    print(f"{config.out}: {size}; {found.may_show.sum()} may be shown, with {config.views} views each", flush=True)


def cache_base(config: Config, embed: Embed) -> None:
    """Writes all that the synthesizer learns from into the folder `out`, without views."""
    for name, (pack, classes, each) in BASE_FILES.items():
        own = {"pack": pack, "split": "train", "classes": classes, "each": each, "shown": 0, "views": 0}
        cache(replace(config, out=config.out / f"{name}.npz", **own), embed)


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Cache features of a pack's pictures.")
    (cache_base if config.pack == BASE else cache)(config, embedder_of(config.model, config.side_px))

"""Detection of classes that were learnt, as RepMet's first detection table has it: trained representatives beside other heads.

    python -m training evaluate base-classes --data DIR --run repmet=runs/detector,plain=runs/other

Asked are the photographs that `scenes.kept_back` keeps out of the detector's training: whole, at one side, each for all classes
of its source that were learnt, so that names of two sources for one thing do not compete. Those of a video or of one table are
alike, though, and what is asked may be nearly what was learnt. The trunk starts from the embedding network, which has learnt from
crops of these photographs, too: figures say how heads compare, not how well a network does on what it has never seen.

Three arms of each run, all on the boxes of its averaged network, all ranked by the head's probability times the root of
objectness, as the service ranks:

    trained   the nearest of the representatives that training left, Gaussians of its width (section 3)
    linear    the auxiliary classifier: a softmax over background and the classes that are asked for
    shown     representatives of `--shot` boxes in photographs that were learnt from, cut out, as the service enrols a class

The first run's *trained* is compared with each other arm. Where a run was trained without RepMet's losses, its *trained* are the
vectors that taught its embedding; where without the linear classifier, it has no *linear*.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from app.adapters.images import squared
from app.domain.posterior import Fit, Known, Regions
from training import data, detector, run, scenes
from training.evaluate import detection, finders, items
from training.evaluate.detection import OVERLAPS, Looked, Statistic
from training.evaluate.episodes import SEED, DetectEpisode
from training.evaluate.finders import Finder, Spotted
from training.evaluate.intervals import crossed_weights, interval_around
from training.evaluate.items import AskedItem, Photograph
from training.evaluate.results import write_counted

LEAST_SHARE = 1e-30  # of a class in a softmax: its logarithm is taken


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    run: str = field(default="runs/detector", metadata={"help": "run folders of detectors, by commas; NAME=DIR names one"})
    out: Path = field(default=Path("docs/accuracy/detect-base-classes.json"), metadata={"help": "JSON with every figure"})
    side_px: int = field(default=320, metadata={"help": "side at which everything is looked at, a multiple of 32"})
    shot: int = field(default=5, metadata={"help": "boxes shown of each class, as far as it has so many photographs"})
    seed: int = field(default=SEED, metadata={"help": "of the boxes that are shown"})


# --------------------------------------------------------------------------------------------------------------- photographs


def episodes_of(folder: Path, learnt: Sequence[str], *, shots: int, seed: int) -> list[DetectEpisode]:
    """One for each photograph that was kept back: what is resampled. It is asked for all classes `learnt` of its source."""
    of_source: dict[str, list[str]] = {}
    for name in learnt:
        of_source.setdefault(scenes.source_of(name), []).append(name)
    found = []
    for pack in scenes.SOURCED_PACKS:
        photographs = items.photographs_of(folder / pack)
        shown = shown_boxes(pack, photographs, shots=shots, seed=seed)
        for photograph in filter(is_asked, photographs):
            names = of_source.get(scenes.source_of(photograph.boxes[0][0]), [])
            if names:
                # Packs may call two files the same.
                asked = replace(photograph, id=f"{pack}/{photograph.id}")
                found.append(DetectEpisode({name: shown[name] for name in names}, (asked,)))
    return found


def is_asked(photograph: Photograph) -> bool:
    """Kept back, and nothing in it is for choosing, forbidden or without a class."""
    names = [name for name, _ in photograph.boxes]
    left_out = any(scenes.held_out(name) or name.startswith((*scenes.NO_CLASS, *scenes.FORBIDDEN)) for name in names)
    return not left_out and any(scenes.kept_back(name, photograph.id) for name in names)


def shown_boxes(pack: str, photographs: Sequence[Photograph], *, shots: int, seed: int) -> dict[str, tuple[AskedItem, ...]]:
    """Of each class the largest box in each of `shots` photographs that were learnt from, or of as many as there are."""
    found: dict[str, list[AskedItem]] = {}
    for position in np.random.default_rng(seed).permutation(len(photographs)):
        photograph = photographs[position]
        largest = dict(sorted(photograph.boxes, key=lambda one: area(one[1])))
        for name, box in largest.items():
            several = found.setdefault(name, [])
            is_large = min(box[2] - box[0], box[3] - box[1]) >= data.MIN_BOX_PX  # as of the crops that were learnt from
            if is_large and len(several) < shots and scenes.learnt_from(name, photograph.id):
                source = replace(photograph.source, box=box)
                several.append(AskedItem(f"{pack}/{photograph.id}#{box}", name, photograph.id, source, may_ask=False))
    return {name: tuple(several) for name, several in found.items()}


def area(box: tuple[float, float, float, float]) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


# ---------------------------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Trained:
    """What a run has left."""

    network: detector.Detector  # its average
    representatives: Tensor  # (classes, modes, e) of unit length
    is_there: Tensor  # bool (classes, modes)
    width: float
    classify: Tensor | None  # (1 + classes, f + 1): weights and bias, background first; None: not trained
    class_names: tuple[str, ...]


def read_run(folder: Path, packs: Path) -> Trained:
    """SystemExit where there is no run, or one of other classes than the packs have."""
    if not (folder / "checkpoint.safetensors").is_file():
        raise SystemExit(f"--run {folder}: there is no checkpoint.safetensors in it")
    settings = json.loads((folder / "config.json").read_text())
    learner = run.without_prefix("learner", load_file(folder / "checkpoint.safetensors"))
    vectors, names = learner["representatives.vectors"], scenes.learnt_class_names(packs, few=settings["smoke"])
    # A checkpoint does not name its classes: they are those of the packs that it was trained on, in their order.
    if len(vectors) != len(names):
        raise SystemExit(f"--run {folder}: it has learnt {len(vectors)} classes, and the packs of --data have {len(names)}")
    classify = torch.cat([learner["classify.weight"], learner["classify.bias"][:, None]], 1)
    return Trained(
        detector.from_weights(detector.averaged_weights(folder)),
        F.normalize(vectors.float(), dim=2),
        learner["representatives.is_there"],
        float(F.softplus(learner["representatives.raw_width"])),
        classify.float() if settings["linear_weight"] else None,
        names,
    )


class Network:
    """A run's network as the service would run it, with more to say: regions in pixels of the picture, and a vector of each."""

    def __init__(self, trained: Trained, side_px: int, vectors_of: Callable[[Tensor], Tensor]) -> None:
        """`vectors_of` takes features (1, m, f); what it makes of them (1, m, e) stands where regions have their embeddings."""
        self._network, self._side_px, self._vectors_of = trained.network, side_px, vectors_of
        self._points, _ = detector.cells_of(side_px)
        self.width = trained.width

    @torch.no_grad()
    def __call__(self, picture: Image.Image) -> Regions:
        fit = Fit(*picture.size, self._side_px)
        square = torch.from_numpy(squared(np.asarray(picture), fit).copy())[None].permute(0, 3, 1, 2)  # channels stay last
        found = self._network(square.float())
        boxes = detector.boxes_from(self._points, found.distances)
        objectness, vectors = detector.objectness_of(found), self._vectors_of(found.features)
        return Regions(fit.to_picture(boxes[0].numpy()), objectness[0].numpy(), vectors[0].numpy())


# ---------------------------------------------------------------------------------------------------------------------- arms


class Representatives:
    """RepMet's posterior over the representatives that were trained."""

    def __init__(self, kept: finders.Kept, trained: Trained) -> None:
        self._kept, self._width = kept, trained.width
        several = zip(trained.class_names, trained.representatives, trained.is_there, strict=True)
        self._of_class = {name: vectors[there].numpy() for name, vectors, there in several}

    def find(self, episode: DetectEpisode) -> list[Sequence[Spotted]]:
        known = Known.of([(name, self._of_class[name]) for name in episode.shown])
        return [finders.spotted(self._kept(photograph), known, self._width) for photograph in episode.asked]


class Linear:
    """The auxiliary classifier, on the features of the same boxes."""

    def __init__(self, kept: finders.Kept, classify: Tensor, class_names: Sequence[str]) -> None:
        """`kept` gives features in the place of embeddings."""
        self._kept, self._classify = kept, classify.numpy()
        self._row_of = {name: 1 + label for label, name in enumerate(class_names)}

    def find(self, episode: DetectEpisode) -> list[Sequence[Spotted]]:
        names = list(episode.shown)
        rows = self._classify[[0, *(self._row_of[name] for name in names)]]
        return [self._in(self._kept(photograph), names, rows) for photograph in episode.asked]

    def _in(self, regions: Regions, names: Sequence[str], rows: np.ndarray) -> list[Spotted]:
        logits = regions.embeddings @ rows[:, :-1].T + rows[:, -1]
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares = (shares / shares.sum(1, keepdims=True))[:, 1:]
        # The similarities whose Gaussians of width 1 are these shares, so that one rule ranks all arms.
        return finders.ranked(regions, names, 1 + np.log(np.maximum(shares, LEAST_SHARE)), 1.0)


def arms_of(name: str, trained: Trained, side_px: int) -> dict[str, Finder]:
    """The arms of one run, by name."""
    kept = finders.Kept(Network(trained, side_px, trained.network.embed))
    arms: dict[str, Finder] = {f"{name}, trained": Representatives(kept, trained)}
    if trained.classify is not None:
        features = finders.Kept(Network(trained, side_px, lambda features: features))
        arms[f"{name}, linear"] = Linear(features, trained.classify, trained.class_names)
    return arms | {f"{name}, shown": finders.RepMet(kept, finders.alone)}


def named_runs(config: Config) -> dict[str, Trained]:
    """The runs of `--run`, by name."""
    found: dict[str, Trained] = {}
    for wanted in config.run.split(","):
        name, _, place = wanted.strip().rpartition("=")
        name = name or Path(place).name  # results do not say where a folder lay
        if name in found:
            raise SystemExit(f"--run: two are called {name}; NAME=DIR gives one another name")
        found[name] = read_run(Path(place), config.data)
    return found


# ------------------------------------------------------------------------------------------------------------------- figures


def statistics_of(
    looked: Sequence[Looked], listed: Sequence[DetectEpisode], class_names: Sequence[str]
) -> Iterator[tuple[str, Statistic]]:
    for least in OVERLAPS:
        ranking = detection.ranking_of(looked, listed, class_names, least_overlap=least)
        yield from detection.areas_of(ranking, f"ap{round(100 * least)}").items()


def resampled(statistic: Statistic, photographs: int, classes: int) -> np.ndarray:
    """A figure, and in each resample of classes and photographs (1 + resamples,); the same resamples for every arm."""
    whole = statistic(np.ones(photographs), np.ones(classes))
    return np.array([whole, *(statistic(rows, columns) for rows, columns in crossed_weights(photographs, classes))])


def numbers_of(values: np.ndarray) -> dict[str, float]:
    return interval_around(float(values[0]), iter(values[1:])).numbers()


def figures_of(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Arms, each with its figures as `resampled` gives them -> intervals, and paired differences of the first and each other."""
    first, *others = found
    return {
        "base_classes": {arm: {name: numbers_of(values) for name, values in own.items()} for arm, own in found.items()},
        "differences": {
            f"{first} - {other}": {name: numbers_of(values - found[other][name]) for name, values in found[first].items()}
            for other in others
        },
    }


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Detection of classes that were learnt, by several heads.")
    if config.side_px % detector.STRIDES[-1] or config.side_px <= 0:
        raise SystemExit(f"--side-px {config.side_px}: the network takes multiples of {detector.STRIDES[-1]}")
    if config.shot < 1:
        raise SystemExit(f"--shot {config.shot}: a box at least is shown")
    if lacking := [pack for pack in scenes.SOURCED_PACKS if not (config.data / pack).is_dir()]:
        raise SystemExit(f"--data {config.data}: there is no {' and no '.join(lacking)} in it")
    runs = named_runs(config)
    # The runs' classes are as many of the same packs, so they are the same ones.
    listed = episodes_of(config.data, next(iter(runs.values())).class_names, shots=config.shot, seed=config.seed)
    if not listed:
        raise SystemExit(f"--data {config.data}: no photograph of a class that was learnt is kept back")
    class_names = sorted({name for episode in listed for name in episode.shown})
    found: dict[str, dict[str, np.ndarray]] = {}
    for run_name, trained in runs.items():
        for arm, finder in arms_of(run_name, trained, config.side_px).items():
            looked = detection.look(finder, listed, arm)
            figures = statistics_of(looked, listed, class_names)
            found[arm] = {name: resampled(statistic, len(listed), len(class_names)) for name, statistic in figures}
            print(arm, {name: round(float(values[0]), 4) for name, values in found[arm].items()}, flush=True)
    things = [name for episode in listed for name, _ in episode.asked[0].boxes if name in episode.shown]
    result = {
        "shots": config.shot, "side_px": config.side_px, "seed": config.seed,
        "sources": len({scenes.source_of(name) for name in class_names}), "asked_for": len(class_names),
        "classes": len(set(things)), "photographs": len(listed), "things": len(things),
    }  # fmt: skip
    write_counted(config.out, result | figures_of(found))

"""Fits what it means that the detector sees a class at a box, and puts the detector into the manifest.

    python -m training regions --data DIR --models models

Enrolled, one clean picture each: half of the marks and fronts of split 7, and a box of each class of photographs whose sources
the detector has not learnt from. Asked: renders of split 7, the half that is not enrolled among it, on photographs, and other
photographs of those sources. Foreign: `caltech101-dev`. Regions, places and looks are the service's own, without proofs of print.
Reads `detector.onnx` and the manifest that `calibrate` wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.adapters.model_set import DetectorParts, LoadedModelSet, read_model_set
from app.adapters.networks import OnnxDetector, RegionNetwork
from app.domain.boxes import MIN_SIDE_PX
from app.domain.calibration import LEAST_PROBABILITY, RegionCalibration
from app.domain.detection import TILINGS, Place, Spotting, box_of, seen_at, with_regions
from app.domain.model_set import DetectorSettings, ModelSet
from app.domain.posterior import SAME_BOX, overlaps
from app.domain.values import Example, PixelArray
from app.domain.views import crop
from app.errors import CorruptModelSet
from app.service.detect import MOST_SIGHTINGS, MOST_UNPROVED_PLACES
from app.service.embed import regions_of
from app.service.follow import Served
from app.service.spot import Spotter
from app.service.verify import ALIKE
from training import data, proofs, render, run, scenes
from training.calibrate import to_pixels
from training.evaluate import items
from training.evaluate.average_precision import Edges
from training.points import pictures_of

FILE = "detector.onnx"
PHOTOGRAPH_PACKS = ("toplogo10-dev", "multidomain-det-dev")  # of whose sources some are held out: `scenes.held_out`
FOREIGN = "foreign"
LEAST_SHOWN_PX = 32  # of a box that is enrolled
UNFITTED = RegionCalibration(  # all that the detector sees is looked at, and nothing of it counts
    looked_from=0.0, bias=0.0, look=0.0, lead=0.0, log_posterior=0.0, log_objectness=0.0,
    line=0.0, doubtful_line=0.0, ambiguous_margin=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": f"model set with {FILE}; its manifest is written again"})
    sides_px: str = field(default="320,512", metadata={"help": "of the squares that the detector is given, rising"})
    target_far: float = field(default=0.01, metadata={"help": "share of foreign scenes in which any class may be accepted"})
    target_wrong: float = field(default=0.05, metadata={"help": "and of scenes of each other kind: in a box that is not its own"})
    scenes: int = field(default=240, metadata={"help": "renders of split 7, a multiple of 4"})
    photographs: int = field(default=10, metadata={"help": "asked of each class, at most"})
    foreign: int = field(default=400, metadata={"help": "pictures of caltech101-dev"})
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """What is asked, and everything enrolled that it shows."""

    pixels: PixelArray  # (h, w, 3)
    things: tuple[tuple[str, Edges], ...]  # class, and left, top, right, bottom in pixels
    kind: str  # what is counted together


@dataclass(frozen=True)
class Rows:
    """Every class at every place that the detector sees in any scene."""

    features: np.ndarray  # (n, 4) log-odds of the look, lead, ln(posterior), ln(objectness)
    right: np.ndarray  # (n,) bool: the place has the box of a thing of the class
    scene: np.ndarray  # (n,) position of the scene
    place: np.ndarray  # (n,) number of the place, of all scenes
    thing: np.ndarray  # (n,) number of the thing in its scene, or -1


# ------------------------------------------------------------------------------------------------------------------- pictures


def renders(config: Config, stock: scenes.Stock) -> tuple[list[tuple[str, PixelArray]], list[Scene]]:
    """The half of the marks and fronts that is enrolled, each clean, and scenes that show both halves."""
    names = stock.class_names
    spec = scenes.SceneSpec(side_px=scenes.STORED_PX, count=len(scenes.CELLS), boxed_share=0.25)
    asked = []
    for _ in range(config.scenes // spec.count):
        drawn = scenes.draw_scenes(stock, spec)
        for pixels, boxes, labels in zip(to_pixels(drawn.pictures), drawn.boxes.tolist(), drawn.labels.tolist(), strict=True):
            shown = zip(labels, boxes, strict=True)
            things = [(names[label], (x0, y0, x1, y1)) for label, (x0, y0, x1, y1) in shown if label >= 0 and is_enrolled(label)]
            asked.append(Scene(pixels, tuple(things), "renders"))
    shown_classes = sorted(filter(is_enrolled, range(len(names))))
    return [(names[label], clean_face(stock, label)) for label in shown_classes], asked


def is_enrolled(label: int) -> bool:
    return label % 2 == 0


def clean_face(stock: scenes.Stock, label: int) -> PixelArray:
    """A mark or front as a user would have it, of the width over height that it had."""
    picture, aspect = stock.first_of(label)
    (square,) = to_pixels(render.clean(picture, scenes.FACE_PX))
    width, height = (max(MIN_SIDE_PX, round(scenes.FACE_PX * share)) for share in (min(1.0, aspect), 1 / max(1.0, aspect)))
    return np.asarray(Image.fromarray(square).resize((width, height)))


def photographs(config: Config) -> tuple[list[tuple[str, PixelArray]], list[Scene]]:
    """Of each class of the sources held out the largest box, and photographs that show others; none is both shown and asked."""
    enrolled, asked = [], []
    for pack in PHOTOGRAPH_PACKS:
        held_out = [
            one
            for one in items.photographs_of(config.data / pack)
            if all(scenes.held_out(name) and not name.startswith(scenes.NO_CLASS) for name, _ in one.boxes)
        ]
        shown: dict[str, tuple[items.Photograph, Edges]] = {}
        for photograph in held_out:
            for name, edges in photograph.boxes:
                if short_side(edges) >= LEAST_SHOWN_PX and (name not in shown or area(edges) > area(shown[name][1])):
                    shown[name] = photograph, edges
        sources = [replace(photograph.source, box=edges) for photograph, edges in shown.values()]
        enrolled += [(name, pixels) for name, pixels in zip(shown, cut_out(sources), strict=True)]
        used = {photograph.id for photograph, _ in shown.values()}
        chosen = at_most(config.photographs, [one for one in held_out if one.id not in used], config.seed)
        for photograph, pixels in zip(chosen, pictures_of([replace(one.source, box=None) for one in chosen]), strict=True):
            things = tuple((name, edges) for name, edges in photograph.boxes if name in shown)
            asked.append(Scene(pixels, things, "photographs"))
    return enrolled, asked


def at_most(count: int, found: Sequence[items.Photograph], seed: int) -> list[items.Photograph]:
    """Photographs in a random order, until each class has been in so many."""
    times: dict[str, int] = {}
    chosen = []
    for position in np.random.default_rng(seed).permutation(len(found)):
        names = {name for name, _ in found[position].boxes}
        if min(times.get(name, 0) for name in names) < count:
            chosen.append(found[position])
            times |= {name: times.get(name, 0) + 1 for name in names}
    return chosen


def cut_out(sources: Sequence[data.Item]) -> Iterator[PixelArray]:
    for source, whole in zip(sources, pictures_of([replace(one, box=None) for one in sources]), strict=True):
        yield crop(whole, items.whole_pixels(source.box))


def short_side(edges: Edges) -> float:
    return min(edges[2] - edges[0], edges[3] - edges[1])


def area(edges: Edges) -> float:
    return (edges[2] - edges[0]) * (edges[3] - edges[1])


def foreign(config: Config) -> list[Scene]:
    strangers = data.pack_items(config.data / "caltech101-dev")
    order = np.random.default_rng(config.seed).permutation(len(strangers))[: config.foreign]
    return [Scene(pixels, (), FOREIGN) for pixels in pictures_of([strangers[position] for position in order])]


# ----------------------------------------------------------------------------------------------------------------------- looks


class Eyes(proofs.Eyes):
    """Which see with the detector too."""

    def __init__(self, loaded: LoadedModelSet, detector: OnnxDetector) -> None:
        super().__init__(loaded)
        self.detector = detector

    def example_of(self, name: str, picture: PixelArray) -> Example:
        return replace(super().example_of(name, picture), regions=regions_of(picture, self.detector))


def places_in(scene: PixelArray, spotter: Spotter, served: Served) -> list[Place]:
    """Where the service would look."""
    height, width = scene.shape[:2]
    views = TILINGS["auto"].views(width, height)
    found: list[Spotting] = []
    for view in views:
        found += spotter(scene, view, views=len(views), gallery=served.gallery, among=None)
    found.sort(key=lambda one: one.region.objectness, reverse=True)
    return with_regions([], found[:MOST_SIGHTINGS], MOST_UNPROVED_PLACES)


def look(asked: Sequence[Scene], served: Served, eyes: Eyes, model_set: ModelSet) -> Rows:
    """All that the detector and the look say, of every place that the service would look at. SystemExit where there is none."""
    spotter = Spotter(detector=eyes.detector, settings=model_set.detector)

    def of_place(scene: PixelArray, place: Place, things: Sequence[tuple[str, Edges]]) -> Iterator[tuple[list[float], int]]:
        height, width = scene.shape[:2]
        box = box_of(place.quad * max(width, height), width, height)
        if place.region is None or min(box.width, box.height) < MIN_SIDE_PX:
            return
        query = eyes.embedding_of(crop(scene, box))
        names = {*place.class_names, *(state.name for state, _ in served.best_classes(query, ALIKE))}
        scored = served.gallery.similarities_to(query, names)
        regions = served.gallery.similarities_at(place.region.embedding, names)
        edges = np.array([[box.x, box.y, box.x + box.width, box.y + box.height]], np.float32)
        shares = overlaps(edges, np.array([thing for _, thing in things], np.float32).reshape(-1, 4))[0]
        strangers = model_set.nearest_strangers(query)
        for one in seen_at(place, scored, regions, model_set, classes=len(served.gallery), strangers=strangers):
            name = one.look.candidate.class_name
            own = [(share, number) for number, share in enumerate(shares) if things[number][0] == name and share >= SAME_BOX]
            logs = [float(np.log(max(p, LEAST_PROBABILITY))) for p in (one.posterior, one.objectness)]
            yield [one.look.log_odds, one.lead, *logs], max(own)[1] if own else -1

    def of_scene(scene: Scene) -> list[list[tuple[list[float], int]]]:
        return [list(of_place(scene.pixels, place, scene.things)) for place in places_in(scene.pixels, spotter, served)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(of_scene, asked))
    places = [(position, rows) for position, of_one in enumerate(found) for rows in of_one]
    rows = [(features, position, place, thing) for place, (position, own) in enumerate(places) for features, thing in own]
    if not rows:
        raise SystemExit("The detector sees nothing anywhere: is it trained?")
    features, scene_of, place_of, thing_of = zip(*rows, strict=True)
    things = np.array(thing_of)
    return Rows(np.array(features), things >= 0, np.array(scene_of), np.array(place_of), things)


# ------------------------------------------------------------------------------------------------------------------------- fit


def strongest(log_odds: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Of each group (n,) the row where `log_odds` (n,) is highest, in the order of the groups."""
    order = np.lexsort((-log_odds, group))
    return order[np.unique(group[order], return_index=True)[1]]


def fit(rows: Rows, asked: Sequence[Scene], config: Config) -> RegionCalibration:
    """What the look and the detector's two probabilities are worth, and from where on a class is accepted.

    A scene of strangers alone says less than it seems: where one thing is enrolled, others like it stand beside it. So no
    kind of scene may have a wrong box too often. All classes of all places say what one is worth beside another; what it
    comes to in log-odds the best class of each place says, which is the one that answers.
    """
    spreads = rows.features.std(axis=0).clip(min=1e-6)  # as of one unit: the fit prefers small weights
    _, weights = proofs.fit_logistic(rows.features / spreads, rows.right)
    strengths = rows.features / spreads @ weights
    best = strongest(strengths, rows.place)
    bias, (scale,) = proofs.fit_logistic(strengths[best, np.newaxis], rows.right[best])
    fitted = [round(float(scale * weight), 4) for weight in weights / spreads]
    look_weight, lead, log_posterior, log_objectness = fitted
    log_odds = round(bias, 4) + rows.features @ np.array(fitted)
    wrong = best[~rows.right[best]]
    highest = np.full(len(asked), log_odds.min())
    np.maximum.at(highest, rows.scene[wrong], log_odds[wrong])
    kinds = np.array([scene.kind for scene in asked])
    far_of = {kind: config.target_far if kind == FOREIGN else config.target_wrong for kind in {*kinds.tolist(), FOREIGN}}
    # What is accepted is more likely right than not, however few strangers there are.
    line = max(0.0, *(quantile_above(highest[kinds == kind], far) for kind, far in far_of.items()))
    doubtful_line = min(line, quantile_above(highest[kinds == FOREIGN], proofs.DOUBTFUL_FAR * config.target_far))
    objectness = np.exp(rows.features[rows.right, 3])
    looked_from = float(np.quantile(objectness, proofs.NOT_LOOKED_AT)) if len(objectness) else 0.0
    print_report(rows, asked, log_odds, line)
    return RegionCalibration(
        looked_from=round(min(looked_from, 0.99), 4), bias=round(bias, 4), look=look_weight, lead=lead,
        log_posterior=log_posterior, log_objectness=log_objectness, line=round(line, 4), doubtful_line=round(doubtful_line, 4),
        ambiguous_margin=round(ambiguous_margin(rows, log_odds, line), 4),
    )  # fmt: skip


def quantile_above(highest: np.ndarray, far: float) -> float:
    """Of the strongest that is wrong in each scene of a kind, what so many of them reach. SystemExit without such scenes."""
    if not len(highest):
        raise SystemExit("No foreign scene is asked: the rate of false accepts cannot be kept.")
    return float(np.quantile(highest, max(0.0, 1 - far)))


def ambiguous_margin(rows: Rows, log_odds: np.ndarray, line: float) -> float:
    """The gap between the two best classes of a place, the better one accepted, up to which that is wrong too often."""
    gaps, right = [], []
    for first in strongest(log_odds, rows.place):
        others = np.flatnonzero(rows.place == rows.place[first])
        others = others[others != first]
        # A thing that is not enrolled: no margin tells it from its sibling.
        if len(others) and log_odds[first] >= line and (rows.right[first] or rows.right[others].any()):
            gaps.append(log_odds[first] - log_odds[others].max())
            right.append(rows.right[first])
    return proofs.margin_of(np.array(gaps), np.array(right, bool))


def print_report(rows: Rows, asked: Sequence[Scene], log_odds: np.ndarray, line: float) -> None:
    best = strongest(log_odds, rows.place)
    accepted = best[log_odds[best] >= line]
    for kind in dict.fromkeys(scene.kind for scene in asked):
        mine = [position for position, scene in enumerate(asked) if scene.kind == kind]
        of_kind = accepted[np.isin(rows.scene[accepted], mine)]
        found = {(rows.scene[row], rows.thing[row]) for row in of_kind if rows.right[row]}
        things = sum(len(asked[position].things) for position in mine)
        seen = rows.right & np.isin(rows.scene, mine)
        boxed = len(set(zip(rows.scene[seen].tolist(), rows.thing[seen].tolist(), strict=True)))
        print(
            f"{kind}: {len(mine)} scenes, {things} things: {boxed} have a box and a candidate, {len(found)} accepted; "
            f"{int((~rows.right[of_kind]).sum())} wrong boxes accepted"
        )


# -------------------------------------------------------------------------------------------------------------------- manifest


def with_detector(loaded: LoadedModelSet, config: Config) -> tuple[LoadedModelSet, OnnxDetector, dict[str, Any]]:
    """The model set as it is with the detector, that, and its entry in the manifest but for the calibration.

    SystemExit where there is no detector, or none that can be used.
    """
    path, sides_px = config.models / FILE, tuple(int(side) for side in config.sides_px.split(","))
    try:
        network = path.read_bytes()
        alone = RegionNetwork(network, sides_px[0])
        if alone.width is None:
            raise CorruptModelSet("its metadata has no width, which `training export-detector` writes")
        parts = DetectorParts(network, sides_px, alone.dim, alone.width)
        detector = OnnxDetector(parts)
    except (OSError, CorruptModelSet) as error:
        raise SystemExit(f"--models {config.models}: {path.name}: {error}") from error
    sha256 = hashlib.sha256(network).hexdigest()
    model_set = replace(
        loaded.model_set,
        provenance=replace(loaded.model_set.provenance, detector=sha256),
        detector=DetectorSettings(alone.width, UNFITTED),
    )
    entry = {"file": FILE, "sha256": sha256, "sides_px": list(sides_px), "dim": alone.dim, "width": alone.width}
    return replace(loaded, detector=parts, model_set=model_set), detector, entry


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Fit what it means that the detector sees a class.")
    torch.manual_seed(config.seed)
    loaded, detector, entry = with_detector(read_model_set(config.models), config)
    eyes = Eyes(loaded, detector)
    enrolled, asked = renders(config, scenes.read_chosen_on(config.data))
    more_enrolled, more_asked = photographs(config)
    served = proofs.serve(enrolled + more_enrolled, eyes, loaded)
    asked += more_asked + foreign(config)
    fitted = fit(look(asked, served, eyes, loaded.model_set), asked, config)
    path = config.models / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["detector"] = entry | {"calibration": asdict(fitted)}
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    print(json.dumps(manifest["detector"], indent=2))

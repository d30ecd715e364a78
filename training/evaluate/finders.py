"""What finds things of a few shown classes in photographs: the service by its proofs of print, a detector by RepMet's posterior,
and baselines. Every one is shown the same boxes and asked the same photographs.

What a network makes of a photograph does not depend on what is shown, so that it is kept; classes are compared anew.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from app.adapters.networks import RegionNetwork
from app.domain.posterior import Known, Regions, kept_boxes, similarities_to
from app.domain.regions import alone as alone_on_grey
from app.domain.regions import embedding_at
from app.domain.values import Box
from app.errors import CorruptModelSet
from training import data
from training.evaluate import in_process, items
from training.evaluate.arms import Arm
from training.evaluate.average_precision import Edges
from training.evaluate.episodes import DetectEpisode
from training.evaluate.items import AskedItem, Photograph
from training.evaluate.repmet_rule import see
from training.evaluate.rules import unit

MOST_FOUND = 30  # boxes of a photograph that are ranked; the best hundred thousand of all would be the same ones
CONTEXTS = (1.3, 2.5)  # sides of a view of a support, in longer sides of its box; and the whole photograph
WIDTH = 0.5  # of the Gaussians, where a network does not say its own
CROPPED = 50  # boxes of a photograph that are cut out and embedded
SHIPPED = "auto"  # FIRSTSIGHT_VERIFY unless it is set
TEMPLATE_PX = (24, 34, 48, 68, 96, 136, 192)  # longer sides at which a template is looked for, in a photograph of
TEMPLATE_SCENE_PX = 256  # pixels on its longest side


@dataclass(frozen=True)
class Spotted:
    """A thing of a class, found in a photograph."""

    class_name: str
    edges: Edges
    score: float
    accepted: bool = True


# A photograph and a box in it -> pictures, each with the box in it.
Views = Callable[[Image.Image, np.ndarray], list[tuple[Image.Image, np.ndarray]]]


class Finder(Protocol):
    def find(self, episode: DetectEpisode) -> list[Sequence[Spotted]]:
        """What is found in each photograph that is asked, in their order."""
        ...


def decoded(source: data.Item) -> Image.Image:
    """A whole photograph, RGB."""
    (stored,) = data.stored_bytes([replace(source, box=None)])
    return data.over(Image.open(io.BytesIO(stored)))


# ---------------------------------------------------------------------------------------------------------------- the service


class Service:
    """`/detect` of the service, in this process: verified quads, and what the detector sees where the model set has one."""

    def __init__(self, models: Path, folder: Path, *, detector: bool) -> None:
        """`folder` of the packs, from which uploads are made. Without `detector` as with FIRSTSIGHT_DETECTOR=off."""
        self._adapters = in_process.open_cached(models, detector=detector)
        self._folder = folder

    def find(self, episode: DetectEpisode) -> list[Sequence[Spotted]]:
        return asyncio.run(self._find(episode))

    async def _find(self, episode: DetectEpisode) -> list[Sequence[Spotted]]:
        async with in_process.serving(in_process.emptied(self._adapters), SHIPPED) as use_cases:
            shown = {name: items.uploads_of(boxes, self._folder) for name, boxes in episode.shown.items()}
            await in_process.enrol_all(use_cases, shown)
            whole = [AskedItem(photograph.id, "", photograph.id, photograph.source) for photograph in episode.asked]
            found = await in_process.detect_all(use_cases, items.uploads_of(whole, self._folder))
        return [[Spotted(d.class_name, edges_of(d.box), d.probability, d.accepted) for d in several] for several in found]


def edges_of(box: Box) -> Edges:
    return box.x, box.y, box.x + box.width, box.y + box.height


# --------------------------------------------------------------------------------------------------------------- the network


class Network:
    """An exported detector, as the service runs it: a picture of any size -> regions in its pixels."""

    def __init__(self, path: Path, side_px: int) -> None:
        """CorruptModelSet for an ONNX file of another kind, or for another side alone."""
        self._network = RegionNetwork(path.read_bytes(), side_px, threads=2)
        if self._network.side_px != side_px:
            raise CorruptModelSet(f"the detector is for {self._network.side_px} pixels a side, not {side_px}")
        self.width = WIDTH if self._network.width is None else self._network.width

    def __call__(self, picture: Image.Image) -> Regions:
        return self._network(np.asarray(picture))


class Looking(Protocol):
    """What `Network` is, or the same in torch."""

    width: float  # of the Gaussians around representatives

    def __call__(self, picture: Image.Image) -> Regions: ...


class Kept:
    """Regions of photographs through one network, the likeliest of each, once."""

    def __init__(self, network: Looking) -> None:
        self.network = network
        self._found: dict[str, Regions] = {}

    def __call__(self, photograph: Photograph) -> Regions:
        if photograph.id not in self._found:
            self._found[photograph.id] = self.network(decoded(photograph.source)).likeliest()
        return self._found[photograph.id]


class RepMet:
    """A detector, with RepMet's posterior over the representatives that the shown boxes have in it.

    `views_of` says what it is shown of a box: `alone` what the service keeps of an example, `in_place` its surroundings too.
    """

    def __init__(self, kept: Kept, views_of: Views) -> None:
        self.kept, self._views_of = kept, views_of
        self._shown: dict[str, np.ndarray] = {}

    def find(self, episode: DetectEpisode) -> list[Sequence[Spotted]]:
        known = Known.of([(name, np.concatenate([self._of(one) for one in shown])) for name, shown in episode.shown.items()])
        return [spotted(self.kept(photograph), known, self.kept.network.width) for photograph in episode.asked]

    def _of(self, shown: AskedItem) -> np.ndarray:
        if shown.id not in self._shown:
            views = self._views_of(decoded(shown.source), np.array(shown.source.box))
            self._shown[shown.id] = np.stack([embedding_at(self.kept.network(view), box) for view, box in views])
        return self._shown[shown.id]


def spotted(regions: Regions, known: Known, width: float) -> list[Spotted]:
    return ranked(regions, known.class_names, similarities_to(known, regions.embeddings), width)


def ranked(regions: Regions, class_names: Sequence[str], similarities: np.ndarray, width: float) -> list[Spotted]:
    """`similarities` (m, classes) of the regions."""
    seen = see(regions, similarities, width=width, most=MOST_FOUND)
    return [
        Spotted(class_names[number], edges(regions.boxes[region]), float(score))
        for number, region, score in zip(seen.class_numbers, seen.regions, seen.scores, strict=True)
    ]


def edges(box: np.ndarray) -> Edges:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


def alone(photograph: Image.Image, box: np.ndarray) -> list[tuple[Image.Image, np.ndarray]]:
    """The box cut out, on grey, at some sizes: as the service shows it an example."""
    return [(Image.fromarray(square), where) for square, where in alone_on_grey(np.asarray(cut(photograph, box)))]


def in_place(photograph: Image.Image, box: np.ndarray) -> list[tuple[Image.Image, np.ndarray]]:
    """The whole photograph, and parts of it around the box."""
    return [(photograph, box), *(nearer(photograph, box, context) for context in CONTEXTS)]


def nearer(photograph: Image.Image, box: np.ndarray, context: float) -> tuple[Image.Image, np.ndarray]:
    """The square around a box, of `context` of its longer sides, as far as the photograph goes; and the box in it."""
    half = context * (box[2:] - box[:2]).max() / 2
    middle = (box[:2] + box[2:]) / 2
    left, top = np.maximum(np.floor(middle - half), 0)
    right, bottom = np.minimum(np.ceil(middle + half), photograph.size)
    return photograph.crop((int(left), int(top), int(right), int(bottom))), box - np.array([left, top, left, top])


# ----------------------------------------------------------------------------------------------------------------- baselines


class Crops:
    """The boxes of a detector, cut out and embedded by another network; a class is the mean of its supports (CL2N prototypes)."""

    def __init__(self, kept: Kept, embed: Arm) -> None:
        self.kept, self._embed = kept, embed
        self._found: dict[str, Regions] = {}
        self._shown: dict[str, np.ndarray] = {}

    def find(self, episode: DetectEpisode) -> list[Sequence[Spotted]]:
        means = {name: unit(np.mean([self._of(one) for one in shown], 0)) for name, shown in episode.shown.items()}
        known = Known.of([(name, mean[np.newaxis].astype(np.float32)) for name, mean in means.items()])
        return [spotted(self._regions(photograph), known, WIDTH) for photograph in episode.asked]

    def _of(self, shown: AskedItem) -> np.ndarray:
        if shown.id not in self._shown:
            self._shown[shown.id] = self._embed([cut(decoded(shown.source), np.array(shown.source.box))])[0]
        return self._shown[shown.id]

    def _regions(self, photograph: Photograph) -> Regions:
        if photograph.id not in self._found:
            likely, picture = self.kept(photograph).proposals(CROPPED), decoded(photograph.source)
            embeddings = self._embed([cut(picture, box) for box in likely.boxes]).astype(np.float32)
            self._found[photograph.id] = Regions(likely.boxes, likely.objectness, embeddings)
        return self._found[photograph.id]


def cut(picture: Image.Image, box: np.ndarray) -> Image.Image:
    """A pixel at least."""
    left, top = (min(int(edge), side - 1) for edge, side in zip(box[:2], picture.size, strict=True))
    right, bottom = (max(low + 1, round(float(edge))) for edge, low in zip(box[2:], (left, top), strict=True))
    return picture.crop((left, top, right, bottom))


class Templates:
    """Normalised cross-correlation of grey templates, at several sizes (Lewis 1995): what needs no learning at all."""

    def __init__(self) -> None:
        self._scenes: dict[str, tuple[np.ndarray, float]] = {}
        self._shown: dict[str, np.ndarray] = {}
        self._found: dict[tuple[str, str], list[tuple[Edges, float]]] = {}

    def find(self, episode: DetectEpisode) -> list[Sequence[Spotted]]:
        return [self._in(photograph, episode.shown) for photograph in episode.asked]

    def _in(self, photograph: Photograph, shown: Mapping[str, Sequence[AskedItem]]) -> list[Spotted]:
        found: list[Spotted] = []
        for name, supports in shown.items():
            places = [place for one in supports for place in self._places(photograph, one)]
            boxes, scores = np.array([edges for edges, _ in places]).reshape(-1, 4), np.array([score for _, score in places])
            kept = kept_boxes(boxes, scores, largest_overlap=0.5)
            found += [Spotted(name, places[position][0], places[position][1]) for position in kept]
        return sorted(found, key=lambda one: -one.score)[:MOST_FOUND]

    def _places(self, photograph: Photograph, shown: AskedItem) -> list[tuple[Edges, float]]:
        key = (photograph.id, shown.id)
        if key not in self._found:
            if photograph.id not in self._scenes:
                picture = decoded(photograph.source)
                scale = TEMPLATE_SCENE_PX / max(picture.size)
                self._scenes[photograph.id] = grey(picture, scale), scale
            if shown.id not in self._shown:
                self._shown[shown.id] = grey(cut(decoded(shown.source), np.array(shown.source.box)), 1.0)
            self._found[key] = matched_places(*self._scenes[photograph.id], self._shown[shown.id])
        return self._found[key]


def grey(picture: Image.Image, scale: float) -> np.ndarray:
    size = [max(1, round(side * scale)) for side in picture.size]
    return np.asarray(picture.convert("L").resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=2.0))


def matched_places(scene: np.ndarray, scale: float, template: np.ndarray) -> list[tuple[Edges, float]]:
    """The best place of the template at each size, where it fits into the scene, in pixels of the photograph."""
    places = []
    for side in TEMPLATE_PX:
        shrink = side / max(template.shape)
        width, height = (max(4, round(length * shrink)) for length in template.shape[::-1])
        if width > scene.shape[1] or height > scene.shape[0]:
            continue
        small = cv2.resize(template, (width, height), interpolation=cv2.INTER_AREA if shrink < 1 else cv2.INTER_LINEAR)
        if small.std() < 1:  # flat: correlation has no meaning
            continue
        _, score, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(scene, small, cv2.TM_CCOEFF_NORMED))
        places.append(((x / scale, y / scale, (x + width) / scale, (y + height) / scale), float(score)))
    return places

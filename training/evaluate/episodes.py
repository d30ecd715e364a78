"""Committed lists: which pictures are shown and which are asked, the same for every arm and every run.

An episode of `classify` is a list of support items; all other items are asked, except those of a photograph that is among the
supports and those listed as near frames. An episode of `detect` is five classes, a box or more of each, and the photographs that
are asked. `scan` is one task over whole packs. The files in `training/episodes/` say which items they were drawn from by a hash
of their ids, so that a changed pack is noticed.

    python -m training.evaluate.episodes --data DIR     # draws the lists again; they come out the same
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training import data
from training.evaluate import items
from training.evaluate.items import AskedItem, Photograph

FOLDER = Path(__file__).parent.parent / "episodes"
SEED = 2026
NEAR_FRAME_CORRELATION = 0.95  # of grey 16 x 16 pictures; above it two crops show one moment of one video
DETECT_WAY = 5
DETECT_ASKED = 10  # photographs asked of each class in an episode, at most
DETECT_WITHOUT = 10  # photographs asked that show none of them, in lists that are drawn now: else false alarms are not measured


@dataclass(frozen=True)
class Episodes:
    items: tuple[AskedItem, ...]
    supports: np.ndarray  # (episodes, classes, shots) positions in items
    class_names: tuple[str, ...]

    def asked(self, episode: int) -> np.ndarray:
        """Positions of the items that are asked in an episode."""
        shown = {self.items[position].photograph for position in self.supports[episode].ravel()}
        return np.array([p for p, item in enumerate(self.items) if item.may_ask and item.photograph not in shown])

    def labels(self, positions: np.ndarray) -> np.ndarray:
        """Class numbers of items."""
        label_of = {name: label for label, name in enumerate(self.class_names)}
        return np.array([label_of[self.items[position].class_name] for position in positions])


@dataclass(frozen=True)
class EpisodeSet:
    """A pack, or a part of it, and how it is asked. `shots` examples a class, all classes against each other."""

    pack: str
    shots: int
    episodes: int = 500
    part: str = ""  # a rule of `items.PARTS`

    @property
    def name(self) -> str:
        return "-".join((self.pack, *([self.part] if self.part else []), f"{self.shots}shot"))

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.json"


@dataclass(frozen=True)
class DetectSet:
    """Boxes of a pack are shown, whole photographs of it are asked."""

    pack: str
    shots: int
    episodes: int = 100

    @property
    def name(self) -> str:
        return f"{self.pack}-detect-{self.shots}shot"

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.json"


SETS = (
    EpisodeSet("flickrlogos27-dev", 1),
    EpisodeSet("flickrlogos27-dev", 5),
    EpisodeSet("grozi120-dev", 1),
    EpisodeSet("grozi120-dev", 5, episodes=100),
    EpisodeSet("grocery-store", 1),
    EpisodeSet("grocery-store", 1, part="iconic", episodes=1),  # there is one iconic picture of a class
    EpisodeSet("grocery-store", 1, part="fresh"),
    EpisodeSet("brand-marks", 1, part="split8", episodes=1),
    EpisodeSet("fod-a-crops-dev", 1, part="scenes"),
)
DETECT_SETS = (DetectSet("flickrlogos27-dev", 1), DetectSet("flickrlogos27-dev", 5))


def set_called(name: str) -> EpisodeSet:
    """ValueError for a name of no set."""
    for wanted in SETS:
        if wanted.name == name:
            return wanted
    raise ValueError(f"no task is called {name!r}; there are {', '.join(wanted.name for wanted in SETS)}")


def draw(wanted: EpisodeSet, pack: Path, *, seed: int = SEED) -> dict[str, Any]:
    """An episode list as JSON: supports of different photographs, drawn without replacement within an episode."""
    found = items.items_of(pack, wanted.part)
    near = near_frames(found)
    names = _askable(found, wanted.shots)
    may_support = {name: [p for p, item in enumerate(found) if item.class_name == name and item.may_support] for name in names}
    rng = np.random.default_rng(seed + wanted.shots)
    supports = []
    for _ in range(wanted.episodes):
        episode = []
        for name in names:
            chosen: dict[str, int] = {}
            for position in rng.permutation(may_support[name]):
                chosen.setdefault(found[position].photograph, int(position))
            episode.append(list(chosen.values())[: wanted.shots])
        supports.append(episode)
    return {"pack": wanted.pack, "items": hash_of(found), "near_frames": near, "classes": names, "supports": supports}


def _askable(found: Sequence[AskedItem], shots: int) -> list[str]:
    """Classes with enough photographs to show, and another one to ask."""
    shown = {(item.class_name, item.photograph) for item in found if item.may_support}
    asked = {(item.class_name, item.photograph) for item in found if item.may_ask}
    enough, in_all = (Counter(name for name, _ in photographs) for photographs in (shown, shown | asked))
    return sorted(name for name in {name for name, _ in asked} if enough[name] >= shots and in_all[name] > shots)


def near_frames(found: Sequence[AskedItem]) -> list[str]:
    """Ids of asked items that are nearly a frame of some support item of their class."""
    greys = {item.id: _grey(item.source) for item in found if item.may_support != item.may_ask and item.form == "stored"}
    near = []
    for item in found:
        if item.may_support or item.id not in greys:
            continue
        shown = [greys[o.id] for o in found if o.may_support and o.class_name == item.class_name]
        if shown and max(float(greys[item.id] @ grey) for grey in shown) > NEAR_FRAME_CORRELATION:
            near.append(item.id)
    return near


def _grey(source: data.Item) -> np.ndarray:
    with zipfile.ZipFile(source.archive) as archive:
        picture = Image.open(io.BytesIO(archive.read(source.entry))).convert("L").resize((16, 16), Image.Resampling.BOX)
    grey = np.asarray(picture, np.float64).ravel()
    grey -= grey.mean()
    return grey / max(float(np.linalg.norm(grey)), 1e-9)


def read(wanted: EpisodeSet, pack: Path) -> Episodes:
    """The committed list over the pack as it lies there. ValueError when the pack is not the one it was drawn from."""
    stored = json.loads(wanted.file.read_text())
    found = items.items_of(pack, wanted.part)
    _check(wanted.file, stored["items"], hash_of(found))
    dropped, names = set(stored["near_frames"]), set(stored["classes"])
    kept = [replace(i, may_ask=i.may_ask and i.id not in dropped and i.class_name in names) for i in found]
    return Episodes(tuple(kept), np.array(stored["supports"]), tuple(stored["classes"]))


@dataclass(frozen=True)
class DetectEpisode:
    """`shown` by class: photographs with the box in them that is enrolled. `asked` are other photographs, each once."""

    shown: dict[str, tuple[AskedItem, ...]]
    asked: tuple[Photograph, ...]


@dataclass(frozen=True)
class DetectPlan:
    """What an episode of `detect` is made of."""

    way: int
    shots: int
    asked: int = DETECT_ASKED  # photographs of each class, at most
    without: int = 0  # photographs that show no class of the episode


def draw_detect(wanted: DetectSet, pack: Path, *, seed: int = SEED) -> dict[str, Any]:
    """The committed list of a set."""
    photographs = items.photographs_of(pack)
    way = min(DETECT_WAY, len(class_names_of(photographs)))
    return drawn_detect(photographs, (), DetectPlan(way, wanted.shots), count=wanted.episodes, seed=seed, pack=wanted.pack)


def class_names_of(photographs: Sequence[Photograph]) -> list[str]:
    return sorted({name for photograph in photographs for name, _ in photograph.boxes})


def drawn_detect(
    photographs: Sequence[Photograph], plain: Sequence[Photograph], plan: DetectPlan, *, count: int, seed: int, pack: str
) -> dict[str, Any]:
    """Classes, boxes to enrol (file and number of the box in it) and files to ask, episode by episode.

    `plain` show no class at all. ValueError for a class with too few photographs that hold a box large enough to enrol.
    """
    names = class_names_of(photographs)
    for name in names:
        there = sum(bool(_large_boxes(photograph, name)) for photograph in photographs)
        if there < plan.shots:
            raise ValueError(f"class {name!r} has {there} photographs with a box large enough to show, not {plan.shots}")
    rng = np.random.default_rng(seed + plan.shots)
    episodes = []
    for _ in range(count):
        chosen = sorted(rng.choice(len(names), plan.way, replace=False).tolist())
        shown = {names[label]: _drawn_boxes(names[label], photographs, plan.shots, rng) for label in chosen}
        used = {file for boxes in shown.values() for file, _ in boxes}
        asked = {name: _drawn_photographs(name, photographs, used, plan.asked, rng) for name in shown}
        files = {file for of_class in asked.values() for file in of_class}
        if plan.without:
            foreign = [p.id for p in (*photographs, *plain) if p.id not in used and not any(n in shown for n, _ in p.boxes)]
            files |= {foreign[position] for position in rng.permutation(len(foreign))[: plan.without]}
        episodes.append({"shown": shown, "asked": sorted(files)})
    return {"pack": pack, "items": hash_of_photographs(photographs), "classes": names, "episodes": episodes}


def _drawn_boxes(name: str, photographs: Sequence[Photograph], shots: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """`shots` photographs of a class, and of each a box that is large enough to learn from."""
    candidates = [(p.id, _large_boxes(p, name)) for p in photographs]
    candidates = [(file, numbers) for file, numbers in candidates if numbers]
    chosen = rng.permutation(len(candidates))[:shots]
    return [(candidates[p][0], int(rng.choice(candidates[p][1]))) for p in chosen]


def _large_boxes(photograph: Photograph, name: str) -> list[int]:
    sides = [min(right - left, bottom - top) for _, (left, top, right, bottom) in photograph.boxes]
    return [n for n, (named, _) in enumerate(photograph.boxes) if named == name and sides[n] >= data.MIN_BOX_PX]


def _drawn_photographs(
    name: str, photographs: Sequence[Photograph], used: set[str], most: int, rng: np.random.Generator
) -> list[str]:
    others = [p.id for p in photographs if p.id not in used and any(named == name for named, _ in p.boxes)]
    return [others[p] for p in rng.permutation(len(others))[:most]]


def read_detect(file: Path, pack: Path) -> tuple[list[DetectEpisode], tuple[str, ...]]:
    """The episodes of a file, and the names of all classes.

    ValueError when the pack is not the one they were drawn from, or one asks a photograph that it shows.
    """
    stored = json.loads(file.read_text())
    boxed = items.photographs_of(pack)
    _check(file, stored["items"], hash_of_photographs(boxed))
    photographs = {photograph.id: photograph for photograph in (*boxed, *items.plain_photographs(pack))}
    for number, episode in enumerate(stored["episodes"]):
        if {shown for boxes in episode["shown"].values() for shown, _ in boxes} & set(episode["asked"]):
            raise ValueError(f"episode {number} of {file.name} asks a photograph that it shows")
    episodes = [
        DetectEpisode(
            {name: tuple(_boxed(photographs[file], number) for file, number in boxes) for name, boxes in e["shown"].items()},
            tuple(photographs[file] for file in e["asked"]),
        )
        for e in stored["episodes"]
    ]
    return episodes, tuple(stored["classes"])


def _boxed(photograph: Photograph, number: int) -> AskedItem:
    name, box = photograph.boxes[number]
    return AskedItem(f"{photograph.id}#{box}", name, photograph.id, replace(photograph.source, box=box), may_ask=False)


@dataclass(frozen=True)
class Scan:
    """One clean picture of each thing is enrolled, beside one of many others; photographs of the first are asked."""

    scans: tuple[AskedItem, ...]
    beside: tuple[AskedItem, ...]
    asked: tuple[AskedItem, ...]
    foreign: tuple[AskedItem, ...]  # show nothing that is enrolled

    def parts(self) -> dict[str, tuple[AskedItem, ...]]:
        return {"scans": self.scans, "beside": self.beside, "asked": self.asked, "foreign": self.foreign}


def scan_file() -> Path:
    return FOLDER / "scan.json"


def all_of_scan(folder: Path) -> Scan:
    scans, asked = items.scanned_objects(folder / "object-views-dev")
    beside = items.package_fronts(folder / "package-fronts")
    return Scan(*(tuple(part) for part in (scans, beside, asked, items.foreign_items(folder))))


def draw_scan(folder: Path) -> dict[str, Any]:
    """Whole packs need no list: how many pictures, and the hash of their ids."""
    return {name: {"pictures": len(part), "items": hash_of(part)} for name, part in all_of_scan(folder).parts().items()}


def read_scan(folder: Path) -> Scan:
    """ValueError when a pack is not the one that the committed hashes were made of."""
    stored, scan = json.loads(scan_file().read_text()), all_of_scan(folder)
    for name, part in scan.parts().items():
        _check(scan_file(), stored[name]["items"], hash_of(part))
    return scan


def hash_of(found: Iterable[AskedItem]) -> str:
    return _hash(item.id for item in found)


def hash_of_photographs(photographs: Iterable[Photograph]) -> str:
    return _hash(f"{photograph.id} {photograph.boxes}" for photograph in photographs)


def _hash(ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def _check(file: Path, drawn_from: str, found: str) -> None:
    if drawn_from != found:
        raise ValueError(f"{file.name} was drawn from other pictures than those in the packs")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the committed episode lists.")
    parser.add_argument("--data", type=Path, default=Path("data"))
    folder = parser.parse_args().data
    FOLDER.mkdir(exist_ok=True)
    drawn = {wanted.file: draw(wanted, folder / wanted.pack) for wanted in SETS}
    drawn |= {wanted.file: draw_detect(wanted, folder / wanted.pack) for wanted in DETECT_SETS}
    drawn[scan_file()] = draw_scan(folder)
    for file, listed in drawn.items():
        file.write_text(json.dumps(listed, separators=(",", ":")) + "\n")
        print(file.name)


if __name__ == "__main__":
    main()

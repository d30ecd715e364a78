"""Committed episode lists: which pictures are shown and which are asked, the same for every arm and every run.

An episode is a list of support items; all other items are asked, except those of a photograph that is among the supports and
those listed as near frames. The file in `training/episodes/` holds the supports only; it says which items it was drawn from by a
hash of their ids, so that a changed pack is noticed.

    python -m training.evaluate.episodes --data DIR     # draws the lists again; they come out the same
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training import data

FOLDER = Path(__file__).parent.parent / "episodes"
NEAR_FRAME_CORRELATION = 0.95  # of grey 16 x 16 pictures; above it two crops show one moment of one video
MARGIN = 0.0  # boxes are cropped tight


@dataclass(frozen=True)
class AskedItem:
    """A picture of a known class. Items of one photograph are never support and query of one episode."""

    id: str
    class_name: str
    photograph: str
    source: data.Item
    may_support: bool = True
    may_ask: bool = True


@dataclass(frozen=True)
class Episodes:
    items: tuple[AskedItem, ...]
    supports: np.ndarray  # (episodes, classes, shots) positions in items
    class_names: tuple[str, ...]

    def asked(self, episode: int) -> np.ndarray:
        """Positions of the items that are asked in an episode."""
        shown = {self.items[position].photograph for position in self.supports[episode].ravel()}
        return np.array([p for p, item in enumerate(self.items) if item.may_ask and item.photograph not in shown])


@dataclass(frozen=True)
class EpisodeSet:
    """A pack and how it is asked. `shots` examples a class, all classes against each other."""

    pack: str
    shots: int
    episodes: int = 500

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.pack}-{self.shots}shot.json"


SETS = (
    EpisodeSet("flickrlogos27-dev", 1),
    EpisodeSet("flickrlogos27-dev", 5),
    EpisodeSet("grozi120-dev", 1),
    EpisodeSet("grozi120-dev", 5, episodes=100),
    EpisodeSet("grocery-store", 1),
)


def items_of(pack: Path) -> list[AskedItem]:
    """All items of an evaluation pack, sorted by id."""
    if (pack / "annotations.json.gz").exists():
        boxes = data.box_items(pack, margin=MARGIN)
        found = [AskedItem(f"{box.entry}#{box.box}", box.class_name, box.entry, box) for box in boxes]
    else:
        found = [_split_item(item) for item in data.pack_items(pack)]
    return sorted(found, key=lambda item: item.id)


def _split_item(item: data.Item) -> AskedItem:
    split = item.entry.split("/", 1)[0]
    return AskedItem(item.entry, item.class_name, item.entry, item, split in ("support", "train"), split in ("query", "val"))


def draw(wanted: EpisodeSet, pack: Path, *, seed: int = 2026) -> dict[str, object]:
    """An episode list as JSON: supports of different photographs, drawn without replacement within an episode."""
    items = items_of(pack)
    near = near_frames(items)
    asked_classes = {item.class_name for item in items if item.may_ask}
    photographs = {(item.class_name, item.photograph) for item in items if item.may_support}
    enough = Counter(class_name for class_name, _ in photographs)
    names = sorted(name for name in asked_classes if enough[name] >= wanted.shots)
    rng = np.random.default_rng(seed + wanted.shots)
    supports = []
    for _ in range(wanted.episodes):
        episode = []
        for name in names:
            positions = [p for p, item in enumerate(items) if item.class_name == name and item.may_support]
            chosen: dict[str, int] = {}
            for position in rng.permutation(positions):
                chosen.setdefault(items[position].photograph, int(position))
            episode.append(list(chosen.values())[: wanted.shots])
        supports.append(episode)
    return {"pack": wanted.pack, "items": _hash_of(items), "near_frames": near, "classes": names, "supports": supports}


def near_frames(items: Sequence[AskedItem]) -> list[str]:
    """Ids of asked items that are nearly a frame of some support item of their class."""
    greys = {item.id: _grey(item) for item in items if item.may_support != item.may_ask}
    near = []
    for item in items:
        if item.may_support or item.id not in greys:
            continue
        shown = [greys[o.id] for o in items if o.may_support and o.class_name == item.class_name]
        if shown and max(float(greys[item.id] @ grey) for grey in shown) > NEAR_FRAME_CORRELATION:
            near.append(item.id)
    return near


def _grey(item: AskedItem) -> np.ndarray:
    with zipfile.ZipFile(item.source.archive) as archive:
        picture = Image.open(io.BytesIO(archive.read(item.source.entry))).convert("L").resize((16, 16), Image.Resampling.BOX)
    grey = np.asarray(picture, np.float64).ravel()
    grey -= grey.mean()
    return grey / max(float(np.linalg.norm(grey)), 1e-9)


def read(wanted: EpisodeSet, pack: Path) -> Episodes:
    """The committed list over the pack as it lies there. ValueError when the pack is not the one it was drawn from."""
    stored = json.loads(wanted.file.read_text())
    items = items_of(pack)
    if stored["items"] != _hash_of(items):
        raise ValueError(f"{wanted.file.name} was drawn from other pictures than those in {pack}")
    dropped, names = set(stored["near_frames"]), set(stored["classes"])
    kept = [
        AskedItem(
            i.id, i.class_name, i.photograph, i.source, i.may_support, i.may_ask and i.id not in dropped and i.class_name in names
        )
        for i in items
    ]
    return Episodes(tuple(kept), np.array(stored["supports"]), tuple(stored["classes"]))


def _hash_of(items: Sequence[AskedItem]) -> str:
    return hashlib.sha256("\n".join(item.id for item in items).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the committed episode lists.")
    parser.add_argument("--data", type=Path, default=Path("data"))
    folder = parser.parse_args().data
    FOLDER.mkdir(exist_ok=True)
    for wanted in SETS:
        wanted.file.write_text(json.dumps(draw(wanted, folder / wanted.pack), separators=(",", ":")) + "\n")
        print(wanted.file.name)


if __name__ == "__main__":
    main()

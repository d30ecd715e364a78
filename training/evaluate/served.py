"""Accuracy as a user meets it: through HTTP, with the service's own views, class models, thresholds and decisions.

    make serve &                                    # with an empty store: FIRSTSIGHT_STORE=memory://
    python -m training served --data DIR --pack flickrlogos27-dev --shots 1

Each episode enrols its supports under fresh names, asks every query with a filter on them, and deletes them. Besides top-1 it
counts what the service answered: right and wrong matches, doubtful, unknown; and matches on foreign pictures, none of which
thresholds were fitted on.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from training import data, run
from training.evaluate import episodes
from training.evaluate.few_shot import read_pictures, write_counted
from training.evaluate.intervals import two_level


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    url: str = field(default="http://127.0.0.1:8000", metadata={"help": "a running service"})
    pack: str = "flickrlogos27-dev"
    shots: int = 1
    episodes: int = field(default=10, metadata={"help": "the first so many of the committed list"})
    foreign_count: int = field(default=200, metadata={"help": "pictures of nothing enrolled, asked in each episode"})
    results: Path = field(default=Path("docs/accuracy"), metadata={"help": "folder for JSON with every figure"})


def as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class Service:
    """The three calls that an evaluation needs; any error status stops it."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)

    def enrol(self, name: str, pictures: Sequence[bytes]) -> None:
        files = [("image", ("picture", picture, "image/png")) for picture in pictures]
        self._http.post(f"/classes/{name}/examples", files=files).raise_for_status()

    def classify(self, picture: bytes, classes: Sequence[str]) -> dict[str, object]:
        answer = self._http.post(
            "/classify", params={"classes": classes, "top_k": 1}, content=picture, headers={"content-type": "image/png"}
        )
        return dict(answer.raise_for_status().json())

    def delete(self, name: str) -> None:
        self._http.delete(f"/classes/{name}").raise_for_status()


def outcome_of(answer: dict[str, object], truth: str | None) -> str:
    """`right`, `wrong`, `doubtful` or `unknown`; every match of a foreign picture (truth None) is wrong."""
    if answer["outcome"] == "match":
        return "right" if answer["decision"] == truth else "wrong"
    return str(answer["outcome"])


def street_scenes(pack: Path) -> list[data.Item]:
    """The photographs of FlickrLogos that show none of its brands, whole."""
    pictures = json.loads(gzip.decompress((pack / "annotations.json.gz").read_bytes()))["images"]
    return [data.Item(pack / "images.zip", p["file_name"], "distractor") for p in pictures if p["split"] == "distractor"]


FOREIGN: dict[str, Callable[[Path], list[data.Item]]] = {
    "flickrlogos27-dev": street_scenes,
    "freiburg-groceries-dev": data.box_items,
    "grocery-store": lambda pack: data.pack_items(pack, split=lambda split: split == "val"),
}


def foreign_packs(pack: str) -> list[str]:
    """Packs with pictures that show no class of `pack`."""
    return [name for name in FOREIGN if name != pack or name == "flickrlogos27-dev"]


def foreign_pictures(config: Config) -> list[Image.Image]:
    rng, chosen, packs = np.random.default_rng(0), [], foreign_packs(config.pack)
    for pack in packs:
        items = FOREIGN[pack](config.data / pack)
        chosen += [items[p] for p in rng.permutation(len(items))[: config.foreign_count // len(packs)]]
    return read_pictures([episodes.AskedItem(item.entry, item.class_name, item.entry, item) for item in chosen])


def evaluate(config: Config) -> dict[str, object]:
    listed = episodes.read(episodes.EpisodeSet(config.pack, config.shots), config.data / config.pack)
    pictures = [as_png(picture) for picture in read_pictures(listed.items)]
    foreign = [as_png(picture) for picture in foreign_pictures(config)]
    service, outcomes, foreign_outcomes = Service(config.url), Counter[str](), Counter[str]()
    right = np.zeros((config.episodes, len(listed.class_names)))
    asked = np.zeros_like(right)
    for episode in range(config.episodes):
        names = [f"e{episode}-{label}" for label in range(len(listed.class_names))]
        for name, support in zip(names, listed.supports[episode], strict=True):
            service.enrol(name, [pictures[position] for position in support])
        for position in listed.asked(episode):
            label = listed.class_names.index(listed.items[position].class_name)
            answer = service.classify(pictures[position], names)
            right[episode, label] += answer["candidates"][0]["class"] == names[label]  # type: ignore[index]
            asked[episode, label] += 1
            outcomes[outcome_of(answer, names[label])] += 1
        foreign_outcomes.update(outcome_of(service.classify(picture, names), None) for picture in foreign)
        for name in names:
            service.delete(name)
        print(f"episode {episode + 1} of {config.episodes}: {np.sum(right) / np.sum(asked):.3f}", flush=True)
    interval = two_level(right / np.maximum(asked, 1))
    return {
        "pack": config.pack, "way": len(listed.class_names), "shots": config.shots, "episodes": config.episodes,
        "top_1": {"mean": round(interval.mean, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)},
        "answers": shares(outcomes), "foreign": {"packs": foreign_packs(config.pack)} | shares(foreign_outcomes),
    }  # fmt: skip


def shares(counts: Counter[str]) -> dict[str, float]:
    return {name: round(counts[name] / counts.total(), 4) for name in ("right", "wrong", "doubtful", "unknown")}


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Accuracy through the API.")
    result = evaluate(config)
    print(json.dumps(result, indent=2))
    write_counted(config.results / f"served-{config.pack}-{config.shots}shot.json", result)

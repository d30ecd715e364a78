"""Few-shot accuracy of several arms on one committed episode list, with paired intervals.

    python -m training evaluate --data DIR --pack flickrlogos27-dev --shots 1

Plain protocol for every arm: one view a picture, cosine to the mean of the supports; accuracy is the mean over classes. Each run
of the command scores a set once; the output counts how often.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from training import run
from training.evaluate import arms, episodes
from training.evaluate.intervals import Interval, two_level


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "model set of the arm `shipped`"})
    pack: str = "flickrlogos27-dev"
    shots: int = 1
    arms: str = field(
        default="shipped,teacher,hog,histogram,random", metadata={"help": "the first is compared with each other one"}
    )
    episodes: int = field(default=0, metadata={"help": "use only the first so many; 0: all of the list"})
    results: Path = field(default=Path("docs/accuracy"), metadata={"help": "folder for JSON with every figure"})


def read_pictures(items: Sequence[episodes.AskedItem]) -> list[Image.Image]:
    pictures, archives = [], {item.source.archive: zipfile.ZipFile(item.source.archive) for item in items}
    for item in items:
        picture = Image.open(io.BytesIO(archives[item.source.archive].read(item.source.entry))).convert("RGB")
        if item.source.box is not None:
            picture = picture.crop(tuple(round(edge) for edge in item.source.box))  # type: ignore[arg-type]
        pictures.append(picture)
    return pictures


def accuracies(vectors: np.ndarray, listed: episodes.Episodes, count: int) -> np.ndarray:
    """Accuracy of each class in each episode (episodes, classes): nearest mean of supports by cosine."""
    label_of = {name: label for label, name in enumerate(listed.class_names)}
    labels = np.array([label_of.get(item.class_name, -1) for item in listed.items])
    found = np.full((count, len(label_of)), np.nan)
    for episode in range(count):
        means = arms.unit(vectors[listed.supports[episode]].mean(1))  # (classes, shots, d) -> (classes, d)
        asked = listed.asked(episode)
        right = (vectors[asked] @ means.T).argmax(1) == labels[asked]
        counts = np.bincount(labels[asked], minlength=len(label_of))
        with np.errstate(invalid="ignore"):
            found[episode] = np.bincount(labels[asked], right, minlength=len(label_of)) / counts
    # A class whose every photograph is among the supports has nothing to ask: its mean over the other episodes stands in.
    return np.where(np.isnan(found), np.nanmean(found, 0), found)


def evaluate(config: Config) -> dict[str, object]:
    wanted = episodes.EpisodeSet(config.pack, config.shots)
    listed = episodes.read(wanted, config.data / config.pack)
    count = config.episodes or len(listed.supports)
    pictures = read_pictures(listed.items)
    names = config.arms.split(",")
    scores = {}
    for name in names:
        vectors = arms.arm(name, models=config.models, folder=config.data)(pictures)
        scores[name] = accuracies(vectors, listed, count)
        print(f"{name:>10}  {two_level(scores[name])}", flush=True)
    first = names[0]
    differences = {other: two_level(scores[first] - scores[other]) for other in names[1:]}
    for other, interval in differences.items():
        print(f"{first} - {other}: {interval}")
    return {
        "pack": config.pack, "way": len(listed.class_names), "shots": config.shots, "episodes": count,
        "arms": {name: _numbers(two_level(values)) for name, values in scores.items()},
        "differences": {f"{first} - {other}": _numbers(interval) for other, interval in differences.items()},
    }  # fmt: skip


def _numbers(interval: Interval) -> dict[str, float]:
    return {"mean": round(interval.mean, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Few-shot accuracy with paired intervals.")
    result = evaluate(config)
    write_counted(config.results / f"{config.pack}-{config.shots}shot.json", result)


def write_counted(out: Path, result: Mapping[str, object]) -> None:
    """Writes a result with the number of times that its set has now been scored."""
    out.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(out.read_text())["times_scored"] if out.exists() else 0
    out.write_text(json.dumps(dict(result) | {"times_scored": before + 1}, indent=2) + "\n")

"""Whole photographs, a few boxes enrolled of each of five classes: which boxes does the service find?

    python -m training evaluate detect --data DIR --shots 1

An episode enrols boxes in whole photographs and asks other whole photographs of its classes, through the service's own use cases
in this process. Things of the episode's classes are the ground truth, however small. *Pooled* AP ranks all boxes of all classes
and episodes in one list, as RepMet's published evaluation does; mean AP over classes beside it. Precision and recall are of the
boxes that the service accepts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.values import Box
from training import run
from training.evaluate import episodes, in_process, items
from training.evaluate.average_precision import Edges, Ranking, average_precision, matched, precision_and_recall
from training.evaluate.episodes import DetectEpisode, DetectSet
from training.evaluate.intervals import Interval, crossed_weights, interval_around
from training.evaluate.items import Photograph
from training.evaluate.results import write_counted

AP_OVERLAP = 0.5
ACCEPTED_OVERLAPS = (0.5, 0.3)
SHIPPED = "auto"  # FIRSTSIGHT_VERIFY unless it is set

Statistic = Callable[[np.ndarray, np.ndarray], float]  # of how often each episode and each class counts


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "model set of the service"})
    pack: str = "flickrlogos27-dev"
    shots: int = 1
    episodes: int = field(default=100, metadata={"help": "the first so many of the committed list"})
    results: Path = field(default=Path("docs/accuracy"), metadata={"help": "folder for JSON with every figure"})


@dataclass(frozen=True)
class Looked:
    """A photograph asked in an episode, and what the service found in it."""

    episode: int
    photograph: Photograph
    found: Sequence[in_process.Detection]


async def look(adapters: in_process.Adapters, listed: Sequence[DetectEpisode], folder: Path) -> list[Looked]:
    looked = []
    for number, episode in enumerate(listed):
        async with in_process.serving(in_process.emptied(adapters), SHIPPED) as use_cases:
            shown = {name: items.uploads_of(boxes, folder) for name, boxes in episode.shown.items()}
            await in_process.enrol_all(use_cases, shown)
            whole = [items.AskedItem(photograph.id, "", photograph.id, photograph.source) for photograph in episode.asked]
            found = await in_process.detect_all(use_cases, items.uploads_of(whole, folder))
            looked += [Looked(number, photograph, boxes) for photograph, boxes in zip(episode.asked, found, strict=True)]
        print(f"episode {number + 1} of {len(listed)}: {sum(len(one.found) for one in looked)} boxes in all", flush=True)
    return looked


def ranking_of(
    looked: Sequence[Looked],
    listed: Sequence[DetectEpisode],
    class_names: Sequence[str],
    *,
    least_overlap: float,
    accepted_only: bool = False,
) -> Ranking:
    """All that was found, judged; or what the service accepts."""
    label_of = {name: label for label, name in enumerate(class_names)}
    truths = np.zeros((len(listed), len(class_names)), np.int64)
    rows: list[tuple[float, int, int, int]] = []  # score, class, episode, verdict
    for one in looked:
        things = [(label_of[name], box) for name, box in one.photograph.boxes if name in listed[one.episode].shown]
        for label, _ in things:
            truths[one.episode, label] += 1
        found = [
            (label_of[each.class_name], edges_of(each.box), each.probability)
            for each in one.found
            if each.accepted or not accepted_only
        ]
        verdicts = matched(found, things, least_overlap=least_overlap)
        rows += [(score, label, one.episode, verdict) for (label, _, score), verdict in zip(found, verdicts, strict=True)]
    scores, labels, in_episode, verdicts_of = np.array(rows, np.float64).reshape(-1, 4).T
    return Ranking(scores, *(part.astype(np.int64) for part in (labels, in_episode, verdicts_of)), truths)


def edges_of(box: Box) -> Edges:
    return box.x, box.y, box.x + box.width, box.y + box.height


def mean_over_classes(ranking: Ranking) -> Statistic:
    """Mean AP of the classes, each pooled over episodes."""
    alone = [ranking.of_class(label) for label in range(ranking.truths.shape[1])]

    def mean(rows: np.ndarray, columns: np.ndarray) -> float:
        areas = np.array([average_precision(one, rows, np.ones_like(columns)) for one in alone])
        asked = ~np.isnan(areas) & (columns > 0)
        return float(np.average(areas[asked], weights=columns[asked])) if asked.any() else float("nan")

    return mean


def interval_of(statistic: Statistic, truths: np.ndarray) -> Interval:
    """Over classes and episodes: a class drawn twice counts twice in each episode, and so does an episode."""
    whole = statistic(np.ones(truths.shape[0]), np.ones(truths.shape[1]))
    return interval_around(whole, (statistic(rows, columns) for rows, columns in crossed_weights(*truths.shape)))


def figures_of(looked: Sequence[Looked], listed: Sequence[DetectEpisode], class_names: Sequence[str]) -> dict[str, Any]:
    """Those that there are: nothing accepted has no precision."""
    ranking = ranking_of(looked, listed, class_names, least_overlap=AP_OVERLAP)
    lenient = ranking.without_repeats()
    statistics: dict[str, Statistic] = {
        "pooled_ap50": lambda rows, columns: average_precision(ranking, rows, columns),
        "pooled_ap50_repeats_ignored": lambda rows, columns: average_precision(lenient, rows, columns),
        "mean_ap50": mean_over_classes(ranking),
    }
    for least in ACCEPTED_OVERLAPS:
        accepted = ranking_of(looked, listed, class_names, least_overlap=least, accepted_only=True)
        statistics |= {f"{name}_at_{least}": statistic for name, statistic in _at_the_line(accepted).items()}
    intervals = {name: interval_of(statistic, ranking.truths) for name, statistic in statistics.items()}
    for name, interval in intervals.items():
        print(f"{name:>28}  {interval}")
    return {name: interval.numbers() for name, interval in intervals.items() if not math.isnan(interval.mean)}


def _at_the_line(accepted: Ranking) -> dict[str, Statistic]:
    return {
        "precision": lambda rows, columns: precision_and_recall(accepted, rows, columns)[0],
        "recall": lambda rows, columns: precision_and_recall(accepted, rows, columns)[1],
    }


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Boxes in whole photographs, with intervals.")
    wanted = DetectSet(config.pack, config.shots)
    everything, class_names = episodes.read_detect(wanted, config.data / wanted.pack)
    listed = everything[: config.episodes]
    looked = asyncio.run(look(in_process.open_cached(config.models, keep_embeddings=False), listed, config.data))
    result = {
        "task": wanted.name, "pack": wanted.pack, "shots": wanted.shots,
        "way": len(listed[0].shown), "classes": len(class_names), "episodes": len(listed),
        "photographs": len(looked),
        "things": int(ranking_of(looked, listed, class_names, least_overlap=AP_OVERLAP).truths.sum()),
        "boxes": sum(len(one.found) for one in looked),
        "detect": figures_of(looked, listed, class_names),
    }  # fmt: skip
    write_counted(config.results / f"{wanted.name}.json", result)

"""Whole photographs, a few boxes shown of each of some classes: what is found by the service, by a detector, by baselines?

    python -m training evaluate detect --data DIR/PACK --model detector=models/detector.onnx,quads --shot 1 --out FILE

`--data` is a pack with boxes, or a folder with COCO annotations (`annotations.json`, `images/`). Every arm is shown the same
boxes and asked the same photographs: of each class of the episode, and some that show none of them, without which false alarms
are not measured. No photograph is both shown and asked in an episode. Things of the episode's classes are the ground truth,
however small. *Pooled* AP ranks all boxes of all classes and episodes in one list; with repeats ignored it is what RepMet's
published evaluation computes. Mean AP over classes stands beside it. Precision and recall are of the boxes that an arm accepts.
`--sheet` draws the first pictures that were asked, with what the first arm found: not to be published, but for those of
`evaluate composites --plain-grounds`.

`--model`, by commas, the first compared with each other one; `NAME=` before one names it:

    FILE.onnx          a detector of `training export-detector`, scored by RepMet's posterior over the shown boxes, cut out
    in-place:FILE.onnx the same, but shown with what is around the boxes
    crops:FILE.onnx    its boxes alone, cut out and embedded by the network of the model set, nearest mean of supports
    service            the service with the model set as it is
    quads              the same with FIRSTSIGHT_DETECTOR=off: verified quads alone
    ncc                template matching
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from app.domain.posterior import overlaps
from app.errors import CorruptModelSet
from training import run
from training.evaluate import arms, episodes, finders, items, scene_sheet
from training.evaluate.average_precision import (
    Ranking,
    Verdict,
    average_precision,
    curve,
    matched,
    precision_and_recall,
    precision_at_recall,
)
from training.evaluate.episodes import DETECT_ASKED, DETECT_WITHOUT, SEED, DetectEpisode, DetectPlan
from training.evaluate.finders import Finder, Spotted
from training.evaluate.intervals import Interval, by_pictures, crossed_weights, interval_around
from training.evaluate.items import Photograph
from training.evaluate.results import write_counted

ALL = "all"
OVERLAPS = (0.5, 0.3, 0.7)
ACCEPTED_OVERLAPS = (0.5, 0.3)
WANTED_RECALL = 0.9
KINDS = ("", "in-place", "crops")  # of arms of a detector
CURVE_STEPS = 100  # of recall, at which the precision-recall curve is kept
PICTURES_OF_SHEET = 16
PROPOSED = 100  # boxes of a photograph whose recall is measured
PROPOSED_OVERLAPS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2))  # AR is the mean over these, as COCO has it

Statistic = Callable[[np.ndarray, np.ndarray], float]  # of how often each episode and each class counts


@dataclass(frozen=True)
class Config:
    data: Path = field(metadata={"help": "a pack with boxes, or a folder with COCO annotations"})
    out: Path = field(metadata={"help": "JSON with every figure"})
    model: str = field(
        default="quads", metadata={"help": "FILE.onnx, in-place:FILE.onnx, crops:FILE.onnx, service, quads, ncc; by commas"}
    )
    models: Path = field(default=Path("models"), metadata={"help": "model set of service, quads and crops"})
    side_px: int = field(default=320, metadata={"help": "side at which a detector looks at everything"})
    way: str = field(default="5", metadata={"help": f"classes of an episode, or {ALL}"})
    shot: int = field(default=1, metadata={"help": "boxes shown of each, of different photographs"})
    episodes: int = field(default=500, metadata={"help": "drawn at random, or the first of --episode-list"})
    queries: int = field(default=DETECT_ASKED, metadata={"help": "photographs asked of each class, at most"})
    without: int = field(default=DETECT_WITHOUT, metadata={"help": "photographs asked that show none of the classes"})
    seed: int = field(default=SEED, metadata={"help": "of the episodes"})
    episode_list: Path | None = field(default=None, metadata={"help": "file to read the episodes from; written if there is none"})
    sheet: Path | None = field(default=None, metadata={"help": "picture (.webp) of what the first arm found, to be looked at"})


@dataclass(frozen=True)
class Looked:
    """A photograph asked in an episode, and what an arm found in it."""

    episode: int
    photograph: Photograph
    found: Sequence[Spotted]


def look(finder: Finder, listed: Sequence[DetectEpisode], name: str) -> list[Looked]:
    looked = []
    for number, episode in enumerate(tqdm(listed, desc=name, mininterval=10)):
        found = finder.find(episode)
        looked += [Looked(number, photograph, several) for photograph, several in zip(episode.asked, found, strict=True)]
    return looked


def ranking_of(
    looked: Sequence[Looked],
    listed: Sequence[DetectEpisode],
    class_names: Sequence[str],
    *,
    least_overlap: float,
    accepted_only: bool = False,
) -> Ranking:
    """All that was found, judged; or what the arm accepts. Best first, so that resamples have nothing to sort."""
    label_of = {name: label for label, name in enumerate(class_names)}
    truths = np.zeros((len(listed), len(class_names)), np.int64)
    rows: list[tuple[float, int, int, int]] = []  # score, class, episode, verdict
    for one in looked:
        things = [(label_of[name], box) for name, box in one.photograph.boxes if name in listed[one.episode].shown]
        for label, _ in things:
            truths[one.episode, label] += 1
        found = [(label_of[each.class_name], each.edges, each.score) for each in one.found if each.accepted or not accepted_only]
        verdicts = matched(found, things, least_overlap=least_overlap)
        rows += [(score, label, one.episode, verdict) for (label, _, score), verdict in zip(found, verdicts, strict=True)]
    rows.sort(key=lambda row: -row[0])
    scores, labels, in_episode, verdicts_of = np.array(rows, np.float64).reshape(-1, 4).T
    return Ranking(scores, *(part.astype(np.int64) for part in (labels, in_episode, verdicts_of)), truths)


def mean_over_classes(ranking: Ranking) -> Statistic:
    """Mean AP of the classes, each pooled over episodes."""
    there = np.flatnonzero(ranking.truths.any(0))
    alone = [ranking.of_class(int(label)) for label in there]

    def mean(rows: np.ndarray, columns: np.ndarray) -> float:
        areas = np.array([average_precision(one, rows, np.ones(1)) for one in alone])
        asked = ~np.isnan(areas) & (columns[there] > 0)
        return float(np.average(areas[asked], weights=columns[there][asked])) if asked.any() else float("nan")

    return mean


def interval_of(statistic: Statistic, truths: np.ndarray) -> Interval:
    """Over classes and episodes: a class drawn twice counts twice in each episode, and so does an episode."""
    whole = statistic(np.ones(truths.shape[0]), np.ones(truths.shape[1]))
    return interval_around(whole, (statistic(rows, columns) for rows, columns in crossed_weights(*truths.shape)))


def statistics_of(
    looked: Sequence[Looked], listed: Sequence[DetectEpisode], class_names: Sequence[str]
) -> tuple[dict[str, Statistic], np.ndarray]:
    """Every figure of an arm as a statistic, and the things that there are (episodes, classes)."""
    statistics: dict[str, Statistic] = {}
    for least in OVERLAPS:
        ranking = ranking_of(looked, listed, class_names, least_overlap=least)
        statistics |= areas_of(ranking, f"ap{round(100 * least)}")
        if least == OVERLAPS[0]:
            statistics |= _at_recall(ranking)
    for least in ACCEPTED_OVERLAPS:
        accepted = ranking_of(looked, listed, class_names, least_overlap=least, accepted_only=True)
        statistics |= {f"{name}_at_{least}": statistic for name, statistic in _at_the_line(accepted).items()}
    return statistics, ranking.truths


def areas_of(ranking: Ranking, name: str) -> dict[str, Statistic]:
    """`name` says at which overlap."""
    lenient = ranking.without_repeats()
    return {
        f"pooled_{name}": lambda rows, columns: average_precision(ranking, rows, columns),
        f"pooled_{name}_repeats_ignored": lambda rows, columns: average_precision(lenient, rows, columns),
        f"mean_{name}": mean_over_classes(ranking),
    }


def _at_recall(ranking: Ranking) -> dict[str, Statistic]:
    """Where 90 % are not found at any score, the first is nothing and the second says how many are."""
    return {
        "precision_at_90_recall": lambda rows, columns: precision_at_recall(ranking, rows, columns, WANTED_RECALL),
        "largest_recall": lambda rows, columns: precision_and_recall(ranking, rows, columns)[1],
    }


def _at_the_line(accepted: Ranking) -> dict[str, Statistic]:
    return {
        "precision": lambda rows, columns: precision_and_recall(accepted, rows, columns)[0],
        "recall": lambda rows, columns: precision_and_recall(accepted, rows, columns)[1],
    }


def figures_of(looked: Sequence[Looked], listed: Sequence[DetectEpisode], class_names: Sequence[str]) -> dict[str, Any]:
    """Those that there are: nothing accepted has no precision."""
    statistics, truths = statistics_of(looked, listed, class_names)
    intervals = {name: interval_of(statistic, truths) for name, statistic in statistics.items()}
    for name, interval in intervals.items():
        print(f"{name:>30}  {interval}")
    return {name: interval.numbers() for name, interval in intervals.items() if not math.isnan(interval.mean)}


def curve_of(ranking: Ranking) -> dict[str, list[float]]:
    """Precision where each further hundredth of the things has been found, and where the curve ends; no points of nothing."""
    recall, precision = curve(ranking, *(np.ones(length) for length in ranking.truths.shape))
    levels = np.minimum(np.arange(CURVE_STEPS + 1) / CURVE_STEPS, recall.max(initial=0.0))
    kept = np.unique(np.searchsorted(recall, levels - 1e-9)) if len(recall) else np.zeros(0, np.int64)
    return {"recall": np.round(recall[kept], 4).tolist(), "precision": np.round(precision[kept], 4).tolist()}


def lowest_drawn(ranking: Ranking) -> float:
    """The score down to which boxes are drawn: where precision and recall are best together, by F1. A ranking's best is first."""
    right = np.cumsum(ranking.verdicts == Verdict.RIGHT)
    f1 = 2 * right / (np.arange(1, len(right) + 1) + ranking.truths.sum())
    return float(ranking.scores[f1.argmax()]) if len(f1) else math.inf


def judged(one: Looked, episode: DetectEpisode, lowest: float) -> scene_sheet.Judged:
    """What an arm accepts in a photograph, from a score on, with the things of the episode that there are."""
    things = [(name, box) for name, box in one.photograph.boxes if name in episode.shown]
    number_of = {name: number for number, name in enumerate(episode.shown)}
    found = [each for each in one.found if each.accepted and each.score >= lowest]
    verdicts = matched(
        [(number_of[each.class_name], each.edges, each.score) for each in found],
        [(number_of[name], box) for name, box in things],
        least_overlap=OVERLAPS[0],
    )
    return scene_sheet.Judged(
        finders.decoded(one.photograph.source),
        [box for _, box in things],
        [(each, verdict is Verdict.RIGHT) for each, verdict in zip(found, verdicts, strict=True)],
    )


def draw_sheet(looked: Sequence[Looked], listed: Sequence[DetectEpisode], class_names: Sequence[str], path: Path) -> None:
    ranking = ranking_of(looked, listed, class_names, least_overlap=OVERLAPS[0], accepted_only=True)
    lowest = lowest_drawn(ranking)
    scene_sheet.write_sheet([judged(one, listed[one.episode], lowest) for one in looked[:PICTURES_OF_SHEET]], path)


def difference_of(
    one: Sequence[Looked], other: Sequence[Looked], listed: Sequence[DetectEpisode], class_names: Sequence[str]
) -> dict[str, Any]:
    """Pooled AP of one arm less that of another, on the same episodes; paired: both in the same resamples."""
    found = {}
    for least in OVERLAPS:
        first, second = (ranking_of(arm, listed, class_names, least_overlap=least).without_repeats() for arm in (one, other))

        def less(rows: np.ndarray, columns: np.ndarray, first: Ranking = first, second: Ranking = second) -> float:
            return average_precision(first, rows, columns) - average_precision(second, rows, columns)

        found[f"pooled_ap{round(100 * least)}_repeats_ignored"] = interval_of(less, first.truths).numbers()
    return found


def proposals_of(kept: finders.Kept, photographs: Iterable[Photograph], class_names: Sequence[str]) -> dict[str, Any]:
    """How many of all boxes of the photographs are among the `PROPOSED` likeliest regions, whatever their class."""
    label_of = {name: label for label, name in enumerate(class_names)}
    best, labels = [], []
    for photograph in photographs:
        if photograph.boxes:
            proposed = kept(photograph).proposals(PROPOSED).boxes
            best.append(overlaps(np.array([box for _, box in photograph.boxes]), proposed).max(1, initial=0.0))
            labels += [label_of[name] for name, _ in photograph.boxes]
    shares, of_class = np.concatenate(best), np.array(labels)
    hits = {"recall_50": shares >= 0.5, "recall_70": shares >= 0.7}
    hits["average_recall"] = np.mean([shares >= least for least in PROPOSED_OVERLAPS], 0)
    return {name: by_pictures(values.astype(float), of_class, weigh="pictures").numbers() for name, values in hits.items()}


# ---------------------------------------------------------------------------------------------------------------------- arms


def finder_of(wanted: str, config: Config, networks: dict[str, finders.Kept]) -> Finder:
    """An arm as `--model` names it. SystemExit for one that there is not."""
    if wanted in ("service", "quads"):
        return finders.Service(config.models, config.data.parent, detector=wanted == "service")
    if wanted == "ncc":
        return finders.Templates()
    kind, _, place = wanted.rpartition(":")
    if not place.endswith(".onnx") or kind not in KINDS or not Path(place).is_file():
        raise SystemExit(
            f"--model {wanted}: it is service, quads, ncc, or FILE.onnx, in-place:FILE.onnx or crops:FILE.onnx of a file there is"
        )
    try:
        kept = networks.setdefault(place, finders.Kept(finders.Network(Path(place), config.side_px)))
    except CorruptModelSet as error:
        raise SystemExit(f"--model {wanted}: {error}") from error
    if kind == "crops":
        return finders.Crops(kept, arms.shipped(config.models))
    return finders.RepMet(kept, finders.in_place if kind else finders.alone)


def named_finders(config: Config, networks: dict[str, finders.Kept]) -> dict[str, Finder]:
    """The arms of `--model`, by name."""
    found: dict[str, Finder] = {}
    for wanted in config.model.split(","):
        name, _, arm = wanted.strip().rpartition("=")
        kind, colon, place = arm.rpartition(":")
        name = name or f"{kind}{colon}{Path(place).stem}"  # results do not say where a file lay
        if name in found:
            raise SystemExit(f"--model: two are called {name}; NAME=… gives one another name")
        found[name] = finder_of(arm, config, networks)
    return found


def listed_episodes(config: Config) -> tuple[list[DetectEpisode], tuple[str, ...], str]:
    """Episodes, names of all classes, and the SHA-256 of the list."""
    photographs, plain = items.photographs_of(config.data), items.plain_photographs(config.data)
    names = episodes.class_names_of(photographs)
    way = len(names) if config.way == ALL else int(config.way)
    plan = DetectPlan(way, config.shot, config.queries, config.without)
    file = config.episode_list or config.out.with_suffix(".episodes")
    try:
        if config.episode_list is None or not file.exists():
            drawn = episodes.drawn_detect(
                photographs, plain, plan, count=config.episodes, seed=config.seed, pack=config.data.resolve().name
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(drawn, separators=(",", ":")) + "\n")
        listed, class_names = episodes.read_detect(file, config.data)
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"--data {config.data}, --episode-list {file}: {error}") from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if config.episode_list is None:
        file.unlink()
    listed = listed[: config.episodes]
    sizes = {(len(episode.shown), len(boxes)) for episode in listed for boxes in episode.shown.values()}
    if len(listed) < config.episodes or sizes != {(way, config.shot)}:
        raise SystemExit(f"--episode-list {file}: not {config.episodes} episodes of {way} classes, {config.shot} boxes of each")
    return listed, class_names, digest


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Boxes in whole photographs, with intervals.")
    networks: dict[str, finders.Kept] = {}
    if config.sheet and config.sheet.suffix != ".webp":
        raise SystemExit(f"--sheet {config.sheet}: its name ends in .webp")
    by_name = named_finders(config, networks)
    listed, class_names, digest = listed_episodes(config)
    looked: dict[str, list[Looked]] = {}
    figures: dict[str, Any] = {}
    for name, finder in by_name.items():
        looked[name] = look(finder, listed, name)
        print(name)
        ranking = ranking_of(looked[name], listed, class_names, least_overlap=OVERLAPS[0]).without_repeats()
        figures[name] = figures_of(looked[name], listed, class_names) | {
            "boxes": sum(len(one.found) for one in looked[name]),
            "curve": curve_of(ranking),
        }
    first, *others = looked
    if config.sheet:
        draw_sheet(looked[first], listed, class_names, config.sheet)
    asked = {photograph.id: photograph for episode in listed for photograph in episode.asked}
    result = {
        "task": config.out.stem, "pack": config.data.resolve().name, "shots": config.shot,
        "way": len(listed[0].shown), "classes": len(class_names), "episodes": len(listed),
        "photographs": len(looked[first]),
        "things": int(ranking_of(looked[first], listed, class_names, least_overlap=OVERLAPS[0]).truths.sum()),
        "episode_list_sha256": digest,
        "detect": figures,
        "differences": {f"{first} - {name}": difference_of(looked[first], looked[name], listed, class_names) for name in others},
        "proposals": {Path(place).stem: proposals_of(kept, asked.values(), class_names) for place, kept in networks.items()},
    }  # fmt: skip
    write_counted(config.out, result)

"""Few-shot accuracy on any pictures, of any networks: with intervals, unknown classes and calibration.

    python -m training evaluate classify --data DIR --model models,histogram,hog --out accuracy.json

`--data` is class folders, a pack or COCO annotations (`sources.py`). `--model` is what is compared, the first with each other
one: a model set's folder, an ONNX file, weights of the benchmark network (`arms.arm_at`), histogram, hog, random, teacher;
`NAME=PATH` names one. Every arm is asked the same episodes (`draws.py`) and scored by one rule, the nearest mean of supports by
cosine. A model set is scored once more by its own rule, by which it serves; its calibration error is of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training import run
from training.evaluate import arms, draws, sources
from training.evaluate.draws import EpisodeList, Plan, Population
from training.evaluate.embedded import Measured, embed_all, measured_arms, support_vectors, whole
from training.evaluate.intervals import Interval
from training.evaluate.items import AskedItem
from training.evaluate.near_duplicates import groups_of, perceptual_hashes
from training.evaluate.results import write_counted
from training.evaluate.rules import NearestMean
from training.evaluate.scored import Figures, Scored, calibration_of, score
from training.teacher import TEACHER

ALL = "all"
OWN_RULE = "own rule"


@dataclass(frozen=True)
class Config:
    data: Path = field(metadata={"help": "class folders, a pack (folder or zip), or COCO annotations"})
    model: str = field(
        metadata={"help": f"{', '.join(arms.NAMED)}, or PATH or NAME=PATH of a network; several by commas, the first is compared"}
    )
    out: Path = field(metadata={"help": "JSON with every figure"})
    split: str = field(default="", metadata={"help": "only this split of --data"})
    support: Path | None = field(default=None, metadata={"help": "where supports come from; queries are of --data"})
    support_split: str = field(default="", metadata={"help": "only this split of --support"})
    way: str = field(default="5", metadata={"help": f"classes of an episode, or {ALL}"})
    shot: int = field(default=1, metadata={"help": "pictures shown of each"})
    queries: int = field(default=15, metadata={"help": "pictures asked of each, or all that remain"})
    episodes: int = field(default=2000, metadata={"help": "drawn at random, or the first of --episode-list"})
    views: int = field(default=1, metadata={"help": "of each picture shown: it, and random crops; their mean is its embedding"})
    seed: int = field(default=draws.SEED, metadata={"help": "of the episodes"})
    episode_list: Path | None = field(default=None, metadata={"help": "file to read the episodes from; written if there is none"})
    skip_small: bool = field(default=False, metadata={"help": "leave out classes with too few photographs instead of ending"})
    teacher: Path | None = field(default=None, metadata={"help": f"ONNX file of that arm; else {TEACHER} beside --data"})


def gathered(config: Config) -> list[AskedItem]:
    """Items of `--data`, and of `--support`, if there is one; then the former are only asked and the latter only shown."""
    found = sources.read_items(sources.Source("--data", config.data, config.split))
    if config.support is None:
        return found
    shown = sources.read_items(sources.Source("--support", config.support, config.support_split))
    if not {item.class_name for item in shown} & {item.class_name for item in found}:
        raise SystemExit(f"--support {config.support}: it has no class of --data")
    asked = [replace(item, may_support=False) for item in found]
    names = {item.class_name for item in found}
    return asked + [replace(i, id=f"support/{i.id}", may_ask=False) for i in shown if i.class_name in names]


def usable_classes(population: Population, config: Config) -> np.ndarray:
    """Which classes can be known ones (classes,). SystemExit for one with too few photographs, unless they are to be skipped."""
    usable = draws.can_be_shown(population, config.shot)
    # What --support does not have at all can be unknown, and nothing is wrong with it.
    has_supports = np.array([len(shown) > 0 for shown in population.shown_of])
    small = np.flatnonzero(has_supports & ~usable)
    if len(small) and not config.skip_small:
        shown, in_all = draws.photographs_of(population, int(small[0]))
        raise SystemExit(
            f"--shot {config.shot}: class {population.class_names[small[0]]!r} has photographs: {shown} to show, {in_all} in all "
            f"(near duplicates are one); needed are {config.shot} to show and another to ask. So it is with {len(small)} of "
            f"{len(usable)} classes; --skip-small leaves them out"
        )
    return usable


def check_numbers(config: Config) -> None:
    """SystemExit, naming the flag, for a number that is too small."""
    for flag, lowest in (("shot", 1), ("queries", 1), ("episodes", 1), ("views", 1), ("seed", 0)):
        if getattr(config, flag) < lowest:
            raise SystemExit(f"--{flag} {getattr(config, flag)}: it is {lowest} or more")
    if config.way != ALL and not (config.way.isdecimal() and int(config.way) >= 2):
        raise SystemExit(f"--way {config.way}: it is 2 or more, or {ALL}")


def plan_of(config: Config, usable: int) -> Plan:
    """SystemExit for more classes than there are."""
    way = usable if config.way == ALL else int(config.way)
    if usable < max(2, way):
        raise SystemExit(f"--way {config.way}: {usable} classes have enough photographs, {max(2, way)} are needed")
    return Plan(way, config.shot, config.queries)


def listed_episodes(config: Config, population: Population, plan: Plan, usable: np.ndarray) -> EpisodeList:
    if config.episode_list is not None and config.episode_list.exists():
        try:
            return draws.read(config.episode_list, population, plan, count=config.episodes)
        except (OSError, ValueError) as error:
            raise SystemExit(f"--episode-list {config.episode_list}: {error}") from error
    try:
        listed = draws.draw(population, plan, usable=usable, count=config.episodes, seed=config.seed)
    except ValueError as error:
        raise SystemExit(f"--data {config.data}: {error}") from error
    if config.episode_list is not None:
        draws.write(listed, config.episode_list)
    return listed


def teacher_file(config: Config) -> Path:
    """The file of the arm `teacher`: as the flag says, or in the pack of it that lies beside `--data` or above."""
    places = [folder / TEACHER for folder in config.data.resolve().parents]
    return config.teacher or next((place for place in places if place.is_file()), places[0])


def evaluate(measured: Sequence[Measured], population: Population, listed: EpisodeList, *, views: int) -> dict[str, Any]:
    """Figures of every arm, and paired differences of the first and each other one."""
    items, figures = population.items, Figures(population, listed)
    shown, asked = draws.positions_in(listed.episodes)
    queries = embed_all(measured, items, np.union1d(shown, asked), whole)
    supports = support_vectors(measured, items, shown, queries, views)
    found: dict[str, Any] = {}
    pairs: dict[str, Any] = {}
    first: Scored | None = None
    for one, asked_as, shown_as in zip(measured, queries, supports, strict=True):
        scored = score(NearestMean(), population, listed, asked_as, shown_as)
        found[one.name] = figures.of(scored) | {"ece": None, "own_rule": None, "sha256": one.sha256}
        _print_line(one.name, found[one.name])
        if first is not None:
            pairs[f"{measured[0].name} - {one.name}"] = figures.difference(first, scored)
        first = first or scored
        if one.own_rule is not None:
            served = score(one.own_rule, population, listed, asked_as, shown_as)
            calibrated = calibration_of(served) if one.calibrated else {"ece": None}
            found[one.name] |= {"ece": calibrated["ece"], "own_rule": figures.of(served) | calibrated}
            _print_line(f"{one.name}, {OWN_RULE}", found[one.name]["own_rule"])
            pairs[f"{one.name}, {OWN_RULE} - {one.name}"] = figures.difference(served, scored)
    for pair, difference in pairs.items():
        _print_line(pair, difference)
    return {"classify": found, "differences": pairs}


def _print_line(name: str, figures: Mapping[str, Any]) -> None:
    titles = {"accuracy": "accuracy", "auroc": "AUROC", "fpr_at_95_tpr": "FPR at 95 % TPR"}
    parts = [f"{title} {Interval(**figures[key])}" for key, title in titles.items() if figures.get(key)]
    if figures.get("ece") is not None and "own_rule" not in figures:
        parts.append(f"ECE {100 * figures['ece']:.1f}")
    print(f"{name}:  " + "  ".join(parts), flush=True)


def about(config: Config, population: Population, plan: Plan, usable: np.ndarray, listed: EpisodeList) -> dict[str, Any]:
    """What was asked, in words that mean the same on another machine."""
    unknown = draws.unknown_classes(population, plan.way)
    there = sum(len(asked) > 0 for asked in population.asked_of)
    left_out = [name for name, can in zip(population.class_names, usable, strict=True) if not can]
    return {
        "data": config.data.resolve().name,
        "split": config.split or None,
        "support": None if config.support is None else config.support.resolve().name,
        "support_split": config.support_split or None,
        "classes": len(population.class_names),
        "never_known": left_out,
        "pictures": len(population.items),
        "photographs": len(np.unique(population.groups)),
        "way": plan.way,
        "shots": plan.shot,
        "queries": plan.queries,
        "views": config.views,
        "episodes": len(listed.episodes),
        "episode_list_sha256": listed.sha256,
        "unknown_classes": unknown or None,
        "no_unknown_classes_because": None
        if unknown
        else f"{plan.way} of {there} classes are known in each episode, so that {there - plan.way} are left and not {plan.way}",
    }


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Few-shot accuracy on any pictures, of any networks.")
    check_numbers(config)
    if config.out.is_dir():
        raise SystemExit(f"--out {config.out}: it is a folder, and a file is to be written")
    items = gathered(config)
    measured = measured_arms(config.model, items, teacher_file(config))  # what is not there is better known before the hours
    hashes = perceptual_hashes(tqdm(sources.decoded(items), desc="near duplicates", total=len(items), mininterval=5))
    population = draws.population_of(items, groups_of(items, hashes))
    usable = usable_classes(population, config)
    plan = plan_of(config, int(usable.sum()))
    listed = listed_episodes(config, population, plan, usable)
    asked = about(config, population, plan, usable, listed)
    print("{data}: {classes} classes, {pictures} pictures of {photographs} photographs".format(**asked))
    print("{way}-way {shots}-shot, {episodes} episodes, list {episode_list_sha256:.16}".format(**asked))
    if asked["no_unknown_classes_because"]:
        print(f"no unknown classes: {asked['no_unknown_classes_because']}")
    write_counted(config.out, asked | evaluate(measured, population, listed, views=config.views))

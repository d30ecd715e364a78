"""Few-shot accuracy on one committed episode list, with paired intervals: of vectors alone, and of the service.

    python -m training evaluate tasks --data DIR --task flickrlogos27-dev-1shot

Plain arms: one view a picture, cosine to the mean of the supports, each episode of the list; `served` is `shipped` with the class
models and thresholds of the service in place of the mean. Service arms: the use cases of the
service with FIRSTSIGHT_VERIFY=off, auto and always, in this process, the first episodes of the same list; top-1 is the first
candidate, accepted or not. Accuracy is the mean over classes. Each run scores a set once; each of its two result files counts how
often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.adapters.model_set import read_model_set
from app.adapters.networks import open_synthesizer
from app.domain.values import Answer, Upload
from training import run
from training.evaluate import arms, episodes, in_process, items
from training.evaluate.episodes import Episodes, EpisodeSet
from training.evaluate.intervals import Interval, by_pictures, class_means, two_level
from training.evaluate.results import kind_of, shares, write_counted
from training.evaluate.rules import NearestMean, Rule, Served

Rights = list[np.ndarray]  # by episode: 1 or 0 for each item of `Episodes.asked`, or a difference of two arms
SHIPPED, SERVED = "shipped", "served"
ALL = "all"


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "model set of the arm `shipped` and of the service"})
    task: str = field(default=ALL, metadata={"help": f"{ALL}, or one of " + ", ".join(wanted.name for wanted in episodes.SETS)})
    arms: str = field(
        default="served,shipped,teacher,hog,histogram,random",
        metadata={"help": "plain ones, the first compared with each other one; empty: none, and their result stays"},
    )
    service: str = field(
        default=",".join(in_process.ARMS), metadata={"help": "FIRSTSIGHT_VERIFY; empty: none, and their result stays"}
    )
    episodes: int = field(default=0, metadata={"help": "of plain arms: only the first so many; 0: all of the list"})
    service_episodes: int = field(default=20, metadata={"help": "of service arms: the first so many, or all of the list"})
    foreign: int = field(default=1000, metadata={"help": "foreign pictures asked of each service arm, over all episodes"})
    results: Path = field(default=Path("docs/accuracy"), metadata={"help": "folder for JSON with every figure"})


def plain_rights(vectors: np.ndarray, listed: Episodes, count: int, rule: Rule) -> Rights:
    """Right or not, for each asked item of the first episodes."""
    rights = []
    for episode in range(count):
        asked = listed.asked(episode)
        scores = rule.enrol(vectors, listed.supports[episode])(vectors[asked])
        rights.append((scores.argmax(1) == listed.labels(asked)).astype(np.float64))
    return rights


def served_rule(models: Path) -> Served:
    loaded = read_model_set(models)
    return Served(loaded.model_set, open_synthesizer(loaded))


def by_class(listed: Episodes, rights: Rights) -> np.ndarray:
    """Accuracy of each class in each episode (episodes, classes)."""
    labels = [listed.labels(listed.asked(episode)) for episode in range(len(rights))]
    found = class_means(rights, labels, len(listed.class_names))
    # A class whose every photograph is among the supports has nothing to ask: its mean over the other episodes stands in.
    return np.where(np.isnan(found), np.nanmean(found, 0), found)


def interval_of(listed: Episodes, rights: Rights) -> Interval:
    """Over classes and episodes; where there is one episode only, over classes and the pictures within each."""
    if len(rights) == 1:
        return by_pictures(rights[0], listed.labels(listed.asked(0)), weigh="classes")
    return two_level(by_class(listed, rights))


def difference(one: Rights, other: Rights) -> Rights:
    """Paired: of the same items of the same episodes, as many as both have."""
    return [a - b for a, b in zip(one, other, strict=False)]


@dataclass(frozen=True)
class Asked:
    """What the service answered, episode by episode."""

    answers: list[list[Answer]]  # in the order of `Episodes.asked`
    foreign: list[list[Answer]]


async def ask_service(
    config: Config, adapters: in_process.Adapters, listed: Episodes, uploads: Sequence[Upload], foreign: Sequence[Upload]
) -> dict[str, Asked]:
    """Each arm on the first episodes. What the first arm enrols the others find in the store, as after a start."""
    names = config.service.split(",")
    found = {name: Asked([], []) for name in names}
    count = min(config.service_episodes, len(listed.supports))
    for episode, strangers in zip(range(count), np.array_split(np.arange(config.foreign), count), strict=True):
        filled = in_process.emptied(adapters)
        supports = zip(listed.class_names, listed.supports[episode], strict=True)
        shown = {name: [uploads[position] for position in positions] for name, positions in supports}
        for name in names:
            async with in_process.serving(filled, name) as use_cases:
                if name == names[0]:
                    await in_process.enrol_all(use_cases, shown)
                asked = [uploads[position] for position in listed.asked(episode)]
                found[name].answers.append(await in_process.ask_all(use_cases, asked))
                questions = [foreign[number % len(foreign)] for number in strangers]
                found[name].foreign.append(await in_process.ask_all(use_cases, questions))
        print(f"episode {episode + 1} of {count}", flush=True)
    return found


def service_rights(listed: Episodes, asked: Asked) -> Rights:
    """Whether the first candidate is right."""
    return [
        np.array([answer.candidates[0].class_name == truth for answer, truth in zip(answers, truths, strict=True)], np.float64)
        for answers, truths in zip(asked.answers, _truths(listed, len(asked.answers)), strict=True)
    ]


def answer_shares(listed: Episodes, asked: Asked) -> dict[str, float]:
    truths = _truths(listed, len(asked.answers))
    both = [pair for e, answers in enumerate(asked.answers) for pair in zip(answers, truths[e], strict=True)]
    return shares(kind_of(answer, truth) for answer, truth in both)


def _truths(listed: Episodes, count: int) -> list[list[str]]:
    return [[listed.items[position].class_name for position in listed.asked(episode)] for episode in range(count)]


def evaluate_plain(config: Config, listed: Episodes, uploads: Sequence[Upload]) -> dict[str, Any]:
    pictures, names = items.pictures_of(uploads), config.arms.split(",")
    rights = {}
    for name in names:
        vectors = arms.arm(name, models=config.models, folder=config.data, pictures=pictures)(pictures)
        rule = served_rule(config.models) if name == SERVED else NearestMean()
        rights[name] = plain_rights(vectors, listed, config.episodes or len(listed.supports), rule)
        print(f"{name:>10}  {interval_of(listed, rights[name])}", flush=True)
    pairs = {f"{names[0]} - {other}": difference(rights[names[0]], rights[other]) for other in names[1:]}
    return {
        "arms": {name: interval_of(listed, right).numbers() for name, right in rights.items()},
        "differences": _printed(listed, pairs),
        "episodes": len(rights[names[0]]),
    }


def evaluate_service(
    config: Config, adapters: in_process.Adapters, listed: Episodes, uploads: Sequence[Upload]
) -> dict[str, Any]:
    foreign = items.uploads_of(_mixed(items.foreign_items(config.data, _pack_of(listed))), config.data)
    found = asyncio.run(ask_service(config, adapters, listed, uploads, foreign))
    rights = {name: service_rights(listed, asked) for name, asked in found.items()}
    count = len(next(iter(rights.values())))
    vectors = arms.shipped(config.models)(items.pictures_of(uploads))
    rights[SHIPPED] = plain_rights(vectors, listed, count, NearestMean())
    wanted = (("always", "off"), ("auto", "off"), ("always", SHIPPED))
    pairs = {f"{a} - {b}": difference(rights[a], rights[b]) for a, b in wanted if a in rights and b in rights}
    figures = {}
    for name, asked in found.items():
        strangers = [answer for answers in asked.foreign for answer in answers]
        figures[name] = {
            "top_1": interval_of(listed, rights[name]).numbers(),
            "answers": answer_shares(listed, asked),
            "foreign": shares(kind_of(answer, None) for answer in strangers),
        }
        print(f"{name:>10}  {figures[name]}", flush=True)
    return {
        "service": figures,
        "differences": _printed(listed, pairs),
        "foreign": {"packs": items.foreign_packs(_pack_of(listed)), "pictures": min(config.foreign, len(foreign))},
        "episodes": count,
    }


def _pack_of(listed: Episodes) -> str:
    return listed.class_names[0].split("/", 1)[0]


def _mixed(foreign: list[items.AskedItem]) -> list[items.AskedItem]:
    """In an order in which any first few are of all packs."""
    return [foreign[position] for position in np.random.default_rng(0).permutation(len(foreign))]


def _printed(listed: Episodes, pairs: Mapping[str, Rights]) -> dict[str, dict[str, float]]:
    intervals = {pair: interval_of(listed, rights) for pair, rights in pairs.items()}
    for pair, interval in intervals.items():
        print(f"{pair}: {interval}")
    return {pair: interval.numbers() for pair, interval in intervals.items()}


def score(config: Config, wanted: EpisodeSet, adapters: in_process.Adapters | None) -> None:
    """One task, and its result files."""
    listed = episodes.read(wanted, config.data / wanted.pack)
    uploads = items.uploads_of(listed.items, config.data)
    about = {"task": wanted.name, "pack": wanted.pack, "part": wanted.part, "way": len(listed.class_names), "shots": wanted.shots}
    print(f"{wanted.name}: {len(listed.class_names)} classes", flush=True)
    if config.arms:
        write_counted(config.results / f"{wanted.name}.json", about | evaluate_plain(config, listed, uploads))
    if adapters is not None:
        result = evaluate_service(config, adapters, listed, uploads)
        write_counted(config.results / f"service-{wanted.name}.json", about | result)


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Few-shot accuracy with paired intervals.")
    chosen = episodes.SETS if config.task == ALL else (episodes.set_called(config.task),)
    adapters = in_process.open_cached(config.models) if config.service else None
    for wanted in chosen:
        score(config, wanted, adapters)

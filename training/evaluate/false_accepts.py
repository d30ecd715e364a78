"""What is matched of pictures that show nothing enrolled, with ten, a hundred and a thousand classes enrolled.

    python -m training evaluate false-accepts --data DIR --task grozi120-dev-5shot

Classes of a pack are enrolled with the first 1, 2 and 5 pictures of the committed episodes, and package fronts beside them, one
picture each, until there are so many classes; the whole pack's classes at most, and fewer where fewer are wanted. Asked are the
pack's other pictures, and foreign ones: whole photographs (`items.foreign_items`) and boxes cut out of some (`foreign_crops`).
Through the service's own use cases in this process. Thresholds are derived for a stated rate, `calibration.target_far`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.adapters.model_set import read_model_set
from app.domain.values import Answer, Upload
from training import run
from training.evaluate import episodes, in_process, items
from training.evaluate.episodes import Episodes
from training.evaluate.intervals import Interval, by_pictures, over_episodes
from training.evaluate.results import kind_of, shares, write_counted

CLASSES = (10, 100, 1000)
SHOTS = (1, 2, 5)


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "model set of the service"})
    task: str = field(default="grozi120-dev-5shot", metadata={"help": "a committed list of five shots"})
    service: str = field(default="auto", metadata={"help": "FIRSTSIGHT_VERIFY"})
    episodes: int = field(default=2, metadata={"help": "of the list: the first so many"})
    crops: int = field(default=500, metadata={"help": "foreign boxes, spread over what there is"})
    sample: int = field(
        default=0, metadata={"help": "only so many foreign pictures, and no result: to see that it works; 0: all"}
    )
    results: Path = field(default=Path("docs/accuracy"), metadata={"help": "folder for JSON with every figure"})


@dataclass(frozen=True)
class Asked:
    """Everything that is shown or asked, as a person would send it."""

    listed: Episodes
    uploads: list[Upload]  # of listed.items
    beside: dict[str, Upload]  # fronts by class name
    foreign: list[Upload]


@dataclass(frozen=True)
class Answered:
    """Of one number of classes and shots, episode by episode: each picture's truth (None: foreign), and the answer."""

    truths: list[list[str]]
    answers: list[list[Answer]]
    foreign: list[list[Answer]]


def enrolled_names(listed: Episodes, count: int, episode: int) -> list[str]:
    """At most `count` classes of the pack, drawn anew in each episode."""
    drawn = np.random.default_rng(episode).permutation(len(listed.class_names))[:count]
    return [listed.class_names[number] for number in sorted(drawn.tolist())]


async def ask(config: Config, adapters: in_process.Adapters, asked: Asked, *, classes: int, shots: int) -> Answered:
    found = Answered([], [], [])
    for episode in range(config.episodes):
        names = enrolled_names(asked.listed, classes, episode)
        supports = dict(zip(asked.listed.class_names, asked.listed.supports[episode], strict=True))
        shown = {name: [asked.uploads[position] for position in supports[name][:shots]] for name in names}
        fronts = list(asked.beside.items())[: classes - len(names)]
        positions = asked.listed.asked(episode)
        own = [p for p in positions if asked.listed.items[p].class_name in shown]
        async with in_process.serving(in_process.emptied(adapters), config.service) as use_cases:
            await in_process.enrol_all(use_cases, shown | {name: [upload] for name, upload in fronts})
            found.truths.append([asked.listed.items[p].class_name for p in own])
            found.answers.append(await in_process.ask_all(use_cases, [asked.uploads[p] for p in own]))
            found.foreign.append(await in_process.ask_all(use_cases, asked.foreign))
    return found


def figures_of(found: Answered, class_names: Sequence[str]) -> dict[str, Any]:
    """Shares of pictures of what is enrolled, and of foreign ones, of which each is resampled with all its answers."""
    kinds = [
        [kind_of(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
        for answers, truths in zip(found.answers, found.truths, strict=True)
    ]
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = [np.array([label_of[truth] for truth in truths]) for truths in found.truths]
    rights = [np.array([kind == "right" for kind in own], np.float64) for own in kinds]
    foreign = [[kind_of(answer, None) for answer in answers] for answers in found.foreign]
    matched = (np.array(foreign) == "wrong").mean(0)  # of each picture
    return {
        "accepted_right": over_episodes(rights, labels, len(class_names)).numbers(),
        "answers": shares(kind for own in kinds for kind in own),
        "foreign_matched": by_pictures(matched, np.arange(len(matched)), weigh="pictures").numbers(),
        "foreign": shares(kind for own in foreign for kind in own),
    }


def read(config: Config) -> Asked:
    """ValueError when a pack is not the one that the list was drawn from."""
    wanted = episodes.set_called(config.task)
    listed = episodes.read(wanted, config.data / wanted.pack)
    fronts = items.package_fronts(config.data / "package-fronts")
    drawn = [fronts[position] for position in np.random.default_rng(0).permutation(len(fronts))[: max(CLASSES)]]
    foreign = [
        *items.foreign_items(config.data, wanted.pack),
        *items.foreign_crops(config.data, config.crops),
    ]
    if config.sample:
        foreign = foreign[:: max(1, len(foreign) // config.sample)]
    return Asked(
        listed,
        items.uploads_of(listed.items, config.data),
        dict(zip([item.id for item in drawn], items.uploads_of(drawn, config.data), strict=True)),
        items.uploads_of(foreign, config.data),
    )


def evaluate(config: Config, adapters: in_process.Adapters, asked: Asked) -> list[dict[str, Any]]:
    rows = []
    for classes in CLASSES:
        for shots in SHOTS:
            found = figures_of(asyncio.run(ask(config, adapters, asked, classes=classes, shots=shots)), asked.listed.class_names)
            rows.append({"classes": classes, "shots": shots} | found)
            right, matched = (Interval(**found[key]) for key in ("accepted_right", "foreign_matched"))
            print(f"{classes:>5} classes, {shots} shots: accepted and right {right}, foreign matched {matched}", flush=True)
    return rows


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="What is matched of pictures of nothing enrolled.")
    wanted, asked = episodes.set_called(config.task), read(config)
    rows = evaluate(config, in_process.open_cached(config.models), asked)
    if config.sample:
        return
    about = {
        "pack": wanted.pack, "service_verify": config.service, "episodes": config.episodes,
        "target_far": read_model_set(config.models).model_set.calibration.target_far,
        "foreign_packs": items.foreign_packs(wanted.pack), "crops_of": items.CROPPED,
        "foreign_pictures": len(asked.foreign), "foreign_crops": sum(upload.box is not None for upload in asked.foreign),
    }  # fmt: skip
    write_counted(config.results / f"false-accepts-{wanted.pack}.json", about | {"false_accepts": rows})

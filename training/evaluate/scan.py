"""Scan to photograph: one clean picture of each printed thing enrolled among thousands of others, photographs of them asked.

    python -m training evaluate scan --data DIR

241 objects of `object-views-dev` beside all package fronts, through the service's own use cases in this process, with
FIRSTSIGHT_VERIFY=auto, always and off; and pictures of nothing enrolled. It leaves `quads.png` and `quads.json` in the run
folder: where accepted things were seen, to be looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.values import Answer, Upload
from training import run
from training.evaluate import episodes, in_process, items
from training.evaluate.episodes import Scan
from training.evaluate.intervals import Interval, by_pictures, interval_around, resampled
from training.evaluate.items import AskedItem
from training.evaluate.quad_sheet import Seen, write_sheet
from training.evaluate.results import kind_of, shares, write_counted

FOREIGN_RATE = 0.01  # the stated false-accept rate
RATES = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1)  # of the trade-off
PAIRS = (("always", "off"), ("auto", "off"), ("always", "auto"))
SHOWN_QUADS = 100


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "model set of the service"})
    service: str = field(default="auto,always,off", metadata={"help": "FIRSTSIGHT_VERIFY; quads are drawn of the first"})
    sample: int = field(
        default=0, metadata={"help": "only so many pictures of each kind, and no result: to see that it works; 0: all"}
    )
    run: Path = field(default=Path("runs/scan"), metadata={"help": "folder for the drawn quads"})
    results: Path = field(default=Path("docs/accuracy"), metadata={"help": "folder for JSON with every figure"})


@dataclass(frozen=True)
class Answered:
    """What one setting of the service said of the asked and of the foreign pictures."""

    asked: list[Answer]
    foreign: list[Answer]


async def ask_service(config: Config, adapters: in_process.Adapters, scan: Scan) -> dict[str, Answered]:
    """What the first setting enrols the others find in the store, as after a start."""
    enrolled = (*scan.scans, *scan.beside)
    shown = {item.class_name: [upload] for item, upload in zip(enrolled, items.uploads_of(enrolled, config.data), strict=True)}
    asked, foreign = (items.uploads_of(part, config.data) for part in (scan.asked, scan.foreign))
    filled, found = in_process.emptied(adapters), dict[str, Answered]()
    for name in config.service.split(","):
        async with in_process.serving(filled, name) as use_cases:
            if not found:
                await in_process.enrol_all(use_cases, shown)
                print(f"{len(shown)} enrolled", flush=True)
            found[name] = Answered(*[await in_process.ask_all(use_cases, part) for part in (asked, foreign)])
    return found


@dataclass(frozen=True)
class Scored:
    """Answers as numbers, of n asked and m foreign pictures."""

    top_1: np.ndarray  # (n,) 1 where the first candidate is right
    kinds: np.ndarray  # (n,) of results.ANSWERS
    probabilities: np.ndarray  # (n,) of the first candidate
    foreign: np.ndarray  # (m,) likewise
    foreign_kinds: np.ndarray  # (m,)
    objects: np.ndarray  # (n,) class
    sources: np.ndarray  # (n,)

    def is_kind(self, kind: str) -> np.ndarray:
        return (self.kinds == kind).astype(np.float64)


def scored(scan: Scan, answered: Answered) -> Scored:
    truths = [item.class_name for item in scan.asked]
    firsts = [answer.candidates[0] for answer in answered.asked]
    return Scored(
        top_1=np.array([first.class_name == truth for first, truth in zip(firsts, truths, strict=True)], np.float64),
        kinds=np.array([kind_of(answer, truth) for answer, truth in zip(answered.asked, truths, strict=True)]),
        probabilities=np.array([first.probability for first in firsts]),
        foreign=np.array([answer.candidates[0].probability for answer in answered.foreign]),
        foreign_kinds=np.array([kind_of(answer, None) for answer in answered.foreign]),
        objects=np.array(truths),
        sources=np.array([items.source_of(item) for item in scan.asked]),
    )


def line_at(foreign: np.ndarray, rate: float) -> float:
    """The probability that `rate` of the foreign pictures, or a little less, lie above."""
    return float(np.sort(foreign)[::-1][int(rate * len(foreign))])


def accepted_at(found: Scored, rate: float) -> dict[str, float]:
    """Were the first candidate accepted above the line: the shares accepted with the right class and with another."""
    above = found.probabilities > line_at(found.foreign, rate)
    return {"foreign": rate, "right": float((above * found.top_1).mean()), "wrong": float((above * (1 - found.top_1)).mean())}


def right_at_rate(found: Scored, rate: float) -> Interval:
    """Over objects, their pictures and foreign pictures: the line is drawn anew in each resample."""
    lines = _resampled_lines(found.foreign, rate)

    def right(positions: np.ndarray, _: np.ndarray) -> float:
        return float((found.top_1[positions] * (found.probabilities[positions] > next(lines))).mean())

    return interval_around(accepted_at(found, rate)["right"], resampled(found.objects, right))


def _resampled_lines(foreign: np.ndarray, rate: float) -> Iterator[float]:
    rng = np.random.default_rng(1)
    while True:
        yield line_at(foreign[rng.integers(len(foreign), size=len(foreign))], rate)


def over_pictures(values: np.ndarray, found: Scored) -> dict[str, float]:
    """Mean over pictures; objects are resampled, then the pictures of each."""
    return by_pictures(values, found.objects, weigh="pictures").numbers()


def figures_of(found: Scored) -> dict[str, Any]:
    by_source = {}
    for source in np.unique(found.sources).tolist():
        mine = found.sources == source
        by_source[source] = {"pictures": int(mine.sum()), "top_1": round(float(found.top_1[mine].mean()), 4)} | shares(
            found.kinds[mine]
        )
    return {
        "top_1": over_pictures(found.top_1, found),
        "accepted_right": over_pictures(found.is_kind("right"), found),
        "accepted_wrong": over_pictures(found.is_kind("wrong"), found),
        "answers": shares(found.kinds),
        "foreign": shares(found.foreign_kinds),
        "right_at_1_percent": right_at_rate(found, FOREIGN_RATE).numbers(),
        "trade_off": [{name: round(share, 4) for name, share in accepted_at(found, rate).items()} for rate in RATES],
        "by_source": by_source,
    }


def seen_of(scan: Scan, answered: Answered, folder: Path) -> list[Seen]:
    """Accepted answers with a quad, in an order drawn once."""
    enrolled = {item.class_name: item for item in (*scan.scans, *scan.beside)}
    accepted = [(item, answer) for item, answer in zip(scan.asked, answered.asked, strict=True) if quad_of(answer) is not None]
    chosen = [accepted[position] for position in np.random.default_rng(0).permutation(len(accepted))[:SHOWN_QUADS]]
    asked = _pictures([item for item, _ in chosen], folder)
    shown = _pictures([enrolled[str(answer.decision)] for _, answer in chosen], folder)
    return [
        Seen(item.id, str(answer.decision), answer.decision == item.class_name, quad_of(answer) or (), picture, example)
        for (item, answer), picture, example in zip(chosen, asked, shown, strict=True)
    ]


def _pictures(found: Sequence[AskedItem], folder: Path) -> list[Any]:
    uploads: list[Upload] = items.uploads_of(found, folder)
    return items.pictures_of(uploads)


def quad_of(answer: Answer) -> tuple[tuple[float, float], ...] | None:
    """Where the matched example lies in the asked picture, in its pixels; None without a match or without a proof."""
    for candidate in answer.candidates:
        if candidate.class_name == answer.decision:
            return next((shown.verified.quad for shown in candidate.evidence if shown.verified is not None), None)
    return None


def sampled(scan: Scan, count: int) -> Scan:
    """So many of each kind; of what is asked, what is enrolled too."""
    scans = scan.scans[:: max(1, len(scan.scans) // count)][:count]
    names = {item.class_name for item in scans}
    asked = tuple(item for item in scan.asked if item.class_name in names)
    return Scan(scans, scan.beside[:count], asked[:count], scan.foreign[:: max(1, len(scan.foreign) // count)][:count])


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="From a clean scan to photographs, with intervals.")
    scan = episodes.read_scan(config.data)
    if config.sample:
        scan = sampled(scan, config.sample)
    answered = asyncio.run(ask_service(config, in_process.open_cached(config.models), scan))
    found = {name: scored(scan, each) for name, each in answered.items()}
    figures = {name: figures_of(each) for name, each in found.items()}
    pairs = [(a, b) for a, b in PAIRS if a in found and b in found]
    result = {
        "task": "scan",
        "enrolled": len(scan.scans) + len(scan.beside), "objects": len(scan.scans), "asked": len(scan.asked),
        "foreign": {"packs": items.foreign_packs(), "pictures": len(scan.foreign)},
        "scan": figures,
        "differences": {f"{a} - {b}": over_pictures(found[a].top_1 - found[b].top_1, found[a]) for a, b in pairs},
    }  # fmt: skip
    for name, each in figures.items():
        print(name, {key: value for key, value in each.items() if key != "by_source"})
    first = next(iter(answered))
    write_sheet(seen_of(scan, answered[first], config.data), config.run)
    if not config.sample:
        write_counted(config.results / "scan.json", result)

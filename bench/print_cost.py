"""What verification of print costs: classification with it over without it, and a vote among 10,000 classes over one among 1,000.

Everything on one core, in one run, by turns. The classes are strangers whose points lie about the words of the code book, and the
brands of the demo, of which photographs are asked, and a brand that nobody enrolled.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from app.adapters.index_faiss import FaissPointIndex
from app.adapters.local_features import SiftPoints
from app.adapters.model_set import LoadedModelSet, read_model_set
from app.adapters.records import encode_change
from app.domain.changes import Snapshot
from app.domain.prints import CodeBook, Prints
from app.domain.values import ClassState, Points, Upload
from app.main import Adapters
from app.service.classify import Classify
from app.service.pools import Deadline
from app.service.verify import VOTED
from app.settings import Settings
from bench.crowd import fill, stranger
from bench.figures import Figure, median_ratio, percentiles
from bench.in_process import in_process
from demo.brands import ENROLLED, STRANGER
from demo.scenes import SCENES, as_jpeg, photograph

CLASSES, FEW, MANY = 1_000, 1_000, 10_000
ROUNDS = 3
MODES: tuple[Literal["off", "auto", "always"], ...] = ("off", "auto", "always")


def measure() -> list[Figure]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        loaded = read_model_set(Settings().models_dir)
        asked = (*ENROLLED, STRANGER)
        pictures = [as_jpeg(photograph(scene, brand.mark(), seed=1)) for brand in asked for scene in SCENES]
        return [*asyncio.run(classifications(pictures)), *votes(loaded), bytes_of_an_example(loaded)]
    finally:
        os.sched_setaffinity(0, cores)


async def classifications(pictures: Sequence[bytes]) -> list[Figure]:
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    async with AsyncExitStack() as stack:
        classify = {mode: await stack.enter_async_context(filled(mode)) for mode in MODES}
        for number, picture in enumerate(pictures * ROUNDS):
            for turn in range(len(MODES)):
                mode = MODES[(number + turn) % len(MODES)]  # so that none always finds the caches as another left them
                began = time.perf_counter()
                await classify[mode](Upload(picture), top_k=5, classes=None, deadline=Deadline.never())
                seconds[mode].append(time.perf_counter() - began)
    return [
        median_ratio("classify, VERIFY=always over off", seconds["always"], seconds["off"], unit="x time", goal="<= 4"),
        median_ratio("classify, VERIFY=auto over off", seconds["auto"], seconds["off"], unit="x time", goal="<= 1.5"),
        *(figure for mode in MODES for figure in percentiles(f"classify, VERIFY={mode}", seconds[mode])),
    ]


@asynccontextmanager
async def filled(mode: Literal["off", "auto", "always"]) -> AsyncIterator[Classify]:
    """The use case over `CLASSES` classes, those of the demo among them."""
    async with in_process("memory://", verify=mode, fill=lambda adapters: fill_with(adapters, CLASSES)) as (service, _):
        for brand in ENROLLED:
            picture = [Upload(as_jpeg(photograph(SCENES[0], brand.mark(), seed=0)))]
            await service.use_cases.enrol(brand.name, picture, dry_run=False, deadline=Deadline.never())
        yield service.use_cases.classify


def fill_with(adapters: Adapters, count: int) -> None:
    fill(adapters.store, adapters.model_set, count, adapters.words)


def votes(loaded: LoadedModelSet) -> list[Figure]:
    find_points, asked = SiftPoints(loaded.points), []
    for brand in ENROLLED:
        asked += [find_points(np.asarray(photograph(scene, brand.mark(), seed=1)), sharpen=True) for scene in SCENES]
    galleries = {count: prints_of(loaded, count) for count in (FEW, MANY)}
    seconds: dict[int, list[float]] = {FEW: [], MANY: []}
    for number, points in enumerate(asked * ROUNDS):
        for count in (FEW, MANY) if number % 2 else (MANY, FEW):
            began = time.perf_counter()
            galleries[count].vote(points, VOTED)
            seconds[count].append(time.perf_counter() - began)
    return [
        median_ratio(f"vote, {MANY:,} over {FEW:,} classes", seconds[MANY], seconds[FEW], unit="x time", goal="<= 3"),
        *(figure for count in (FEW, MANY) for figure in percentiles(f"vote, {count:,} classes", seconds[count])),
    ]


def prints_of(loaded: LoadedModelSet, count: int) -> Prints:
    changes = (stranger(f"class {number:05}", loaded.model_set, loaded.points.words, seed=number) for number in range(count))
    states = tuple(ClassState(change.class_name, 1, change.examples, change.model) for change in changes)
    words = loaded.points.words
    empty = Prints(loaded.model_set.provenance.points, CodeBook(words), partial(FaissPointIndex, words=len(words)))
    return empty.from_snapshot(Snapshot(1, states))


def bytes_of_an_example(loaded: LoadedModelSet) -> Figure:
    change = stranger("one", loaded.model_set, loaded.points.words, seed=0)
    (example,) = change.examples
    without = replace(change, examples=(replace(example, points=Points.none()),))
    return Figure(
        f"points of an example, {len(example.points)} of them, in a change",
        (len(encode_change(change)) - len(encode_change(without))) / 1000,
        "kB",
        "<= 48",
    )

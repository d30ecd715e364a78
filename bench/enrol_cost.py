"""Does an enrolment cost more among 10,000 classes than among 10?

Both collections are SQLite files; the same pictures are enrolled into one and the other by turns, by the use case itself, so that
decoding, network, search, fsynced commit and fold are all in. The other ratio leaves the picture out: commit and fold alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from app.adapters.index_faiss import FaissIndex, FaissPointIndex
from app.adapters.model_set import LoadedModelSet, read_model_set
from app.adapters.store_sqlite import SqliteStore
from app.domain.prints import CodeBook, Prints
from app.domain.values import Upload
from app.service.enrol import Enrol
from app.service.follow import Galleries
from app.service.pools import Deadline
from app.settings import Settings
from bench.crowd import fill, stranger
from bench.figures import Figure, median_ratio, percentiles
from bench.in_process import in_process
from demo.brands import ENROLLED
from demo.scenes import SCENES, as_jpeg, photograph

FEW, MANY = 10, 10_000
ROUNDS = 200


def measure() -> list[Figure]:
    loaded = read_model_set(Settings().models_dir)
    with TemporaryDirectory() as folder:
        files = {count: Path(folder) / f"{count}.db" for count in (FEW, MANY)}
        return [*commits(files, loaded), *asyncio.run(enrolments(files))]


def commits(files: Mapping[int, Path], loaded: LoadedModelSet) -> list[Figure]:
    """Fills the files, then commits to them and folds."""
    model_set, words = loaded.model_set, loaded.points.words
    stores = {count: SqliteStore(path) for count, path in files.items()}
    with ThreadPoolExecutor(1) as background:
        galleries = {}
        for count, store in stores.items():
            fill(store, model_set, count, words)
            galleries[count] = Galleries(
                store,
                make_index=FaissIndex,
                networks=model_set.provenance.networks,
                prints=Prints(model_set.provenance.points, CodeBook(words), partial(FaissPointIndex, words=len(words))),
                in_background=background.submit,
            )
            galleries[count].start()
        seconds: dict[int, list[float]] = {FEW: [], MANY: []}
        for number in range(ROUNDS):
            change = stranger(f"stranger {number}", model_set, words, seed=MANY + number)
            for count in in_turn(number):
                started = time.perf_counter()
                stores[count].commit(change, expected=0, crops={})
                galleries[count].advance()
                seconds[count].append(time.perf_counter() - started)
    for store in stores.values():
        store.close()
    return compared("commit and fold alone", seconds, goal="")


async def enrolments(files: Mapping[int, Path]) -> list[Figure]:
    pictures = [as_jpeg(photograph(scene, brand.mark(), seed=0)) for brand in ENROLLED for scene in SCENES]
    seconds: dict[int, list[float]] = {FEW: [], MANY: []}
    async with in_process(f"sqlite:///{files[FEW]}") as (few, _), in_process(f"sqlite:///{files[MANY]}") as (many, _):
        enrol = {FEW: few.use_cases.enrol, MANY: many.use_cases.enrol}
        for number in range(ROUNDS):
            for count in in_turn(number):
                seconds[count].append(await enrolled(enrol[count], f"new {number}", pictures[number % len(pictures)]))
    return compared("enrolment", seconds, goal="<= 1.2")


async def enrolled(enrol: Enrol, class_name: str, picture: bytes) -> float:
    started = time.perf_counter()
    await enrol(class_name, [Upload(picture)], dry_run=False, deadline=Deadline.never())
    return time.perf_counter() - started


def in_turn(number: int) -> tuple[int, int]:
    """Who goes first changes, so that neither always finds the caches as the other left them."""
    return (FEW, MANY) if number % 2 else (MANY, FEW)


def compared(what: str, seconds: Mapping[int, list[float]], *, goal: str) -> list[Figure]:
    return [
        median_ratio(f"{what}, {MANY:,} over {FEW} classes", seconds[MANY], seconds[FEW], unit="x time", goal=goal),
        *percentiles(f"{what}, {FEW} classes", seconds[FEW]),
        *percentiles(f"{what}, {MANY:,} classes", seconds[MANY]),
    ]

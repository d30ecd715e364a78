"""Does an enrolment cost more among 10,000 classes than among 10?

Both collections are SQLite files; the same pictures are enrolled into one and the other by turns, by the use case itself, so that
decoding, network, search, fsynced commit and fold are all in. The last ratio leaves the picture out: commit and fold alone.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from app.adapters.store_sqlite import SqliteStore
from app.domain.values import Upload
from app.service.pools import Deadline
from bench.crowd import fill, stranger
from bench.figures import Figure, median_ratio, percentiles
from bench.in_process import InProcess, in_process
from demo.brands import ENROLLED
from demo.scenes import SCENES, as_jpeg, photograph

FEW, MANY = 10, 10_000
ROUNDS = 200


def measure() -> list[Figure]:
    with TemporaryDirectory() as folder:
        few, many = (collection_of(Path(folder) / f"{count}.db", count) for count in (FEW, MANY))
        return asyncio.run(compare(few, many))


def collection_of(path: Path, count: int) -> InProcess:
    store = SqliteStore(path)
    fill(store, count)
    return in_process(store)


async def compare(few: InProcess, many: InProcess) -> list[Figure]:
    pictures = [as_jpeg(photograph(scene, brand.mark(), seed=0)) for brand in ENROLLED for scene in SCENES]
    enrolled: dict[InProcess, list[float]] = {few: [], many: []}
    committed: dict[InProcess, list[float]] = {few: [], many: []}
    for number in range(ROUNDS):
        for side in (few, many) if number % 2 else (many, few):
            enrolled[side].append(await enrol(side, f"new {number}", pictures[number % len(pictures)]))
            committed[side].append(await commit(side, f"stranger {number}", seed=MANY + number))
    return [
        median_ratio(f"enrol, {MANY:,} over {FEW} classes", enrolled[many], enrolled[few], unit="x time", goal="<= 1.2"),
        *percentiles(f"enrol, {FEW} classes", enrolled[few]),
        *percentiles(f"enrol, {MANY:,} classes", enrolled[many]),
        median_ratio(f"commit and fold alone, {MANY:,} over {FEW}", committed[many], committed[few], unit="x time", goal=""),
        *percentiles(f"commit and fold alone, {MANY:,} classes", committed[many]),
    ]


async def enrol(side: InProcess, class_name: str, picture: bytes) -> float:
    started = time.perf_counter()
    await side.enrol(class_name, [Upload(picture)], dry_run=False, deadline=Deadline.never())
    return time.perf_counter() - started


async def commit(side: InProcess, class_name: str, *, seed: int) -> float:
    change = stranger(class_name, seed=seed)
    started = time.perf_counter()
    await side.collection.commit(change, expected=0, deadline=Deadline.never())
    return time.perf_counter() - started

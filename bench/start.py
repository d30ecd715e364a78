"""How long does the service take to be ready, and how much memory does it hold then?"""

from __future__ import annotations

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from app.adapters.model_set import read_model_set
from app.adapters.store_sqlite import SqliteStore
from app.settings import Settings
from bench.crowd import fill
from bench.figures import Figure
from demo.server import Server, serving

STARTS = 5


def measure() -> list[Figure]:
    with TemporaryDirectory() as folder:
        return [figure for count in (0, 10_000) for figure in starts_with(Path(folder) / f"{count}.db", count)]


def starts_with(path: Path, count: int) -> list[Figure]:
    store = SqliteStore(path)
    loaded = read_model_set(Settings().models_dir)
    fill(store, loaded.model_set, count, loaded.points.words)
    store.close()
    seconds: list[float] = []
    memory: list[float] = []
    for _ in range(STARTS):
        with serving({"STORE": f"sqlite:///{path}"}) as server:
            seconds.append(server.ready_after_s)
            memory.append(resident_mb(server))
    return [
        Figure(f"process started to ready, {count:,} classes", statistics.median(seconds), "s"),
        Figure(f"idle memory, {count:,} classes", statistics.median(memory), "MB resident"),
    ]


def resident_mb(server: Server) -> float:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6

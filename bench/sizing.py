"""What does a class take in Redis and in each replica, and how long does a replica take to start on many?

Each class has one example of 300 points and a crop of 30 kB. Redis is as durable as in production, and on this machine. A start
is given in seconds of the processor, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import os
import statistics
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from app.adapters.model_set import read_model_set
from app.adapters.store_redis import RedisStore
from app.settings import Settings
from bench.crowd import fill
from bench.figures import Figure
from bench.start import resident_mb
from demo.server import Server, serving
from tests.redis_servers import RedisServer, redis_server

COUNTS = (1_000, 10_000)
STARTS = 3
META, LOG = "firstsight:{default}:meta", "firstsight:{default}:log"


def measure() -> list[Figure]:
    with TemporaryDirectory() as folder:
        with redis_server(Path(folder) / "empty") as server:
            _, empty_mb = starts(server)
        return [figure for count in COUNTS for figure in sizes_of(Path(folder) / f"{count}", count, empty_mb=empty_mb)]


def sizes_of(folder: Path, count: int, *, empty_mb: float) -> list[Figure]:
    loaded = read_model_set(Settings().models_dir)
    with redis_server(folder) as server, closing(RedisStore(server.address, pack_every=1)) as store:
        before = used_bytes(server)
        fill(store, loaded.model_set, count, loaded.points.words)
        log_bytes = int(server.client.memory_usage(LOG, samples=0))  # type: ignore[arg-type]
        filled = used_bytes(server)
        store.keep_snapshot(count, store.snapshot)
        packed = used_bytes(server)
        start_s, replica_mb = starts(server)
        server.client.hdel(META, "pack")
        unpacked_s, _ = starts(server, times=1)
        return [
            Figure(f"Redis, {count:,} classes: records and crops", (filled - before - log_bytes) / count / 1e3, "kB a class"),
            Figure(f"Redis, {count:,} classes: log of changes", log_bytes / 1e6, "MB"),
            Figure(f"Redis, {count:,} classes: pack for fast starts", (packed - filled) / count / 1e3, "kB a class"),
            Figure(f"Redis, {count:,} classes: its files", file_bytes(folder) / 1e6, "MB"),
            Figure(
                f"replica, {count:,} classes: memory beyond an empty one", (replica_mb - empty_mb) * 1e3 / count, "kB a class"
            ),
            Figure(f"replica, {count:,} classes: processor time of a start, from the pack", start_s, "s"),
            Figure(f"replica, {count:,} classes: the same without a pack", unpacked_s, "s"),
        ]


def starts(server: RedisServer, *, times: int = STARTS) -> tuple[float, float]:
    """Median seconds of the processor until it is ready, and median megabytes that are resident then."""
    seconds, memory = [], []
    for _ in range(times):
        with serving({"STORE": server.address}) as replica:
            seconds.append(processor_s(replica))
            memory.append(resident_mb(replica))
    return statistics.median(seconds), statistics.median(memory)


def processor_s(replica: Server) -> float:
    fields = Path(f"/proc/{replica.process.pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]  # proc(5) counts from 1, and the two before the parenthesis are cut off
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def used_bytes(server: RedisServer) -> int:
    return int(server.client.info("memory")["used_memory"])  # type: ignore[index]


def file_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

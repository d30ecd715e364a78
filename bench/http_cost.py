"""How many pictures does a CPU second classify over HTTP, beside the same work in process?

In process is the work itself, in plain calls: decode, network, search, decision. Over HTTP is the CPU time of the server, the
client's not counted. Both take turns on the same pictures, and must give the same answer.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.adapters.index_faiss import FaissIndex
from app.domain.decision import decide, evidence_of, rank
from app.domain.gallery import Gallery
from app.domain.values import Upload
from app.main import Adapters
from app.service.classify import OVERSAMPLING, SHORTLIST
from app.service.follow import Served
from app.service.pools import Deadline
from bench.figures import Figure, median_ratio, percentiles
from bench.in_process import in_process
from demo.brands import ENROLLED
from demo.scenes import SCENES, as_jpeg, photograph
from demo.server import Server, serving

SIZE_PX = (1280, 960)  # of the pictures asked about
ROUNDS = 20
RAW = {"Content-Type": "image/jpeg"}


def measure() -> list[Figure]:
    return asyncio.run(compare_answers())


async def compare_answers() -> list[Figure]:
    pictures = [as_jpeg(photograph(scene, brand.mark(), seed=0).resize(SIZE_PX)) for brand in ENROLLED for scene in SCENES]
    # Logs as in production: a line a request is part of the cost of HTTP.
    logged = {"STORE": "memory://", "LOG_LEVEL": "info", "LOG_FORMAT": "json"}
    async with in_process("memory://") as (service, adapters):
        with serving(logged, log=subprocess.DEVNULL) as server:
            for brand in ENROLLED:
                mark = as_jpeg(brand.mark())
                await service.use_cases.enrol(brand.name, [Upload(mark)], dry_run=False, deadline=Deadline.never())
                server.http.post(f"/classes/{brand.name}/examples", content=mark, headers=RAW).raise_for_status()
            return compare(pictures, PlainCalls(adapters), server)


class PlainCalls:
    """What a classification is made of, one call after the other."""

    def __init__(self, adapters: Adapters) -> None:
        self._codec = adapters.codec
        self._embedder = adapters.embedder
        self._calibration = adapters.model_set.calibration
        gallery = Gallery.from_snapshot(adapters.store.snapshot(), adapters.model_set.provenance.networks)
        self._served = Served(gallery, FaissIndex(gallery.block.representatives()))

    def classify(self, picture: bytes) -> Asked:
        cpu, started = time.process_time(), time.perf_counter()
        side_px = self._embedder.side_px
        decoded = self._codec.decode(picture, box=None, wanted_px=OVERSAMPLING * side_px, field="image")
        query = self._embedder(self._codec.resize(decoded.pixels, side_px)[np.newaxis]).embedding[0]
        scored = self._served.best_classes(query, SHORTLIST)
        candidates = rank(scored, self._calibration)
        decide(candidates, self._calibration)
        for state, _ in scored:
            evidence_of(query, state.examples)
        similarities = {candidate.class_name: candidate.similarity for candidate in candidates}
        return Asked(similarities, time.process_time() - cpu, time.perf_counter() - started)


def compare(pictures: Sequence[bytes], plain_calls: PlainCalls, server: Server) -> list[Figure]:
    http_cpu_s, plain_cpu_s, latency_s = [], [], []
    for number in range(ROUNDS + 1):
        # Picture by picture in turn, so that each finds the processor's caches as the other left them.
        asked = [(ask(server, picture), plain_calls.classify(picture)) for picture in pictures]
        over_http, plain = zip(*asked, strict=True)
        assert [one.similarities for one in plain] == [one.similarities for one in over_http], "not the same work"
        if number:  # the first round warms both up
            http_cpu_s.append(sum(one.cpu_s for one in over_http))
            plain_cpu_s.append(sum(one.cpu_s for one in plain))
            latency_s += [one.latency_s for one in over_http]
    return [
        median_ratio("pictures per CPU second, HTTP over in process", plain_cpu_s, http_cpu_s, unit="x rate", goal=">= 0.90"),
        Figure("CPU time of a picture over HTTP", 1e3 * statistics.median(http_cpu_s) / len(pictures), "ms"),
        Figure("CPU time of a picture in process", 1e3 * statistics.median(plain_cpu_s) / len(pictures), "ms"),
        *percentiles("one client's wait for /classify", latency_s),
    ]


@dataclass(frozen=True)
class Asked:
    similarities: dict[str, float]
    cpu_s: float
    latency_s: float


def ask(server: Server, picture: bytes) -> Asked:
    clock = cpu_clock_of(server.process.pid)
    cpu, started = time.clock_gettime(clock), time.perf_counter()
    response = server.http.post("/classify", content=picture, headers=RAW).raise_for_status()
    latency_s = time.perf_counter() - started
    similarities = {candidate["class"]: candidate["similarity"] for candidate in response.json()["candidates"]}
    return Asked(similarities, time.clock_gettime(clock) - cpu, latency_s)


def cpu_clock_of(process_id: int) -> int:
    """The kernel's number of the clock that counts another process's CPU time in nanoseconds (`clock_getcpuclockid`)."""
    return ~process_id << 3 | 2

"""Where the work of a request runs: bounded pools of threads for decoding and for inference, and one thread for the store.

Decoding, the network and the search release the interpreter lock, so threads are enough. Work whose request was cancelled or
whose deadline has passed is not started; what has started runs to its end, a commit in particular.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

from app import metrics
from app.errors import DeadlinePassed

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment on the clock (seconds) after which nobody waits for the answer any more."""

    at: float
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, seconds: float, *, clock: Clock = time.monotonic) -> Deadline:
        return cls(clock() + seconds, clock)

    @classmethod
    def never(cls) -> Deadline:
        return cls(math.inf)

    def check(self) -> None:
        if self.clock() >= self.at:
            raise DeadlinePassed("The request was not answered within its time; the service is busy.")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Adds the time spent inside to the histogram of a stage: decode, embed, search, decide or commit."""
    started = time.perf_counter()
    try:
        yield
    finally:
        metrics.observe_stage(name, time.perf_counter() - started)


class Pools:
    def __init__(self, *, decode_workers: int, inference_workers: int) -> None:
        self.inference_workers = inference_workers
        self._decode = ThreadPoolExecutor(decode_workers, thread_name_prefix="decode")
        self._inference = ThreadPoolExecutor(inference_workers, thread_name_prefix="inference")
        self._store = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def decode(self, work: Callable[[*Arguments], Result], *args: *Arguments, deadline: Deadline) -> Result:
        return await _run(self._decode, work, *args, deadline=deadline)

    async def infer(self, work: Callable[[*Arguments], Result], *args: *Arguments, deadline: Deadline) -> Result:
        return await _run(self._inference, work, *args, deadline=deadline)

    async def store(self, work: Callable[[*Arguments], Result], *args: *Arguments, deadline: Deadline) -> Result:
        """All calls of the store go through its one thread, in the order they came."""
        return await _run(self._store, work, *args, deadline=deadline)

    def close(self) -> None:
        """Waits for what has started; what still queues is cancelled."""
        for pool in (self._decode, self._inference, self._store):
            pool.shutdown(wait=True, cancel_futures=True)


async def _run(pool: ThreadPoolExecutor, work: Callable[[*Arguments], Result], *args: *Arguments, deadline: Deadline) -> Result:
    submitted = time.perf_counter()

    def start() -> Result:
        metrics.observe_stage("queue", time.perf_counter() - submitted)
        deadline.check()
        return work(*args)

    # Cancelling the awaiting task cancels the pool's future, which then never starts if it has not yet.
    return await asyncio.get_running_loop().run_in_executor(pool, start)

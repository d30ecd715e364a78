"""Where the work of a request runs: bounded pools of threads for decoding and for inference, and one thread for the store.

Decoding, the network and the search release the interpreter lock, so threads are enough. Work whose request was cancelled or
whose deadline has passed is not started; what has started runs to its end, though nobody may wait for it any more.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

from app import metrics
from app.errors import DeadlinePassed

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

Clock = Callable[[], float]

TOO_LATE = "The request was not answered within its time; the service is busy."


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

    @property
    def remaining_s(self) -> float | None:
        """None where there is no end."""
        return None if math.isinf(self.at) else max(0.0, self.at - self.clock())

    def check(self) -> None:
        if self.remaining_s == 0:
            raise DeadlinePassed(TOO_LATE)


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
        self._workers = decode_workers + inference_workers
        self._decode = ThreadPoolExecutor(decode_workers, thread_name_prefix="decode")
        self._inference = ThreadPoolExecutor(inference_workers, thread_name_prefix="inference")
        self._store = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def decode(self, work: Callable[[*Arguments], Result], *args: *Arguments, deadline: Deadline) -> Result:
        return await _in_time(_run(self._decode, work, *args, deadline=deadline), deadline)

    async def infer(self, work: Callable[[*Arguments], Result], *args: *Arguments, deadline: Deadline) -> Result:
        return await _in_time(_run(self._inference, work, *args, deadline=deadline), deadline)

    async def store(self, work: Callable[[*Arguments], Result], *args: *Arguments, deadline: Deadline) -> Result:
        """All calls of the store go through its one thread, in the order they came.

        What has started is waited for past the deadline too: a caller must not be told that a commit failed which did not.
        """
        return await _run(self._store, work, *args, deadline=deadline)

    def turns(self) -> asyncio.Semaphore:
        """For the pictures of one request: no more at once than can run, so that many of them do not hold up other requests."""
        return asyncio.Semaphore(self._workers)

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

    # Cancelling the awaiting task cancels the pool's future, which then never starts if it has not yet. The context goes along,
    # so that the stages are counted to their request.
    return await asyncio.get_running_loop().run_in_executor(pool, copy_context().run, start)


async def _in_time(running: Awaitable[Result], deadline: Deadline) -> Result:
    try:
        return await asyncio.wait_for(running, deadline.remaining_s)
    except TimeoutError:
        raise DeadlinePassed(TOO_LATE) from None

"""Where the work of a request runs: bounded pools of threads for decoding and for inference, and one thread for the store.

Decoding, the network and the search release the interpreter lock, so threads are enough. Work whose request was cancelled or
whose deadline has passed is not started, and its arguments are let go at once; what has started runs to its end, though nobody
may wait for it any more.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

from app import metrics
from app.errors import DeadlinePassed

Item = TypeVar("Item")
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
    """Adds the time spent inside to the histogram of a stage, decode or embed for instance; `app/metrics.py` names them all."""
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
        return await _in_time(self._decode, lambda: work(*args), deadline)

    async def infer(self, work: Callable[[*Arguments], Result], *args: *Arguments, deadline: Deadline) -> Result:
        return await _in_time(self._inference, lambda: work(*args), deadline)

    async def store(self, work: Callable[[*Arguments], Result], *args: *Arguments, deadline: Deadline) -> Result:
        """All calls of the store go through its one thread, in the order they came.

        What has started is waited for past the deadline too: a caller must not be told that a commit failed which did not. What
        still queues at the deadline, behind a disk that hangs, never runs.
        """
        return await _started_in_time(self._store, lambda: work(*args), deadline)

    async def for_each(self, items: Iterable[Item], work: Callable[[Item], Coroutine[Any, Any, Result]]) -> list[Result]:
        """For the pictures of one request: no more at once than can run, so that many of them do not hold up other requests.

        The first failure ends them all, and is what the caller hears of.
        """
        turns = asyncio.Semaphore(self._workers)

        async def in_turn(item: Item) -> Result:
            async with turns:
                return await work(item)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(in_turn(item)) for item in items]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    def close(self) -> None:
        """Waits for what has started; what still queues is cancelled."""
        for pool in (self._decode, self._inference, self._store):
            pool.shutdown(wait=True, cancel_futures=True)


async def _in_time(pool: ThreadPoolExecutor, work: Callable[[], Result], deadline: Deadline) -> Result:
    """The result; DeadlinePassed if it is not there by then."""
    queued = [work]
    future = _submit(pool, queued, deadline)
    try:
        async with asyncio.timeout(deadline.remaining_s):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        raise DeadlinePassed(TOO_LATE) from None
    finally:
        _withdraw(future, queued)


async def _started_in_time(pool: ThreadPoolExecutor, work: Callable[[], Result], deadline: Deadline) -> Result:
    """The result, whenever it comes; DeadlinePassed if the work has not started by then."""
    queued = [work]
    future = _submit(pool, queued, deadline)
    answer = asyncio.wrap_future(future)
    try:
        await asyncio.wait((answer,), timeout=deadline.remaining_s)
        if not answer.done() and _withdraw(future, queued):
            raise DeadlinePassed(TOO_LATE)
        return await answer
    finally:
        answer.cancel()  # of one that nobody waits for any more, nobody is to be told that it failed
        _withdraw(future, queued)


def _submit(pool: ThreadPoolExecutor, queued: list[Callable[[], Result]], deadline: Deadline) -> Future[Result]:
    """`queued` holds the work until it starts.

    An executor keeps a cancelled item until a thread comes by, and in the work may be an upload of many megabytes, which nobody
    counts any more. So the item holds only the list, which `_withdraw` can empty.
    """
    submitted = time.perf_counter()

    def start() -> Result:
        metrics.observe_stage("queue", time.perf_counter() - submitted)
        deadline.check()
        return queued.pop()()

    # The context goes along, so that the stages are counted to their request.
    return pool.submit(copy_context().run, start)


def _withdraw(future: Future[Result], queued: list[Callable[[], Result]]) -> bool:
    """Whether the work had not started, and now never does."""
    withdrawn = future.cancel()
    if withdrawn:
        queued.clear()
    return withdrawn

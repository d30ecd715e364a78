from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.errors import DeadlinePassed
from app.service.pools import Deadline, Pools

SOON = Deadline.never()  # one made at import would have passed in a long run


def at_noon() -> float:
    return 12.0


def test_a_deadline_passes_at_its_moment() -> None:
    Deadline(12.1, at_noon).check()
    with pytest.raises(DeadlinePassed):
        Deadline(12.0, at_noon).check()


def test_a_deadline_can_be_set_from_now() -> None:
    assert Deadline.after(3.0, clock=at_noon).at == 15.0


def test_work_runs_in_its_own_pool_and_answers(pools: Pools) -> None:
    async def where_each_runs() -> list[str]:
        def work(suffix: str) -> str:
            return threading.current_thread().name.split("_")[0] + suffix

        return [await run(work, "!", deadline=SOON) for run in (pools.decode, pools.infer, pools.store)]

    assert asyncio.run(where_each_runs()) == ["decode!", "inference!", "store!"]


def test_an_error_of_the_work_is_the_callers(pools: Pools) -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(pools.decode(divmod, 1, 0, deadline=SOON))


@pytest.mark.parametrize("run", [Pools.decode, Pools.infer, Pools.store])
def test_work_past_its_deadline_is_not_started(pools: Pools, run: Callable[..., Coroutine[Any, Any, None]]) -> None:
    started: list[int] = []
    with pytest.raises(DeadlinePassed):
        asyncio.run(run(pools, started.append, 1, deadline=Deadline(12.0, at_noon)))
    pools.close()
    assert started == []


def test_nobody_waits_past_the_deadline_for_work_that_has_started(pools: Pools) -> None:
    go_on = threading.Event()
    with pytest.raises(DeadlinePassed):
        asyncio.run(pools.infer(go_on.wait, deadline=Deadline(12.001, at_noon)))
    go_on.set()


def test_a_commit_that_has_started_is_waited_for_past_its_deadline(pools: Pools) -> None:
    async def commit_slowly() -> bool:
        go_on = threading.Event()
        asyncio.get_running_loop().call_later(0.005, go_on.set)  # the deadline is over in 0.001
        return await pools.store(go_on.wait, deadline=Deadline(12.001, at_noon))

    assert asyncio.run(commit_slowly())


def test_a_commit_that_still_queues_at_its_deadline_ends_there_and_never_runs(pools: Pools) -> None:
    hanging, started = threading.Event(), []

    async def commit_behind_a_disk_that_hangs() -> None:
        blocking = asyncio.create_task(pools.store(hanging.wait, deadline=SOON))
        await asyncio.sleep(0)
        with pytest.raises(DeadlinePassed):
            await pools.store(started.append, 1, deadline=Deadline(12.001, at_noon))
        hanging.set()
        await blocking

    asyncio.run(commit_behind_a_disk_that_hangs())
    pools.close()
    assert started == []


class Picture:
    """Stands for the bytes of an upload, which cannot be referred to weakly."""


@pytest.mark.parametrize("run", [Pools.decode, Pools.infer, Pools.store])
@pytest.mark.parametrize("leaves", [True, False], ids=["client leaves", "deadline passes"])
def test_what_queues_lets_go_of_its_picture_when_nobody_waits_any_more(run: Callable[..., Any], leaves: bool) -> None:
    pools, busy = Pools(decode_workers=1, inference_workers=1), threading.Event()

    async def leave_while_queued() -> Picture | None:
        blocking = asyncio.create_task(run(pools, busy.wait, deadline=SOON))
        picture = Picture()
        seen = weakref.ref(picture)
        queued = asyncio.create_task(run(pools, id, picture, deadline=SOON if leaves else Deadline(12.001, at_noon)))
        await asyncio.sleep(0)  # both are submitted now
        del picture
        assert seen() is not None
        if leaves:
            queued.cancel()
        await asyncio.gather(queued, return_exceptions=True)
        del queued
        await asyncio.sleep(0)  # the loop forgets how it ended, too
        gc.collect()  # exceptions refer to the frames that they have come through
        held = seen()
        busy.set()
        await blocking
        return held

    assert asyncio.run(leave_while_queued()) is None
    pools.close()


def test_work_of_a_cancelled_request_is_not_started(pools: Pools) -> None:
    busy, started = threading.Event(), []

    async def cancel_while_queued() -> None:
        blocking = asyncio.create_task(pools.store(busy.wait, deadline=SOON))
        queued = asyncio.create_task(pools.store(started.append, 1, deadline=SOON))
        await asyncio.sleep(0)  # both are submitted now
        queued.cancel()
        await asyncio.gather(queued, return_exceptions=True)
        busy.set()
        await blocking

    asyncio.run(cancel_while_queued())
    pools.close()
    assert started == []


def test_pictures_of_one_request_are_answered_in_their_order(pools: Pools) -> None:
    async def double(number: int) -> int:
        return await pools.infer(int.__mul__, number, 2, deadline=SOON)

    assert asyncio.run(pools.for_each(range(20), double)) == list(range(0, 40, 2))


def test_no_more_pictures_of_one_request_are_under_way_than_can_run(pools: Pools) -> None:
    under_way, most = 0, 0

    async def count(number: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    asyncio.run(pools.for_each(range(20), count))
    assert most == 4  # two threads decode and two infer


def test_the_first_failure_ends_all_pictures_of_its_request(pools: Pools) -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def fail_at_two(number: int) -> None:
        begun.append(number)
        if number == 2:
            raise ZeroDivisionError
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(pools.for_each(range(20), fail_at_two))
    assert sorted([*ended, 2]) == sorted(begun)
    assert len(begun) < 20


def test_closing_waits_for_what_has_started() -> None:
    pools, started, go_on, done = Pools(decode_workers=1, inference_workers=1), threading.Event(), threading.Event(), []

    def commit() -> None:
        started.set()
        go_on.wait()
        done.append("committed")

    async def close_during_a_commit() -> None:
        committing = asyncio.create_task(pools.store(commit, deadline=SOON))
        await asyncio.to_thread(started.wait)
        closing = asyncio.create_task(asyncio.to_thread(pools.close))
        go_on.set()
        await asyncio.gather(closing, committing)

    asyncio.run(close_during_a_commit())
    assert done == ["committed"]

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.adapters.rates import LEFT_ALONE_S, Rates
from demo.server import free_port
from tests.redis_servers import needs_redis, redis_server


def refusals(*calls: Callable[[], Awaitable[int | None]]) -> list[bool]:
    async def all_of_them() -> list[bool]:
        return [await call() is not None for call in calls]

    return asyncio.run(all_of_them())


def test_a_key_is_counted_by_itself() -> None:
    rates = Rates()
    assert refusals(*[lambda: rates("a", "2/hour")] * 3, lambda: rates("b", "2/hour")) == [False, False, True, False]


def test_all_parts_of_a_rate_hold() -> None:
    rates = Rates()
    assert refusals(*[lambda: rates("a", "100/minute;2/day")] * 3) == [False, False, True]


@needs_redis
def test_replicas_on_one_redis_count_together(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        one, other = Rates(server.address), Rates(server.address)
        assert refusals(lambda: one("a", "2/hour"), lambda: other("a", "2/hour"), lambda: one("a", "2/hour")) == [
            False,
            False,
            True,
        ]


def test_without_its_redis_each_replica_counts_alone_and_tries_again_later(caplog: pytest.LogCaptureFixture) -> None:
    now, asked = 0.0, []
    rates = Rates(f"redis://127.0.0.1:{free_port()}/0", clock=lambda: now)
    assert rates._together is not None
    hit = rates._together.hit
    rates._together.hit = lambda *args: asked.append(now) or hit(*args)  # type: ignore[method-assign]

    assert refusals(*[lambda: rates("a", "2/hour")] * 3) == [False, False, True]
    now += LEFT_ALONE_S
    refusals(lambda: rates("a", "2/hour"))

    assert asked == [0.0, LEFT_ALONE_S]  # a Redis that did not answer holds nobody else up

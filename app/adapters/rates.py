"""How often a key may call: counted in the Redis of the store, so that all replicas count together, else in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.storage import storage_from_string

from app.logs import logger

log = logger(__name__)

# What counting may hold a request up for, and how long Redis is left alone once it did: answers do not wait for one that is away.
COUNT_TIMEOUT_S = 0.25
LEFT_ALONE_S = 5.0


class Rates:
    def __init__(self, address: str | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`address` of the Redis to count in, as for the store; None counts in this process alone."""
        self._here = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._together = SlidingWindowCounterRateLimiter(_redis_storage(address)) if address else None
        self._clock = clock
        self._left_alone_until = -math.inf

    async def __call__(self, key_id: str, rate: str) -> int | None:
        """Counts a call. None when it is within the rate, else the whole seconds after which another is."""
        for limit in parse_many(rate):
            wait_s = await self._count(limit, key_id)
            if wait_s is not None:
                return wait_s
        return None

    async def _count(self, limit: RateLimitItem, key_id: str) -> int | None:
        if self._together is not None and self._clock() >= self._left_alone_until:
            try:
                return await _hit(self._together, limit, key_id)
            except Exception as fault:  # the library's, the client's or the system's: counting is not worth an answer
                log.warning("rates are counted by each replica alone", detail=str(fault))
                self._left_alone_until = self._clock() + LEFT_ALONE_S
        return await _hit(self._here, limit, key_id)


async def _hit(limiter: SlidingWindowCounterRateLimiter, limit: RateLimitItem, key_id: str) -> int | None:
    if await limiter.hit(limit, key_id):
        return None
    stats = await limiter.get_window_stats(limit, key_id)
    return max(1, math.ceil(stats.reset_time - time.time()))


def _redis_storage(address: str) -> Storage:
    options: dict[str, float | str | bool] = {
        "implementation": "redispy",
        "key_prefix": "firstsight:rates",
        "socket_timeout": COUNT_TIMEOUT_S,
        "socket_connect_timeout": COUNT_TIMEOUT_S,
    }
    storage = storage_from_string(f"async+{address}", **options)
    assert isinstance(storage, Storage)  # noqa: S101  # "async+" says so
    return storage

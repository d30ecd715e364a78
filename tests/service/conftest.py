from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from app.service.pools import Pools
from tests.service.on_memory import Service


@pytest.fixture
def pools() -> Iterator[Pools]:
    pools = Pools(decode_workers=2, inference_workers=2)
    yield pools
    pools.close()


@pytest.fixture
def make_service(pools: Pools) -> Callable[..., Service]:
    return partial(Service, pools)


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()

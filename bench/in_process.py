"""The service without HTTP: the use cases as `app/main.py` wires them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from app.main import Adapters, Service, open_adapters
from app.settings import Settings


@asynccontextmanager
async def in_process(
    store: str, *, verify: Literal["off", "auto", "always"] = "auto", fill: Callable[[Adapters], None] = lambda _: None
) -> AsyncIterator[tuple[Service, Adapters]]:
    """A started service and the adapters it uses. Models come from where FIRSTSIGHT_MODELS_DIR says. `fill` puts classes in."""
    settings = Settings(store=store, verify=verify)
    adapters = open_adapters(settings)
    fill(adapters)
    service = Service(settings, adapters)
    try:
        await service.start(lambda _: None)
        yield service, adapters
    finally:
        service.close()

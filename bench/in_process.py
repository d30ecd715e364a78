"""The service without HTTP: the use cases as `app/main.py` wires them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.main import Adapters, Service, open_adapters
from app.settings import Settings


@asynccontextmanager
async def in_process(store: str) -> AsyncIterator[tuple[Service, Adapters]]:
    """A started service and the adapters it uses. Models come from where FIRSTSIGHT_MODELS_DIR says."""
    settings = Settings(store=store)
    adapters = open_adapters(settings)
    service = Service(settings, adapters)
    try:
        await service.start(lambda _: None)
        yield service, adapters
    finally:
        service.close()

"""The whole application on a memory store and the fake network: no network, no GPU, no sleeping."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.adapters.store_memory import MemoryStore
from app.domain.representatives import no_synthesis
from app.logs import configure_logs
from app.main import Adapters, create_app, picture_codec
from app.service.ports import Store
from app.settings import Settings
from tests.fakes import FakeEmbedder, FakePointFinder, model_set_for_tests, point_settings_for_tests

MakeClient = Callable[..., TestClient]
Logged = Callable[[], list[dict[str, Any]]]


def settings_for_tests(**changed: Any) -> Settings:
    return Settings(**{"store": "memory://", "inference_threads": 2, "decode_threads": 2, **changed})


def fake_adapters(settings: Settings, *, store: Store | None = None) -> Adapters:
    return Adapters(
        model_set=model_set_for_tests(),
        embedder=FakeEmbedder(),
        device="cpu",
        find_points=FakePointFinder(),
        words=point_settings_for_tests().words,
        synthesize=no_synthesis,
        detector=None,
        codec=picture_codec(settings),
        store=store or MemoryStore(),
        open_store=lambda collection: MemoryStore(),
    )


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Clients of applications of their own, ready to answer. Takes settings, and a `store`-like adapter as `on_store`."""
    with ExitStack() as closing:

        def make(*, on_store: Store | None = None, **changed: Any) -> TestClient:
            app = create_app(
                settings_for_tests(**changed), open_adapters=lambda settings: fake_adapters(settings, store=on_store)
            )
            client = closing.enter_context(TestClient(app))
            wait_for_start(client)
            return client

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()


@pytest.fixture
def logged() -> Iterator[Logged]:
    """The lines logged so far, as JSON has them."""
    root, lines = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers, root.level
    configure_logs(level="info", log_format="json", stream=lines)
    yield lambda: [json.loads(line) for line in lines.getvalue().splitlines()]
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def wait_for_start(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    assert client.portal is not None

    async def started() -> None:
        await asyncio.wait((app.state.starting,))

    client.portal.call(started)

"""A real browser on a live server with the model set that ships. Skipped with the reason where there is no Chromium.

`TESTS_SKIP_NOTHING=1` (as `.ci/run` sets it) makes that skip a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from PIL import Image

from demo.brands import ENROLLED
from demo.scenes import CROWDS, SCENES, as_jpeg, photograph, photograph_of_many
from demo.server import Server, serving

try:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
except ImportError:  # pragma: no cover
    sync_playwright = None  # type: ignore[assignment]

# No sandbox, since CI runs as root in a container; and nothing that would call home.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 60_000  # a bound, not an expectation: a busy machine with a first picture through the networks
PHONE, DESKTOP = (390, 844), (1280, 860)


@dataclass
class Watched:
    """A page, and what it must not do."""

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("request", self._request)

    def _note(self, message: ConsoleMessage) -> None:
        # The browser reports each answer of 4xx as an error; the page has to show them, and does.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.origin, "blob:" + self.origin)):
            self.elsewhere.append(request.url)


Open = Callable[..., Page]


def without(reason: str) -> NoReturn:
    if os.environ.get("TESTS_SKIP_NOTHING"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")  # and no longer: while it is open, playwright's event loop runs in this thread, and no other can
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if sync_playwright is None:
        without("playwright is not installed: `make .venv/dev`")
    if chromium is None:
        without("there is no Chromium: `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def server(browser: Browser) -> Iterator[Server]:
    with serving({"STORE": "memory://", "REQUEST_TIMEOUT_S": "60"}) as live:
        yield live


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Open]:
    """Opens the console at a size, and holds it to its word: no fault in the browser, and no request to anywhere else."""
    opened: list[Watched] = []
    origin = origin_of(server.http)

    def open_at(path: str = "/", *, size: tuple[int, int] = DESKTOP, dark: bool = False, at: str = origin) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", has_touch=size == PHONE
        )
        context.set_default_timeout(PATIENCE_MS)
        watched = Watched(context.new_page(), at)
        watched.watch()
        opened.append(watched)
        watched.page.goto(at + path)
        return watched.page

    yield open_at
    for watched in opened:
        watched.page.context.close()
        assert watched.faults == []
        assert watched.elsewhere == []


def origin_of(http: httpx.Client) -> str:
    return str(http.base_url).rstrip("/")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of brands that do not exist: a mark and a scene of each of two, a shelf with both, and what is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, brand in enumerate(ENROLLED[:2]):
        (folder / f"mark{number}.jpg").write_bytes(as_jpeg(brand.mark()))
        (folder / f"scene{number}.jpg").write_bytes(as_jpeg(photograph(SCENES[0], brand.mark(), seed=number)))
    shelf = photograph_of_many(CROWDS[0], [brand.mark() for brand in ENROLLED[:4]], seed=0)
    (folder / "shelf.jpg").write_bytes(as_jpeg(shelf))
    (folder / "notes.jpg").write_text("no picture")
    Image.new("RGB", (9, 9)).save(folder / "small.png")
    return folder

"""The commands, run against the whole application in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.cli import app
from app.client import Firstsight
from app.commands import calling, completion
from tests.api.drawings import ACME, ACME_AGAIN, OTHER, STRANGE
from tests.conftest import Logged

Run = Callable[..., Result]


@pytest.fixture
def run(client: TestClient, monkeypatch: pytest.MonkeyPatch, logged: Logged) -> Run:
    """Runs `firstsight` with these arguments; what it calls is the application of `client`, whose log goes elsewhere."""
    return runner_on(client, monkeypatch)


def runner_on(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> Run:
    def client_of(url: str, *, key: str | None, **told: object) -> Firstsight:
        return Firstsight("http://testserver", key=key, retries=0, transport=http._transport)

    for module in (calling, completion):
        monkeypatch.setattr(module, "Firstsight", client_of)
    for console in (calling.out, calling.err):
        monkeypatch.setattr(console, "_width", 200)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sub-folder for acme, a file for other, and what is no picture."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "front.png").write_bytes(ACME)
    (tmp_path / "acme" / "again.png").write_bytes(ACME_AGAIN)
    (tmp_path / "other.png").write_bytes(OTHER)
    (tmp_path / "_none").mkdir()
    (tmp_path / "_none" / "strange.png").write_bytes(STRANGE)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path

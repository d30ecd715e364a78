"""The documentation knows every setting, route, problem and series, and the generated pages are those of the code."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel
from typer.main import get_command

from app import metrics
from app.api import schemas
from app.api.problems import PROBLEMS
from app.api.samples import SAMPLES
from app.cli import app as command
from app.commands.calling import Exit
from app.main import create_app
from docs.generate import ROOT, generated_files
from tests.conftest import settings_for_tests

README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, methods in create_app(settings_for_tests()).openapi()["paths"].items()
    for method in methods
]


@pytest.mark.parametrize("name", ["README.md", "docs/openapi.json"])
def test_what_is_generated_is_that_of_the_code(name: str) -> None:
    assert (ROOT / name).read_text() == generated_files()[name], "run `make docs`"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_route_is_described(operation: str) -> None:
    assert f"| `{operation}` |" in API


@pytest.mark.parametrize(("status", "name"), sorted((status, name) for status, name, _ in PROBLEMS.values()))
def test_every_problem_is_described_with_its_status(status: int, name: str) -> None:
    assert f"| `{name}` | {status} |" in API


@pytest.mark.parametrize("name", sorted(name for name, _ in metrics.series()))
def test_every_series_is_described(name: str) -> None:
    assert f"| `{name}` |" in API


@pytest.mark.parametrize("code", Exit)
def test_every_way_a_command_ends_is_described(code: Exit) -> None:
    assert f"| {code.value} |" in README


@pytest.mark.parametrize("name", sorted(get_command(command).commands))  # type: ignore[attr-defined]
def test_every_command_is_described(name: str) -> None:
    assert re.search(rf"firstsight {name}\b|# also .*\b{name}\b", README)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_has_its_shape(name: str) -> None:
    shape: type[BaseModel] = getattr(schemas, name)

    shape.model_validate(SAMPLES[name])

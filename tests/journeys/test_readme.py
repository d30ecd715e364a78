"""The README's own commands and programs, run against a live server with the model set that ships."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.brands import ENROLLED
from demo.scenes import CROWDS, SCENES, as_jpeg, photograph, photograph_of_many
from demo.server import Server, serving

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^(curl .+?)(?: +#.*)?$", README, re.MULTILINE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving({"STORE": f"sqlite:///{tmp_path / 'readme.db'}"}) as live:
        yield live


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the pictures that the README speaks of."""
    brand = ENROLLED[0]
    (tmp_path / "acme.jpg").write_bytes(as_jpeg(brand.mark()))
    (tmp_path / "street.jpg").write_bytes(as_jpeg(photograph(SCENES[0], brand.mark(), seed=0)))
    shelf = photograph_of_many(CROWDS[0], [each.mark() for each in ENROLLED[:4]], seed=0)
    (tmp_path / "shelf.jpg").write_bytes(as_jpeg(shelf))
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's commands are for curl")
def test_the_commands_of_the_readme_learn_a_brand_and_find_it_again(server: Server, folder: Path) -> None:
    enrolment, answer, found = (run(command, server, folder) for command in COMMANDS)

    assert enrolment["class"] == "acme"
    assert answer["decision"] == "acme"
    assert [one["class"] for one in found["detections"]] == ["acme"]


def test_the_python_of_the_readme_learns_a_brand_and_recognises_it(server: Server, folder: Path) -> None:
    (folder / "example.py").write_text(example_in("python", server))

    assert said([sys.executable, "example.py"], folder) == "match acme []"


@pytest.mark.skipif(shutil.which("node") is None, reason="the README's JavaScript is run by node, which is not here")
def test_the_javascript_of_the_readme_learns_a_brand_and_recognises_it(server: Server, folder: Path) -> None:
    (folder / "example.mjs").write_text(example_in("js", server))

    assert said(["node", "example.mjs"], folder) == "match acme"


def example_in(language: str, server: Server) -> str:
    (example,) = re.findall(rf"^```{language}\n(.+?)^```", README, re.MULTILINE | re.DOTALL)
    return here(example, server)


def said(command: list[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def here(text: str, server: Server) -> str:
    return text.replace("http://127.0.0.1:8000", str(server.http.base_url).rstrip("/"))


def run(command: str, server: Server, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        f"{here(command, server)} --silent --fail-with-body", shell=True, cwd=folder, capture_output=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer

"""The README's own commands, run by a shell against a live server with the model set that ships."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.brands import ENROLLED
from demo.scenes import CROWDS, SCENES, as_jpeg, photograph, photograph_of_many
from demo.server import Server, serving

ROOT = Path(__file__).parent.parent.parent
COMMANDS = re.findall(r"^(curl .+?)(?: +#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving({"STORE": f"sqlite:///{tmp_path / 'readme.db'}"}) as live:
        yield live


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's commands are for curl")
def test_the_commands_of_the_readme_learn_a_brand_and_find_it_again(server: Server, tmp_path: Path) -> None:
    brand = ENROLLED[0]
    (tmp_path / "acme.jpg").write_bytes(as_jpeg(brand.mark()))
    (tmp_path / "street.jpg").write_bytes(as_jpeg(photograph(SCENES[0], brand.mark(), seed=0)))
    shelf = photograph_of_many(CROWDS[0], [each.mark() for each in ENROLLED[:4]], seed=0)
    (tmp_path / "shelf.jpg").write_bytes(as_jpeg(shelf))

    enrolment, answer, found = (run(command, server, tmp_path) for command in COMMANDS)

    assert enrolment["class"] == "acme"
    assert answer["decision"] == "acme"
    assert [one["class"] for one in found["detections"]] == ["acme"]


def run(command: str, server: Server, folder: Path) -> dict[str, Any]:
    here = command.replace("http://127.0.0.1:8000", str(server.http.base_url).rstrip("/"))
    done = subprocess.run(f"{here} --silent --fail-with-body", shell=True, cwd=folder, capture_output=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer

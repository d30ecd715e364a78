from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from app.api.samples import SAMPLES
from app.cli import app
from app.client import Busy, Firstsight, ProblemDetails
from tests.api.drawings import ACME, encoded, form, printed
from tests.commands.conftest import Run, runner_on
from tests.conftest import MakeClient


def test_what_is_enrolled_is_recognised(run: Run, folder: Path) -> None:
    enrolled = run("enrol", "acme", folder / "acme/front.png", folder / "acme/again.png")
    answer = run("classify", folder / "acme/front.png")

    assert (enrolled.exit_code, answer.exit_code) == (0, 0)
    assert "knows acme" in enrolled.stdout
    assert "front.png  acme" in answer.stdout


def test_programs_are_given_the_answer_of_the_service(run: Run, client: TestClient, folder: Path) -> None:
    report = json.loads(run("enrol", "acme", folder / "acme/front.png", "--json").stdout)
    answer = json.loads(run("classify", folder / "acme/front.png", "--json", "--top-k", "5").stdout)

    asked = client.post("/classify", files=form(ACME)).json()
    assert (report["class"], report["version"]) == ("acme", 1)
    assert answer == {"file": str(folder / "acme/front.png"), **asked}


def test_a_warning_of_an_enrolment_is_shown(run: Run, folder: Path) -> None:
    Image.new("RGB", (9, 9)).save(folder / "small.png")

    assert "! " in run("enrol", "acme", folder / "small.png").stdout


def test_a_dry_run_stores_nothing(run: Run, client: TestClient, folder: Path) -> None:
    done = run("enrol", "acme", folder / "other.png", "--dry-run")

    assert "would know acme" in done.stdout
    assert client.get("/classes").json()["classes"] == []


def test_a_box_says_what_is_meant(run: Run, folder: Path) -> None:
    report = json.loads(run("enrol", "acme", folder / "other.png", "--box", "0,0,32,16", "--json").stdout)

    assert report["examples"][0]["box"] == {"x": 0, "y": 0, "width": 32, "height": 16}


@pytest.mark.parametrize("arguments", [["--box", "1,2,3"], ["--box", "a,b,c,d"], ["other.png", "--box", "0,0,9,9"]])
def test_a_box_that_is_none_is_wrong_usage(run: Run, folder: Path, arguments: list[str]) -> None:
    refused = run("enrol", "acme", folder / "other.png", *arguments)

    assert refused.exit_code == 2
    assert "box" in refused.stderr


def test_of_many_pictures_those_that_fail_are_told_and_the_others_answered(run: Run, folder: Path) -> None:
    done = run("classify", folder / "other.png", folder / "notes.txt", folder / "missing.png", "--json")

    assert done.exit_code == 5
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [str(folder / "other.png")]
    assert "notes.txt" in done.stderr
    assert "missing.png: No such file" in done.stderr


def test_one_picture_that_fails_is_a_refusal(run: Run, folder: Path) -> None:
    assert run("classify", folder / "notes.txt").exit_code == 1


def test_an_unknown_class_in_the_filter_is_told_once(run: Run, folder: Path) -> None:
    refused = run("classify", folder / "other.png", folder / "other.png", "--class", "nobody")

    assert refused.exit_code == 1
    assert refused.stderr.count("nobody") == 1


def test_what_is_found_is_drawn(run: Run, client: TestClient, folder: Path) -> None:
    label = np.asarray(Image.open(_written(folder / "label.png", printed())))
    scene = np.full((240, 320, 3), 128, np.uint8)
    scene[80:144, 104:168] = label
    _written(folder / "scene.png", encoded(scene, "PNG"))
    client.post("/classes/label/examples", files=form(printed()))

    found = run("detect", folder / "scene.png", "--draw", folder / "drawn.png")

    drawn = np.asarray(Image.open(folder / "drawn.png").convert("RGB"))
    assert re.search(r"✓ label .* 104,80,64,64$", found.stdout, re.MULTILINE)
    assert drawn.shape == scene.shape
    assert tuple(drawn[110, 104]) == (22, 163, 74)  # the left side of the quad, in the colour of a match
    assert tuple(drawn[200, 300]) == (128, 128, 128)


def test_nothing_found_is_an_answer(run: Run, folder: Path) -> None:
    found = run("detect", folder / "other.png")

    assert found.exit_code == 0
    assert "Nothing" in found.stdout


def test_a_drawing_of_no_known_format_is_told(run: Run, folder: Path) -> None:
    refused = run("detect", folder / "other.png", "--draw", folder / "drawn.what")

    assert refused.exit_code == 1
    assert ".jpg and .png are known" in refused.stderr


def test_without_a_key_it_says_what_to_do(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    keys = folder / "keys.json"
    keys.write_text('{"keys": []}')
    run = runner_on(make_client(api_keys_file=keys), monkeypatch)

    refused = run("classify", folder / "other.png")

    assert refused.exit_code == 4
    assert "FIRSTSIGHT_API_KEY" in refused.stderr


def test_where_nobody_answers_it_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSIGHT_URL", "elsewhere:1")  # no URL is not tried again

    refused = CliRunner().invoke(app, ["classify", str(folder / "other.png")])

    assert refused.exit_code == 3
    assert "firstsight serve" in refused.stderr


def test_a_service_that_stays_busy_ends_as_one_that_is_not_there(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Firstsight, *told: object, **how: object) -> None:
        told = {**SAMPLES["Problem"], "status": 503, "detail": "Too many requests.", "field": None}
        raise Busy(ProblemDetails.model_validate(told))

    monkeypatch.setattr(Firstsight, "classify", refused)
    busy = run("classify", folder / "other.png")

    assert busy.exit_code == 3
    assert "Too many requests. Try again in a moment." in busy.stderr


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path

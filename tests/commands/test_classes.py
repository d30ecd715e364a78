from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.cli import app
from app.commands.completion import class_names
from tests.api.drawings import ACME, OTHER, form
from tests.commands.conftest import Run


@pytest.fixture
def taught(client: TestClient) -> TestClient:
    for name, pictures in {"acme": (ACME, OTHER), "[b]other": (OTHER,)}.items():
        assert client.post(f"/classes/{name}/examples", files=form(*pictures)).status_code == 201
    return client


def test_classes_are_listed(run: Run, taught: TestClient) -> None:
    assert "acme" in run("classes", "list").stdout
    assert "[b]other" in run("classes", "list").stdout
    assert json.loads(run("classes", "list", "--json").stdout) == taught.get("/classes").json()["classes"]


def test_an_empty_list_says_how_to_begin(run: Run) -> None:
    assert "firstsight enrol" in run("classes", "list").stderr


def test_a_class_is_shown_with_its_examples_and_their_pictures(run: Run, taught: TestClient, tmp_path: Path) -> None:
    shown = run("classes", "show", "acme", "--save", tmp_path / "kept")

    ids = [one["id"] for one in taught.get("/classes/acme/examples").json()["examples"]]
    assert all(example in shown.stdout for example in ids)
    assert sorted(file.stem for file in (tmp_path / "kept").iterdir()) == sorted(ids)
    assert len(json.loads(run("classes", "show", "acme", "--json").stdout)["examples"]) == 2


def test_a_class_is_renamed(run: Run, taught: TestClient) -> None:
    assert run("classes", "rename", "acme", "Acme/Cola").exit_code == 0
    assert taught.get("/classes/Acme%2FCola").status_code == 200


def test_a_threshold_is_set_and_taken_back(run: Run, taught: TestClient) -> None:
    computed = taught.get("/classes/acme").json()["threshold"]

    run("classes", "threshold", "acme", "-0.5")
    assert taught.get("/classes/acme").json()["threshold"] == -0.5
    run("classes", "threshold", "acme", "computed")
    assert taught.get("/classes/acme").json()["threshold"] == computed


@pytest.mark.parametrize(("value", "code"), [("high", 2), ("7", 1)])
def test_what_is_no_threshold_is_refused(run: Run, taught: TestClient, value: str, code: int) -> None:
    assert run("classes", "threshold", "acme", value).exit_code == code


def test_a_class_is_deleted_when_that_is_confirmed(run: Run, taught: TestClient) -> None:
    assert run("classes", "delete", "acme").exit_code == 1  # nobody is there to say yes
    assert taught.get("/classes/acme").status_code == 200

    assert run("classes", "delete", "acme", "--yes").exit_code == 0
    assert taught.get("/classes/acme").status_code == 404


def test_a_class_that_is_not_there_says_where_to_look(run: Run) -> None:
    refused = run("classes", "show", "nobody")

    assert refused.exit_code == 1
    assert "firstsight classes list" in refused.stderr


def test_the_shell_completes_class_names(run: Run, taught: TestClient) -> None:
    assert class_names("ac") == ["acme"]


def test_without_a_service_the_shell_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSIGHT_URL", "elsewhere:1")

    assert class_names("ac") == []
    assert CliRunner().invoke(app, ["classes", "list"]).exit_code == 3

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from tests.model_sets import write_model_set

run = CliRunner().invoke


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_model_set(tmp_path / "models")


def test_settings_are_shown_as_the_environment_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSIGHT_PORT", "9000")
    monkeypatch.setenv("FIRSTSIGHT_URL", "http://127.0.0.1:9000")  # of the commands, and no fault of the service

    shown = json.loads(run(app, ["config", "show", "--json"]).stdout)
    table = run(app, ["config", "show"]).stdout

    assert (shown["FIRSTSIGHT_PORT"], shown["FIRSTSIGHT_HOST"]) == (9000, "127.0.0.1")
    assert "environment" in table


def test_wrong_settings_are_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSIGHT_PORT", "http")

    refused = run(app, ["config", "show"])

    assert refused.exit_code == 1
    assert "FIRSTSIGHT_PORT=http" in refused.stderr


def test_the_files_of_a_model_set_are_listed_and_right(models: Path) -> None:
    listed = json.loads(run(app, ["models", "list", str(models), "--json"]).stdout)

    assert {"embedding", "points", "cohort"} <= {one["use"] for one in listed}
    assert all(one["right"] for one in listed)
    right = run(app, ["models", "verify", str(models)])
    assert (right.exit_code, "each as the manifest says" in right.stderr) == (0, True)


@pytest.mark.parametrize("change", [lambda file: file.write_bytes(b"another"), lambda file: file.unlink()])
def test_a_file_that_is_not_the_manifests_is_named(models: Path, change: object) -> None:
    file = json.loads((models / "manifest.json").read_text())["cohort"]["file"]
    change(models / file)  # type: ignore[operator]

    wrong = run(app, ["models", "verify", str(models)])

    assert wrong.exit_code == 1
    assert file in wrong.stderr


def test_a_folder_without_a_manifest_is_told(tmp_path: Path) -> None:
    refused = run(app, ["models", "list", str(tmp_path)])

    assert refused.exit_code == 1
    assert "manifest.json" in refused.stderr
    assert "FIRSTSIGHT_MODELS_DIR" in refused.stderr

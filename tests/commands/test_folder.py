from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.client import Firstsight, Unreachable
from app.commands.folder import files_by_class
from tests.api.drawings import OTHER
from tests.commands.conftest import Run


def classes_in(client: TestClient) -> dict[str, int]:
    return {one["class"]: one["examples"] for one in client.get("/classes").json()["classes"]}


def results_of(stdout: str) -> dict[str, str]:
    return {Path(one["file"]).name: one["result"] for one in map(json.loads, stdout.splitlines())}


def test_a_sub_folder_is_a_class_and_so_is_a_file(run: Run, client: TestClient, folder: Path) -> None:
    done = run("enrol-folder", folder)

    assert done.exit_code == 0
    assert classes_in(client) == {"acme": 2, "other": 1}
    assert "3 pictures of 2 classes enrolled, 0 were there, 0 failed" in done.stdout


def test_what_is_there_is_not_sent_again(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("enrol-folder", folder)
    sent = []
    monkeypatch.setattr(Firstsight, "enrol", lambda *told, **how: sent.append(told))

    again = run("enrol-folder", folder, "--json")

    assert results_of(again.stdout) == {"again.png": "there", "front.png": "there", "other.png": "there"}
    assert sent == []


def test_it_goes_on_after_it_was_stopped(run: Run, client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enrol = Firstsight.enrol
    called = []

    def stopped_at_the_second(self: Firstsight, *told: bytes, **how: bool) -> object:
        called.append(told)
        if len(called) == 2:
            raise KeyboardInterrupt
        return enrol(self, *told, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Firstsight, "enrol", stopped_at_the_second)
    stopped = run("enrol-folder", folder, "--jobs", "1")
    monkeypatch.setattr(Firstsight, "enrol", enrol)
    half = classes_in(client)
    again = run("enrol-folder", folder, "--json")

    assert (stopped.exit_code, half) == (130, {"acme": 1})
    assert "Run it again" in stopped.stderr
    assert sorted(results_of(again.stdout).values()) == ["enrolled", "enrolled", "there"]
    assert classes_in(client) == {"acme": 2, "other": 1}


def test_a_picture_that_cannot_be_used_stops_no_other(run: Run, client: TestClient, folder: Path) -> None:
    (folder / "acme" / "broken.png").write_bytes(OTHER[:100])

    done = run("enrol-folder", folder)

    assert done.exit_code == 5
    assert "broken.png" in done.stderr
    assert classes_in(client) == {"acme": 2, "other": 1}


def test_a_fault_of_the_service_ends_it_at_once(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refused(self: Firstsight, name: str, *told: bytes, **how: bool) -> None:
        asked.append(name)
        raise Unreachable("http://elsewhere", ConnectionError("refused"))

    monkeypatch.setattr(Firstsight, "enrol", refused)
    done = run("enrol-folder", folder, "--jobs", "1")

    assert (done.exit_code, len(asked)) == (3, 1)
    assert "firstsight serve" in done.stderr


def test_a_dry_run_stores_nothing(run: Run, client: TestClient, folder: Path) -> None:
    done = run("enrol-folder", folder, "--dry-run")

    assert "3 pictures of 2 classes would be enrolled" in done.stdout
    assert classes_in(client) == {}


def test_a_folder_without_pictures_is_told(run: Run, tmp_path: Path) -> None:
    done = run("enrol-folder", tmp_path)

    assert done.exit_code == 1
    assert "no pictures" in done.stderr


def test_foreign_and_hidden_pictures_are_no_classes(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache" / "thumb.png").write_bytes(OTHER)

    assert {name: [file.name for file in files] for name, files in files_by_class(folder).items()} == {
        "acme": ["again.png", "front.png"],
        "other": ["other.png"],
    }

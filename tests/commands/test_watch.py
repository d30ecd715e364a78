from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.client import Answer, Firstsight, Unreachable
from app.commands import watch
from tests.api.drawings import ACME, OTHER, form
from tests.commands.conftest import Run


@pytest.fixture
def inbox(client: TestClient, tmp_path: Path) -> Path:
    client.post("/classes/acme/examples", files=form(ACME))
    (tmp_path / "early.png").write_bytes(ACME)
    return tmp_path


def looking(monkeypatch: pytest.MonkeyPatch, *between: object) -> None:
    """In place of waiting, does what is to happen between two looks; at the end of that, Ctrl-C."""
    left = list(between)

    def sleep(seconds: float) -> None:
        if not left:
            raise KeyboardInterrupt
        happens = left.pop(0)
        if callable(happens):
            happens()

    monkeypatch.setattr(watch.time, "sleep", sleep)


def test_what_arrives_is_classified_once_it_stands_still(run: Run, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = inbox / "new.png"
    looking(
        monkeypatch,
        lambda: new.write_bytes(ACME[:100]),
        lambda: new.write_bytes(ACME),  # still being written at the look before
        None,
        None,
        lambda: (inbox / "other.png").write_bytes(OTHER),
        None,
    )

    done = run("watch", inbox)

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert [(Path(line["file"]).name, line["decision"]) for line in lines] == [("new.png", "acme"), ("other.png", None)]


def test_what_is_there_comes_first_when_asked_for(run: Run, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking(monkeypatch, None)

    assert [Path(json.loads(line)["file"]).name for line in run("watch", inbox, "--existing").stdout.splitlines()] == [
        "early.png"
    ]


def test_a_table_has_a_row_for_each_picture_and_its_fault(run: Run, inbox: Path) -> None:
    (inbox / "broken.png").write_bytes(b"no picture")

    done = run("watch", inbox, "--once", "--format", "csv")

    broken, early = csv.DictReader(io.StringIO(done.stdout))
    assert (early["outcome"], early["decision"], early["fault"]) == ("match", "acme", "")
    assert 0 <= float(early["probability"]) <= 1
    assert (broken["outcome"], bool(broken["fault"])) == ("", True)


def test_a_service_that_is_away_loses_no_picture(run: Run, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking(monkeypatch, None, None)
    classify = Firstsight.classify
    away = [Unreachable("http://elsewhere", ConnectionError("refused"))]

    def back_at_the_second(self: Firstsight, file: Path) -> Answer:
        if away:
            raise away.pop()
        return classify(self, file)

    monkeypatch.setattr(Firstsight, "classify", back_at_the_second)
    done = run("watch", inbox, "--existing")

    assert json.loads(done.stdout)["decision"] == "acme"
    assert "Nobody answers" in done.stderr

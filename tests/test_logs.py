from __future__ import annotations

import logging

import pytest

from app.logs import configure_logs, logger
from tests.conftest import Logged


def test_a_line_is_one_json_object_with_its_fields(logged: Logged) -> None:
    logger("here").info("request", status=200)

    (line,) = logged()
    assert (line["event"], line["level"], line["status"]) == ("request", "info", 200)
    assert line["timestamp"].endswith("Z")


def test_lines_of_libraries_look_the_same(logged: Logged) -> None:
    logging.getLogger("uvicorn.error").warning("Shutting %s", "down")

    (line,) = logged()
    assert (line["event"], line["level"]) == ("Shutting down", "warning")


def test_less_than_the_level_is_not_logged(logged: Logged) -> None:
    logger("here").debug("too fine")

    assert logged() == []


def test_a_traceback_shows_no_variables(logged: Logged, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", log_format="console")
    try:
        key = "fs_secret"
        raise ValueError(len(key))
    except ValueError:
        logger("here").exception("unexpected error")

    told = capsys.readouterr().err
    assert "ValueError: 9" in told
    assert "fs_secret" not in told.replace('key = "fs_secret"', "")  # but for the source line itself

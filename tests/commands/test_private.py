from __future__ import annotations

import subprocess
from typing import Any
from unittest.mock import Mock

import pytest

from app.commands.private import NotStarted, private_service


def test_what_decides_answers_goes_along_and_what_is_kept_elsewhere_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    deciding = {f"FIRSTSIGHT_{name}": "off" for name in ("VERIFY", "SYNTHESIS", "DETECTOR")} | {"FIRSTSIGHT_MODELS_DIR": "mine"}
    for name, value in {**deciding, "FIRSTSIGHT_STORE": "sqlite:///mine.db", "FIRSTSIGHT_AUDIT_FILE": "mine.log"}.items():
        monkeypatch.setenv(name, value)
    given: dict[str, str] = {}

    def ended_at_once(_: list[str], *, env: dict[str, str]) -> Any:
        given.update(env)
        return Mock(poll=lambda: 1)

    monkeypatch.setattr(subprocess, "Popen", ended_at_once)
    with pytest.raises(NotStarted), private_service():
        pass

    assert {name: given[name] for name in deciding} == deciding
    assert given["FIRSTSIGHT_STORE"] == "memory://"
    assert "FIRSTSIGHT_AUDIT_FILE" not in given

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app import settings as settings_module
from app.errors import InvalidSettings
from app.settings import Settings, allowed_cores, read_settings


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("FIRSTSIGHT_")]:
        monkeypatch.delenv(variable)


def test_without_variables_the_service_is_local() -> None:
    settings = read_settings()

    assert (settings.host, settings.port, settings.store) == ("127.0.0.1", 8000, "sqlite:///var/firstsight.db")


def test_a_variable_sets_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSIGHT_PORT", "9000")

    assert read_settings().port == 9000


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSIGHT_API_KEYS_FILE", "")

    assert read_settings().api_keys_file is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("TRUSTED_PROXIES", "10.0.0.1,nginx"),
        ("UNKNOWN_KEY_RATE", "often"),
        ("PORT", "65536"),
        ("STORE", "postgres://here"),
        ("STORE", "sqlite:///"),
        ("STORE", "memory://name"),
        ("STORE", "sqlite:///:memory:"),
        ("STORE", "sqlite:///./:memory:"),  # the same path, and SQLite is given the path
        ("STORE_IMAGES", "all"),
        ("VERIFY", "sometimes"),
        ("SYNTHESIS", "true"),
        ("DETECTOR", "true"),
        ("DEVICE", "tpu"),
        ("INFERENCE_THREADS", "0"),
        ("DECODE_THREADS", "-1"),
        ("MAX_BODY_BYTES", "1"),
        ("MAX_BODY_BYTES_IN_FLIGHT", "2048"),
        ("MAX_IMAGE_MEGAPIXELS", "nan"),
        ("MAX_EXAMPLES_PER_CLASS", "0"),
        ("MAX_CONCURRENT_REQUESTS", "31"),  # under the 32 pictures of a batch
        ("REQUEST_TIMEOUT_S", "0"),
        ("LOG_LEVEL", "loud"),
        ("ALLOW_ANONYMOUS", "maybe"),
        ("POORT", "1"),
    ],
)
def test_a_wrong_value_or_name_stops_the_start_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FIRSTSIGHT_{name}", value)

    with pytest.raises(InvalidSettings) as refusal:
        read_settings()

    assert len(refusal.value.faults) == 1
    assert f"FIRSTSIGHT_{name}" in refusal.value.faults[0]


def test_all_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PORT": "x", "DEVICE": "x", "POORT": "1", "HOST": "0.0.0.0", "MAX_CONCURRENT_REQUESTS": "1"}.items():
        monkeypatch.setenv(f"FIRSTSIGHT_{name}", value)

    with pytest.raises(InvalidSettings) as refusal:
        read_settings()

    assert len(refusal.value.faults) == 5


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_beyond_loopback_it_takes_keys_or_a_word(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("FIRSTSIGHT_HOST", host)
    with pytest.raises(InvalidSettings, match="FIRSTSIGHT_API_KEYS_FILE"):
        read_settings()

    monkeypatch.setenv("FIRSTSIGHT_ALLOW_ANONYMOUS", "true")
    assert read_settings().host == host

    monkeypatch.delenv("FIRSTSIGHT_ALLOW_ANONYMOUS")
    monkeypatch.setenv("FIRSTSIGHT_API_KEYS_FILE", "keys.json")
    assert read_settings().host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_neither(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("FIRSTSIGHT_HOST", host)

    assert read_settings().host == host


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), (None, 4)]
)
def test_cores_are_those_that_the_container_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(settings_module, "CGROUP_CPU_MAX", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)

    assert allowed_cores() == cores


def test_a_password_in_an_address_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSIGHT_STORE", "rediss+nothing://:secret@host")

    with pytest.raises(InvalidSettings) as fault:
        read_settings()

    assert "secret" not in str(fault.value)
    assert "host" in str(fault.value)


@pytest.mark.parametrize(
    "address", ["redis://:p@host:1/0", "rediss://host", "redis+cluster://host:7000", "redis+sentinel://a:1,b:2/pictures"]
)
def test_an_address_of_a_redis_is_a_store(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("FIRSTSIGHT_STORE", address)

    assert read_settings().store == address

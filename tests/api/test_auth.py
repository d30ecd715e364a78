from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.api.auth import RECHECK_S, KeyRing, Scope, create_key
from app.errors import InvalidSettings
from app.main import create_app
from tests.api.drawings import ACME, form
from tests.conftest import MakeClient, settings_for_tests

# Every operation of the API -> the least scope that may call it; None: open to everybody.
OPERATIONS: dict[tuple[str, str], Scope | None] = {
    ("POST", "/classify"): Scope.READ,
    ("POST", "/classify/batch"): Scope.READ,
    ("POST", "/detect"): Scope.READ,
    ("GET", "/classes"): Scope.READ,
    ("GET", "/classes/{name}"): Scope.READ,
    ("PATCH", "/classes/{name}"): Scope.ENROL,
    ("DELETE", "/classes/{name}"): Scope.ADMIN,
    ("POST", "/classes/{name}/examples"): Scope.ENROL,
    ("GET", "/classes/{name}/examples"): Scope.READ,
    ("GET", "/classes/{name}/examples/{id}"): Scope.READ,
    ("DELETE", "/classes/{name}/examples/{id}"): Scope.ENROL,
    ("GET", "/classes/{name}/examples/{id}/image"): Scope.READ,
    ("GET", "/info"): Scope.READ,
    ("GET", "/metrics"): Scope.ADMIN,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def keys(keys_file: Path) -> dict[Scope, str]:
    """A key of each scope."""
    return {scope: create_key(keys_file, key_id=scope.name.lower(), scope=scope) for scope in Scope}


@pytest.fixture
def guarded(make_client: MakeClient, keys: dict[Scope, str], keys_file: Path) -> TestClient:
    return make_client(api_keys_file=keys_file)


def test_the_table_above_has_every_operation() -> None:
    paths = create_app(settings_for_tests()).openapi()["paths"]

    assert OPERATIONS.keys() == {(method.upper(), path) for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_an_operation_asks_for_its_scope(guarded: TestClient, keys: dict[Scope, str], operation: tuple[str, str]) -> None:
    least = OPERATIONS[operation]
    method, path = operation
    path = path.format(name="acme", id="0")

    statuses = {scope: guarded.request(method, path, headers=bearer(keys[scope])).status_code for scope in Scope}

    for scope, status in statuses.items():
        assert (status == 403) == (least is not None and scope < least)
    for stranger in ({}, bearer("fs_wrong"), {"Authorization": "Basic eDp5"}):
        assert (guarded.request(method, path, headers=stranger).status_code == 401) == (least is not None)


def test_the_description_of_the_api_is_open(guarded: TestClient) -> None:
    assert guarded.get("/openapi.json").status_code == 200


def test_a_refusal_says_how_to_be_let_in(guarded: TestClient, keys: dict[Scope, str]) -> None:
    stranger = guarded.get("/classes")
    reader = guarded.delete("/classes/acme", headers=bearer(keys[Scope.READ]))

    assert stranger.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer" in stranger.json()["detail"]
    assert reader.json()["limit"] == "admin"


def test_a_stranger_learns_nothing_from_a_refusal(guarded: TestClient, keys: dict[Scope, str]) -> None:
    guarded.post("/classes/acme/examples", files=form(ACME), headers=bearer(keys[Scope.ENROL]))

    there, absent, misspelt = (guarded.get(f"/classes/{path}") for path in ("acme", "nobody", "acme?a=1"))

    assert there.json() == absent.json() == misspelt.json()


def test_without_a_key_file_nobody_is_asked(client: TestClient) -> None:
    assert client.get("/classes").status_code == 200


def test_keys_are_kept_as_hashes_in_a_file_of_the_owner(keys: dict[Scope, str], keys_file: Path) -> None:
    assert not any(key in keys_file.read_text() for key in keys.values())
    assert keys_file.stat().st_mode & 0o777 == 0o600


def test_keys_are_on_the_disk_before_they_take_the_place_of_the_old_ones(
    monkeypatch: pytest.MonkeyPatch, keys_file: Path
) -> None:
    in_place_when_flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: in_place_when_flushed.append(keys_file.exists()))

    create_key(keys_file, key_id="first", scope=Scope.READ)

    assert in_place_when_flushed == [False]
    assert keys_file.exists()


def test_keys_are_long_and_all_different(keys: dict[Scope, str]) -> None:
    assert len(set(keys.values())) == len(keys)
    assert min(len(key) for key in keys.values()) >= 40  # 32 random bytes in base64


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_change_of_the_file_counts_within_a_second(keys: dict[Scope, str], keys_file: Path) -> None:
    clock = Clock()
    ring = KeyRing(keys_file, now=clock)

    added = create_key(keys_file, key_id="later", scope=Scope.READ)
    keys_file.write_text(json.dumps({"keys": json.loads(keys_file.read_text())["keys"][1:]}))  # the reader's key is revoked
    clock.seconds += RECHECK_S

    assert RECHECK_S < 1
    assert ring.find(added) is not None
    assert ring.find(keys[Scope.READ]) is None


def test_half_an_edit_leaves_the_keys_that_were_good(keys: dict[Scope, str], keys_file: Path) -> None:
    clock = Clock()
    ring = KeyRing(keys_file, now=clock)

    keys_file.write_text('{"keys": [')
    clock.seconds += RECHECK_S

    assert ring.find(keys[Scope.READ]) is not None


def test_two_keys_cannot_have_one_name(keys: dict[Scope, str], keys_file: Path) -> None:
    with pytest.raises(InvalidSettings, match="read"):
        create_key(keys_file, key_id="read", scope=Scope.ADMIN)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "file"),
        ('{"keys": [{"id": "a", "sha256": "clear-text", "scope": "read"}]}', r"keys\.0\.sha256"),
        ('{"keys": [{"id": "a", "sha256": "' + "0" * 64 + '", "scope": "root"}]}', r"keys\.0\.scope"),
        ('{"keys": [{"id": "a b", "sha256": "' + "0" * 64 + '", "scope": "read"}]}', r"keys\.0\.id"),
        ('{"keys": [], "admin": true}', "admin"),
    ],
)
def test_a_key_file_that_cannot_be_used_stops_the_start_and_is_told_where(keys_file: Path, content: str, told: str) -> None:
    keys_file.write_text(content)

    with pytest.raises(InvalidSettings, match=told):
        create_app(settings_for_tests(api_keys_file=keys_file))


def test_a_key_file_that_is_missing_stops_the_start(keys_file: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"keys\.json: No such file"):
        create_app(settings_for_tests(api_keys_file=keys_file))

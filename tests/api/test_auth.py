from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.adapters.store_memory import MemoryStore
from app.api import auth
from app.api.audit import Audit
from app.api.auth import RECHECK_S, KeyRing, Scope, create_key, revoke_key
from app.api.idempotency import Write
from app.domain.changes import Change, Receipt
from app.errors import InvalidSettings, StoreAway
from app.main import create_app
from tests.api.drawings import ACME, OTHER, form
from tests.conftest import Logged, MakeClient, settings_for_tests

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
def foreign(keys: dict[Scope, str], keys_file: Path) -> dict[Scope, str]:
    """A key of each scope for another collection."""
    return {
        scope: create_key(keys_file, key_id=f"foreign-{scope.name.lower()}", scope=scope, collection="foreign") for scope in Scope
    }


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


# What each operation needs to get past its checks: a body, if any.
BODIES: dict[str, dict[str, Any]] = {
    "/classify": {"files": form(ACME)},
    "/classify/batch": {"files": form(ACME)},
    "/detect": {"files": form(ACME)},
    "/classes/{name}/examples": {"files": form(OTHER)},
    "/classes/{name}": {"json": {"threshold": 0.9}},
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_no_operation_with_a_key_of_one_collection_sees_or_changes_another(
    make_client: MakeClient, keys: dict[Scope, str], foreign: dict[Scope, str], keys_file: Path, operation: tuple[str, str]
) -> None:
    guarded = make_client(api_keys_file=keys_file)
    own = bearer(keys[Scope.ADMIN])
    example = guarded.post("/classes/acme/examples", files=form(ACME), headers=own).json()["examples"][0]["id"]
    before = guarded.get("/classes", headers=own).json()
    method, path = operation
    body = BODIES.get(path, {}) if method in ("POST", "PATCH") else {}

    for scope in Scope:
        response = guarded.request(method, path.format(name="acme", id=example), headers=bearer(foreign[scope]), **body)
        if (method, path) != ("POST", "/classes/{name}/examples"):  # which makes an acme of its own
            assert b"acme" not in response.content or response.status_code == 404
        assert guarded.get("/classes", headers=own).json() == before
    if path.startswith("/classes/{name}") and (method, path) != ("POST", "/classes/{name}/examples"):
        assert response.status_code == 404  # as for a class that is nowhere


def test_a_collection_has_classes_and_idempotency_keys_of_its_own(
    make_client: MakeClient, keys: dict[Scope, str], foreign: dict[Scope, str], keys_file: Path
) -> None:
    guarded = make_client(api_keys_file=keys_file)
    once = {"Idempotency-Key": "1"}

    for key, picture in ((keys[Scope.ENROL], ACME), (foreign[Scope.ENROL], OTHER)):
        report = guarded.post("/classes/acme/examples", files=form(picture), headers=bearer(key) | once)
        assert (report.status_code, report.json()["version"]) == (201, 1)

    answers = [
        guarded.post("/classify", files=form(ACME), headers=bearer(key[Scope.READ])).json()["outcome"] for key in (keys, foreign)
    ]
    assert answers == ["match", "unknown"]


def test_a_key_for_a_new_collection_works_without_a_restart(
    make_client: MakeClient, keys: dict[Scope, str], keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "RECHECK_S", 0.0)
    guarded = make_client(api_keys_file=keys_file)
    key = bearer(create_key(keys_file, key_id="later", scope=Scope.ENROL, collection="later"))

    first = guarded.get("/classes", headers=key)
    while (response := guarded.get("/classes", headers=key)).status_code == 503:
        pass

    assert (first.status_code, first.headers["Retry-After"]) == (503, "1")
    assert response.json()["classes"] == []
    assert guarded.post("/classes/acme/examples", files=form(ACME), headers=key).status_code == 201


def test_a_key_that_calls_more_often_than_it_may_is_told_when_to_come_again(make_client: MakeClient, keys_file: Path) -> None:
    slow = bearer(create_key(keys_file, key_id="slow", scope=Scope.READ, rate="2/hour"))
    free = bearer(create_key(keys_file, key_id="free", scope=Scope.READ))
    guarded = make_client(api_keys_file=keys_file)

    *served, refused = (guarded.get("/classes", headers=slow) for _ in range(3))

    assert [response.status_code for response in served] == [200, 200]
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:firstsight:problem:rate-exceeded")
    assert 0 < int(refused.headers["Retry-After"]) <= 2 * 3600
    assert [guarded.get("/classes", headers=free).status_code for _ in range(3)] == [200, 200, 200]


def test_the_settings_have_the_rate_of_keys_that_have_none(make_client: MakeClient, keys_file: Path) -> None:
    key = bearer(create_key(keys_file, key_id="any", scope=Scope.READ))
    guarded = make_client(api_keys_file=keys_file, rate_limit="1/hour")

    assert [guarded.get("/classes", headers=key).status_code for _ in range(2)] == [200, 429]


Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def audited(make_client: MakeClient, keys: dict[Scope, str], keys_file: Path, tmp_path: Path) -> tuple[TestClient, Lines]:
    """A service with an audit file, and what is in that."""
    file = tmp_path / "audit.jsonl"
    client = make_client(api_keys_file=keys_file, audit_file=file)
    return client, lambda: [json.loads(line) for line in file.read_text().splitlines()]


def test_each_write_leaves_a_line_that_says_who_what_and_which(
    audited: tuple[TestClient, Lines], keys: dict[Scope, str], logged: Logged
) -> None:
    client, lines = audited
    headers = bearer(keys[Scope.ENROL]) | {"X-Request-Id": "r1", "Idempotency-Key": "1"}
    for _ in range(2):
        client.post("/classes/acme%2Fcola/examples", files=form(ACME), headers=headers)

    done, replayed = lines()
    told = {
        "request_id": "r1",
        "key": "enrol",
        "collection": "default",
        "address": "testclient",
        "operation": "enrol",
        "outcome": "done",
        "status": 201,
        "version": 1,
    }
    named = {"class": "acme/cola", "example": None}
    assert done == told | named | {"timestamp": done["timestamp"]}
    assert replayed == done | {"outcome": "replayed", "timestamp": replayed["timestamp"]}
    in_log = [line for line in logged() if line["event"] == "write"]
    assert [line | told for line in in_log[:1]] == in_log[:1]
    assert len(in_log) == 2
    assert not any("acme" in str(line) for line in in_log)


def test_what_stores_nothing_and_is_not_refused_leaves_no_line(audited: tuple[TestClient, Lines], keys: dict[Scope, str]) -> None:
    client, lines = audited
    for query in ("", "?dry_run=true", ""):
        client.post(f"/classes/acme/examples{query}", files=form(ACME), headers=bearer(keys[Scope.ENROL]))
    client.post("/classify", files=form(ACME), headers=bearer(keys[Scope.READ]))
    client.get("/classes/nobody", headers=bearer(keys[Scope.READ]))
    client.get("/metrics", headers=bearer(keys[Scope.READ]))

    assert [line["version"] for line in lines()] == [1]


WRITES = [operation for operation, scope in OPERATIONS.items() if operation[0] != "GET" and scope in (Scope.ENROL, Scope.ADMIN)]


@pytest.mark.parametrize("operation", WRITES, ids=" ".join)
def test_a_write_that_is_denied_leaves_a_line_of_whoever_tried(
    audited: tuple[TestClient, Lines], keys: dict[Scope, str], operation: tuple[str, str]
) -> None:
    client, lines = audited
    method, path = operation
    path = path.format(name="%FF", id="0")  # no class name at all
    for headers in ({}, bearer("fs_wrong"), bearer(keys[Scope.READ]), bearer(keys[Scope.ADMIN])):
        client.request(method, path, headers=headers)

    assert [(line["key"], line["status"], line["outcome"]) for line in lines()] == [
        (None, 401, "refused"),
        (None, 401, "refused"),
        ("read", 403, "refused"),
        ("admin", 422, "refused"),
    ]
    assert {line["class"] for line in lines()} == {"\ufffd"}


class Away(MemoryStore):
    """A store whose commits fail."""

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes], receipt: Receipt | None = None) -> int:
        raise StoreAway("The store is away.")


def test_a_write_that_failed_leaves_a_line_too(make_client: MakeClient, tmp_path: Path) -> None:
    make_client(on_store=Away(), audit_file=tmp_path / "audit").post("/classes/acme/examples", files=form(ACME))

    (line,) = map(json.loads, (tmp_path / "audit").read_text().splitlines())
    assert (line["outcome"], line["status"], line["version"]) == ("failed", 503, None)


def test_a_write_whose_caller_left_while_it_was_committed_leaves_a_line(tmp_path: Path) -> None:
    scope = {"state": {"writes": True, "write": Write(None, stored=True)}, "route": SimpleNamespace(name="enrol")}

    Audit(tmp_path / "audit").note(scope | {"path_params": {"name": "acme"}}, request_id="r1", status=None)

    assert json.loads((tmp_path / "audit").read_text())["outcome"] == "unanswered"


def test_the_audit_file_is_its_owner_s_and_may_be_moved_away(audited: tuple[TestClient, Lines], tmp_path: Path) -> None:
    client, lines = audited
    file = tmp_path / "audit.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    client.delete("/classes/acme")
    file.rename(tmp_path / "audit.1")
    client.delete("/classes/other")

    assert [line["class"] for line in lines()] == ["other"]


def test_an_audit_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"AUDIT_FILE=.*cannot be written"):
        create_app(settings_for_tests(audit_file=tmp_path / "nowhere" / "audit"))


def test_a_disk_that_takes_no_line_fails_no_write(audited: tuple[TestClient, Lines], tmp_path: Path, logged: Logged) -> None:
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").mkdir()

    assert audited[0].delete("/classes/acme").status_code == 401
    assert "audit file cannot be written" in [line["event"] for line in logged()]


def test_unknown_keys_from_one_address_are_told_to_wait_and_right_ones_are_let_in(
    make_client: MakeClient, keys: dict[Scope, str], keys_file: Path
) -> None:
    guarded = make_client(api_keys_file=keys_file, unknown_key_rate="2/hour")

    *unknown, refused = (guarded.get("/classes", headers=bearer(f"fs_{number}")) for number in range(3))

    assert [response.status_code for response in unknown] == [401, 401]
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:firstsight:problem:unknown-keys")
    assert 0 < int(refused.headers["Retry-After"]) <= 2 * 3600
    assert guarded.get("/classes", headers=bearer(keys[Scope.READ])).status_code == 200
    assert [guarded.get("/classes").status_code for _ in range(5)] == [401] * 5  # no key is no guess


def test_unknown_keys_are_counted_by_address(make_client: MakeClient, keys: dict[Scope, str], keys_file: Path) -> None:
    guarded = make_client(api_keys_file=keys_file, unknown_key_rate="1/hour")

    def status(address: str) -> int:
        caller = TestClient(guarded.app, client=(address, 1))
        return caller.get("/classes", headers=bearer("fs_wrong")).status_code

    assert [status("10.0.0.1"), status("10.0.0.2"), status("10.0.0.1")] == [401, 401, 429]
    # Of IPv6 everybody has a whole network of 64 bits to call from.
    assert [status("2001:db8::1"), status("2001:db8::ffff:2"), status("2001:db8:0:1::1")] == [401, 429, 401]


def test_a_revoked_key_stops_working_while_its_successor_works(keys: dict[Scope, str], keys_file: Path) -> None:
    clock = Clock()
    ring = KeyRing(keys_file, now=clock)
    successor = create_key(keys_file, key_id="read-2", scope=Scope.READ)
    revoke_key(keys_file, key_id="read")
    clock.seconds += RECHECK_S

    assert ring.find(keys[Scope.READ]) is None
    assert ring.find(successor) is not None


def test_a_key_that_is_not_there_cannot_be_revoked(keys: dict[Scope, str], keys_file: Path) -> None:
    with pytest.raises(InvalidSettings, match="nobody"):
        revoke_key(keys_file, key_id="nobody")


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
        ('{"keys": [{"id": "a", "sha256": "' + "0" * 64 + '", "scope": "read", "collection": "../up"}]}', r"keys\.0\.collection"),
        ('{"keys": [{"id": "a", "sha256": "' + "0" * 64 + '", "scope": "read", "rate": "often"}]}', r"keys\.0\.rate"),
    ],
)
def test_a_key_file_that_cannot_be_used_stops_the_start_and_is_told_where(keys_file: Path, content: str, told: str) -> None:
    keys_file.write_text(content)

    with pytest.raises(InvalidSettings, match=told):
        create_app(settings_for_tests(api_keys_file=keys_file))


def test_a_key_file_that_is_missing_stops_the_start(keys_file: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"keys\.json: No such file"):
        create_app(settings_for_tests(api_keys_file=keys_file))

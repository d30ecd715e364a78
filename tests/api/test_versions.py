"""X-Version on every answer, X-Min-Version for reading one's own writes: across replicas nobody goes back in time."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.adapters.store_memory import MemoryStore
from app.api import dependencies
from app.main import create_app
from tests.api.drawings import ACME, form
from tests.conftest import MakeClient, settings_for_tests

# Operations that answer for the process and not from a collection.
WITHOUT_VERSION = {"/healthz", "/readyz", "/metrics"}
OPERATIONS = [
    (method, path)
    for path, methods in create_app(settings_for_tests()).openapi()["paths"].items()
    for method in methods
    if path not in WITHOUT_VERSION
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_of_a_collection_tells_its_version(client: TestClient, method: str, path: str) -> None:
    client.post("/classes/acme/examples", files=form(ACME))
    response = client.request(method, path.format(name="acme", id="0"))
    assert response.headers["X-Version"].partition("-")[2] in ("1", "2")  # a problem is of a version too


def test_the_version_of_a_write_is_that_of_its_change(client: TestClient) -> None:
    written = client.post("/classes/acme/examples", files=form(ACME))
    assert written.headers["X-Version"] == f"0-{written.json()['version']}"


def test_what_one_replica_has_written_another_has_read_when_it_is_asked_for_it(make_client: MakeClient) -> None:
    store = MemoryStore()
    one, other = (make_client(on_store=store) for _ in range(2))
    token = one.post("/classes/acme/examples", files=form(ACME)).headers["X-Version"]

    assert other.get("/classes/acme").status_code == 404  # nobody follows in this test
    assert other.get("/classes/acme", headers={"X-Min-Version": token}).status_code == 200
    assert other.post("/classify", files=form(ACME), headers={"X-Min-Version": token}).json()["decision"] == "acme"


def test_a_version_that_does_not_come_is_waited_for_a_while_and_then_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "REACH_WITHIN_S", 0.05)
    behind = client.get("/classes", headers={"X-Min-Version": "0-1"})

    assert (behind.status_code, behind.headers["Retry-After"]) == (503, "1")
    assert behind.json()["type"] == "urn:firstsight:problem:behind"
    assert "X-Version" not in behind.headers or behind.headers["X-Version"] == "0-0"


def test_a_version_of_an_earlier_epoch_has_passed_and_one_of_a_later_has_not(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "REACH_WITHIN_S", 0.05)
    client = make_client(on_store=MemoryStore(epoch=7))

    assert client.get("/classes", headers={"X-Min-Version": "6-99"}).status_code == 200
    assert client.get("/classes", headers={"X-Min-Version": "8-0"}).status_code == 503


@pytest.mark.parametrize("wrong", ["43", "a-b", "1-2-3", "-1-2", ""])
def test_a_version_that_is_none_is_refused(client: TestClient, wrong: str) -> None:
    refused = client.get("/classes", headers={"X-Min-Version": wrong})
    assert (refused.status_code, refused.json()["field"]) == (422, "X-Min-Version")

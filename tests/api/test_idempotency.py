"""A write that is sent again with its Idempotency-Key happens once, and is told what came of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.adapters.store_memory import MemoryStore
from app.domain.changes import Change, Receipt
from app.service import collection
from tests.api.drawings import ACME, ACME_AGAIN, OTHER, form
from tests.conftest import MakeClient


def key(value: str = "1") -> dict[str, str]:
    return {"Idempotency-Key": value}


def enrol(client: TestClient, picture: bytes = ACME, name: str = "acme", **headers: str) -> httpx.Response:
    return client.post(f"/classes/{name}/examples", files=form(picture), headers=key() | headers)


def waiting_for(event: threading.Event, commit: Any) -> Any:
    """A commit that begins when the event has come, and holds up nobody else meanwhile."""

    async def waits(*arguments: Any, **options: Any) -> int:
        while not event.is_set():
            await asyncio.sleep(0)
        version: int = await commit(*arguments, **options)
        return version

    return waits


def told(response: httpx.Response) -> tuple[int, Any, str | None]:
    return response.status_code, response.json(), response.headers.get("ETag")


def test_an_enrolment_that_is_sent_again_is_told_as_it_was_and_not_done_again(client: TestClient) -> None:
    first = enrol(client)
    client.delete("/classes/acme")  # so that doing it again would show
    again = enrol(client)

    assert told(again) == told(first)
    assert first.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert client.get("/classes/acme").status_code == 404


WRITES = [
    ("PATCH", "/classes/acme", {"json": {"threshold": 0.7, "metadata": {"a": 1}}}),
    ("PATCH", "/classes/acme", {"json": {"name": "new"}}),
    ("DELETE", "/classes/acme", {}),
    ("DELETE", "/classes/acme/examples/{id}", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_every_write_can_be_sent_again(client: TestClient, method: str, path: str, body: dict[str, Any]) -> None:
    example = enrol(client, **key("enrolment")).json()["examples"][0]["id"]
    responses = [client.request(method, path.format(id=example), headers=key(), **body) for _ in range(2)]

    assert responses[0].is_success
    assert told(responses[0]) == told(responses[1])
    assert client.get("/info").json()["gallery_version"] == 2


def test_the_same_picture_in_another_form_is_the_same_request(client: TestClient) -> None:
    first = client.post("/classes/acme/examples", content=ACME, headers=key() | {"Content-Type": "image/png"})
    again = enrol(client)  # a form, with a boundary of its own

    assert told(again) == told(first)


@pytest.mark.parametrize(
    "other",
    [
        lambda client: enrol(client, OTHER),
        lambda client: enrol(client, name="other"),
        lambda client: client.post("/classes/acme/examples?dry_run=true", files=form(ACME), headers=key()),
        lambda client: client.delete("/classes/acme", headers=key()),
    ],
)
def test_a_key_stands_for_one_request(client: TestClient, other: Any) -> None:
    enrol(client)
    refused = other(client)

    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:firstsight:problem:idempotency-key-reused"
    assert client.get("/info").json()["gallery_version"] == 1


def test_what_was_refused_can_be_put_right_under_the_same_key(client: TestClient) -> None:
    assert enrol(client, b"no picture").status_code == 415
    assert enrol(client).status_code == 201


def test_a_dry_run_takes_no_key_away(client: TestClient) -> None:
    client.post("/classes/acme/examples?dry_run=true", files=form(ACME), headers=key())
    assert enrol(client).status_code == 201


@pytest.mark.parametrize("wrong", ["", "with space", "x" * 201])
def test_a_key_that_is_none_is_refused(client: TestClient, wrong: str) -> None:
    refused = enrol(client, **key(wrong))
    assert (refused.status_code, refused.json()["field"]) == (422, "Idempotency-Key")


def test_without_a_key_each_request_is_its_own(client: TestClient) -> None:
    versions = [client.patch("/classes/acme", json={"threshold": 0.7}) for _ in range(2) if enrol(client)]
    assert [response.json()["version"] for response in versions] == [2, 3]


class SlowStore(MemoryStore):
    """A store whose commits wait for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.committing, self.go_on = threading.Event(), threading.Event()

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes], receipt: Receipt | None = None) -> int:
        self.committing.set()
        self.go_on.wait()
        return super().commit(change, expected=expected, crops=crops, receipt=receipt)


def test_while_the_first_is_at_work_the_second_is_told_so(make_client: MakeClient) -> None:
    store = SlowStore()
    client = make_client(on_store=store)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(enrol, client)
        store.committing.wait()
        second = enrol(client)
        store.go_on.set()

    assert (second.status_code, second.headers["Retry-After"]) == (409, "1")
    assert second.json()["type"] == "urn:firstsight:problem:idempotency-key-in-progress"
    assert first.result().status_code == 201
    assert told(enrol(client)) == told(first.result())


def test_of_two_replicas_at_work_on_one_request_one_commits_and_both_tell_the_same(make_client: MakeClient) -> None:
    store = SlowStore()
    replicas = [make_client(on_store=store) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(enrol, replica) for replica in replicas]
        store.committing.wait()
        store.go_on.set()
        responses = [each.result() for each in waiting]

    assert told(responses[0]) == told(responses[1])
    assert store.snapshot().version == 1


class Noting(MemoryStore):
    """A store that notes for how long writes are held."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[str] = []
        self.begun = 0

    def begin(self, key: str, *, holder: str, lease_s: float) -> Receipt | None:
        self.begun += 1
        if holder not in self.held:
            self.held.append(holder)
        return super().begin(key, holder=holder, lease_s=lease_s)

    def end(self, key: str, *, holder: str) -> None:
        self.held.remove(holder)
        super().end(key, holder=holder)


@pytest.mark.parametrize(("picture", "status"), [(b"no picture", 415), (ACME, 201)])
def test_what_is_answered_is_no_longer_at_work(make_client: MakeClient, picture: bytes, status: int) -> None:
    store = Noting()
    assert enrol(make_client(on_store=store), picture).status_code == status
    assert (store.begun, store.held) == (1, [])


def test_what_takes_longer_than_its_lease_is_held_all_the_same(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "LEASE_S", 0.003)
    store, slow = Noting(), threading.Event()
    monkeypatch.setattr(collection.Collection, "commit", waiting_for(slow, collection.Collection.commit))
    client = make_client(on_store=store)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(enrol, client)
        while store.begun < 3:
            pass
        slow.set()
        assert first.result().status_code == 201


def test_concurrent_enrolments_of_one_class_from_two_replicas_all_count(make_client: MakeClient) -> None:
    store = MemoryStore()
    replicas = [make_client(on_store=store) for _ in range(2)]
    pictures = [ACME, ACME_AGAIN, OTHER, *(ACME + bytes(count) for count in range(1, 6))]  # what follows the end is not looked at
    with ThreadPoolExecutor(8) as threads:
        sent = [
            threads.submit(enrol, replicas[number % 2], picture, **key(str(number))) for number, picture in enumerate(pictures)
        ]
        assert [each.result().status_code for each in sent] == [201] * 8

    (state,) = store.snapshot().classes
    assert len(state.examples) == 8
    shown = [replica.get("/classes/acme", headers={"X-Min-Version": "0-8"}).json() for replica in replicas]
    assert shown[0] == shown[1]

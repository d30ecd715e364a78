from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.adapters.store_memory import MemoryStore
from tests.api.drawings import ACME, form
from tests.conftest import Logged, MakeClient


class BrokenStore(MemoryStore):
    """Has a fault that nobody foresaw."""

    def read_crop(self, class_name: str, example_id: str) -> bytes | None:
        raise ZeroDivisionError("secret inside")


@pytest.mark.parametrize("path", ["/healthz", "/classes", "/nothing", "/classes/nobody"])
def test_every_response_has_an_id(client: TestClient, path: str) -> None:
    first, second = (client.get(path).headers["X-Request-Id"] for _ in range(2))

    assert first != second


def test_a_callers_request_id_is_kept(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "trace-1.a"}).headers["X-Request-Id"] == "trace-1.a"


@pytest.mark.parametrize("given", ["a b", "x" * 129, '{"a":1}', "", "é".encode()])
def test_a_request_id_that_could_spoil_the_log_is_replaced(client: TestClient, given: str | bytes) -> None:
    returned = client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"]

    assert len(returned) == 32


def test_what_nobody_foresaw_is_a_problem_that_tells_nothing(logged: Logged, make_client: MakeClient) -> None:
    client = make_client(on_store=BrokenStore())
    example = client.post("/classes/acme/examples", files=form(ACME)).json()["examples"][0]["id"]

    response = client.get(f"/classes/acme/examples/{example}/image")

    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["type"] == "urn:firstsight:problem:internal-error"
    assert "secret" not in response.text
    told = next(line for line in logged() if line["event"] == "unexpected error")
    assert told["request_id"] == response.headers["X-Request-Id"]
    assert "ZeroDivisionError: secret inside" in told["exception"]


def test_a_request_is_one_line_that_names_the_route_and_not_the_class(logged: Logged, client: TestClient) -> None:
    client.get("/classes/shy-person?a=1", headers={"X-Request-Id": "my-id"})

    line = next(line for line in logged() if line.get("request_id") == "my-id")
    assert (line["event"], line["method"], line["route"], line["status"]) == ("request", "GET", "/classes/{name}", 422)
    assert line["detail"] == "There is no such parameter here: a."
    assert line["ms"] >= 0


def test_the_line_of_a_classification_has_its_stages_and_its_outcome(logged: Logged, client: TestClient) -> None:
    client.post("/classify", files=form(ACME))

    line = next(line for line in logged() if line.get("route") == "/classify")
    assert line["outcome"] == "unknown"
    assert {"queue_ms", "decode_ms", "embed_ms", "search_ms", "decide_ms"} <= line.keys()
    assert line["decode_ms"] + line["embed_ms"] <= line["ms"]


def test_the_stages_of_one_request_are_not_those_of_another(logged: Logged, client: TestClient) -> None:
    client.post("/classify", files=form(ACME))
    client.get("/classes")

    line = next(line for line in logged() if line.get("route") == "/classes")
    assert not any(name.endswith("_ms") for name in line)


def test_probes_are_not_logged(logged: Logged, client: TestClient) -> None:
    client.get("/healthz", headers={"X-Request-Id": "my-id"})

    assert [line for line in logged() if line.get("request_id") == "my-id"] == []


def test_being_busy_is_counted_and_not_logged(logged: Logged, make_client: MakeClient) -> None:
    client = make_client(request_timeout_s=1e-9)

    assert client.post("/classify", files=form(ACME)).status_code == 503

    assert [line for line in logged() if line["event"] == "request"] == []


def test_a_fault_of_ours_is_logged_as_an_error(logged: Logged, make_client: MakeClient) -> None:
    client = make_client(on_store=BrokenStore())
    example = client.post("/classes/acme/examples", files=form(ACME)).json()["examples"][0]["id"]

    client.get(f"/classes/acme/examples/{example}/image")

    assert [line["level"] for line in logged() if line.get("status") == 500] == ["error"]

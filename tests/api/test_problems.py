"""One error shape everywhere: ours, the framework's and the unexpected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app import errors
from app.adapters.store_memory import MemoryStore
from app.api.problems import PROBLEMS, problem_of, problem_response
from app.errors import FirstsightError, StoreUnavailable
from tests.api.drawings import ACME, form
from tests.conftest import Logged, MakeClient


class FullStore(MemoryStore):
    def commit(self, *args: object, **kwargs: object) -> int:
        raise StoreUnavailable("The store /srv/secret.db cannot be used: disk is full.")


def leaves(kind: type[FirstsightError] = FirstsightError) -> Iterator[type[FirstsightError]]:
    children = kind.__subclasses__()
    yield from [kind] if not children else [leaf for child in children for leaf in leaves(child)]


@pytest.mark.parametrize("kind", list(leaves()), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_in_the_table(kind: type[FirstsightError]) -> None:
    assert any(parent in PROBLEMS for parent in kind.__mro__)


def test_the_names_of_problems_are_distinct() -> None:
    names = [name for _, name, _ in PROBLEMS.values()]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/classes/", 404, "not-found"),
        ("GET", "/classes//examples", 404, "not-found"),
        ("GET", "/docs", 404, "not-found"),
        ("GET", "/classify", 405, "method-not-allowed"),
        ("PUT", "/classes/acme", 405, "method-not-allowed"),
        ("GET", "/classes/acme?a=1", 422, "invalid-input"),
        ("GET", "/classes/acme", 404, "unknown-class"),
    ],
)
def test_errors_of_the_framework_are_problems_too(client: TestClient, method: str, path: str, status: int, name: str) -> None:
    response = client.request(method, path)

    problem = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["type"]) == (status, status, f"urn:firstsight:problem:{name}")
    assert problem["title"]
    assert problem["detail"]


@pytest.mark.parametrize(
    ("path", "offered"), [("/classify", "POST"), ("/classes/acme", "DELETE, GET, PATCH"), ("/classes/acme/examples", "GET, POST")]
)
def test_a_method_that_is_not_offered_is_told_which_are(client: TestClient, path: str, offered: str) -> None:
    response = client.put(path)

    assert response.headers["Allow"] == offered
    assert response.json()["limit"] == offered


def test_a_store_that_cannot_keep_is_a_503_that_says_so(logged: Logged, make_client: MakeClient) -> None:
    client = make_client(on_store=FullStore())

    response = client.post("/classes/acme/examples", files=form(ACME))

    assert (response.status_code, response.json()["type"]) == (503, "urn:firstsight:problem:store-unavailable")
    assert "nothing is known to be stored" in response.json()["detail"]
    assert "secret" not in response.text
    told = next(line for line in logged() if line.get("status") == 503)
    assert (told["level"], told["detail"]) == ("error", "The store /srv/secret.db cannot be used: disk is full.")
    assert response.headers["Retry-After"] == "5"
    assert client.get("/classes").json()["classes"] == []


def test_an_answer_that_would_be_late_is_not_begun(make_client: MakeClient) -> None:
    client = make_client(request_timeout_s=1e-9)

    response = client.post("/classify", files=form(ACME))

    assert (response.status_code, response.json()["type"]) == (503, "urn:firstsight:problem:deadline-passed")
    assert response.headers["Retry-After"] == "1"


def test_an_operators_fault_is_not_told_to_callers() -> None:
    problem = problem_of(errors.LogTrimmed("The log in /srv/secret.db ends at 5."))

    assert problem.status == 500
    assert "secret" not in problem.detail


def test_field_and_limit_stand_only_where_they_apply() -> None:
    bare = problem_response(errors.MalformedRequest("No."))
    full = problem_response(errors.TooLarge("Much.", field="body", limit=0))

    assert b'"field"' not in bare.body
    assert b'"field":"body","limit":0' in full.body

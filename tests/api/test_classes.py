from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from app.api.bodies import MAX_PATCH_BYTES
from tests.api.drawings import ACME, OTHER, form


@pytest.fixture
def acme(client: TestClient) -> TestClient:
    assert client.post("/classes/acme/examples", files=form(ACME)).status_code == 201
    return client


def test_a_class_is_read_with_its_version_as_etag(acme: TestClient) -> None:
    response = acme.get("/classes/acme")

    state = response.json()
    assert state.keys() == {"class", "examples", "threshold", "version", "metadata"}
    assert (state["class"], state["examples"], state["version"], state["metadata"]) == ("acme", 1, 1, {})
    assert response.headers["ETag"] == '"1"'


def test_pages_of_classes_join_without_gap_or_repeat(client: TestClient) -> None:
    for name in ("c", "a", "b"):
        client.post(f"/classes/{name}/examples", files=form(ACME))

    first = client.get("/classes?limit=2").json()
    second = client.get(f"/classes?limit=2&cursor={first['next_cursor']}").json()

    assert [state["class"] for page in (first, second) for state in page["classes"]] == ["a", "b", "c"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=%00", "offset=3"])
def test_a_page_that_cannot_be_is_refused_by_its_parameter(client: TestClient, query: str) -> None:
    response = client.get(f"/classes?{query}")

    assert (response.status_code, response.json()["field"]) == (422, query.partition("=")[0])


def test_one_patch_renames_and_configures_in_one_change(acme: TestClient) -> None:
    response = acme.patch("/classes/acme", json={"name": "Acme 2", "threshold": 0.5, "metadata": {"sku": [1, None]}})

    assert response.json() == {"class": "Acme 2", "examples": 1, "threshold": 0.5, "version": 2, "metadata": {"sku": [1, None]}}
    assert response.headers["ETag"] == '"2"'
    assert acme.get("/classes/acme").status_code == 404
    assert acme.post("/classify", files=form(ACME)).json()["decision"] == "Acme 2"


def test_what_a_patch_leaves_out_stays(acme: TestClient) -> None:
    acme.patch("/classes/acme", json={"threshold": 0.5, "metadata": {"a": 1}})

    state = acme.patch("/classes/acme", json={"metadata": {"b": 2}}).json()

    assert (state["class"], state["threshold"], state["metadata"]) == ("acme", 0.5, {"b": 2})


def test_a_threshold_of_null_returns_to_the_computed_one(acme: TestClient) -> None:
    computed = acme.get("/classes/acme").json()["threshold"]
    acme.patch("/classes/acme", json={"threshold": 0.123})

    assert acme.patch("/classes/acme", json={"threshold": None}).json()["threshold"] == computed


REFUSED_PATCHES: dict[str, tuple[str, int, str | None]] = {
    "no JSON": ("{", 400, None),
    "an unknown field": ('{"treshold": 0.5}', 422, "treshold"),
    "a name of null": ('{"name": null}', 422, "name"),
    "a name that is no name": ('{"name": ".."}', 422, "name"),
    "a name that is too long": (f'{{"name": "{"x" * 201}"}}', 422, "name"),
    "a threshold that is no similarity": ('{"threshold": 1.5}', 422, "threshold"),
    "a threshold in words": ('{"threshold": "0.5"}', 422, "threshold"),
    "a threshold that is no number": ('{"threshold": NaN}', 422, "threshold"),
    "metadata that are no object": ('{"metadata": [1]}', 422, "metadata"),
    "metadata of null": ('{"metadata": null}', 422, "metadata"),
    "metadata of more than 4 KiB": (f'{{"metadata": {{"a": "{"x" * 4096}"}}}}', 422, "metadata"),
    "metadata that are no JSON": ('{"metadata": {"a": NaN}}', 422, "metadata"),
}


@pytest.mark.parametrize("case", REFUSED_PATCHES)
def test_a_patch_that_breaks_a_rule_is_refused_and_changes_nothing(acme: TestClient, case: str) -> None:
    body, status, field = REFUSED_PATCHES[case]
    before = acme.get("/classes/acme").json()

    response = acme.patch("/classes/acme", content=body, headers={"Content-Type": "application/json"})

    assert (response.status_code, response.json().get("field")) == (status, field)
    assert acme.get("/classes/acme").json() == before


def test_a_patch_is_held_to_a_limit_of_its_own(acme: TestClient) -> None:
    response = acme.patch("/classes/acme", json={"metadata": {"a": "x" * MAX_PATCH_BYTES}})

    assert (response.status_code, response.json()["field"], response.json()["limit"]) == (413, "body", MAX_PATCH_BYTES)
    assert acme.get("/classes/acme").json()["metadata"] == {}


def test_a_patch_that_is_not_called_json_is_told_so(acme: TestClient) -> None:
    response = acme.patch("/classes/acme", content='{"threshold": 0.5}')

    assert (response.status_code, response.json()["field"]) == (400, "Content-Type")


def test_a_name_that_is_taken_is_a_conflict(acme: TestClient) -> None:
    acme.post("/classes/other/examples", files=form(OTHER))

    response = acme.patch("/classes/acme", json={"name": "other"})

    assert (response.status_code, response.json()["field"]) == (409, "name")


def test_a_deleted_class_is_gone_and_answers_no_more(acme: TestClient) -> None:
    assert acme.delete("/classes/acme").json() == {"version": 2}

    assert acme.get("/classes/acme").status_code == 404
    assert acme.delete("/classes/acme").status_code == 404
    assert acme.post("/classify", files=form(ACME)).json()["reason"] == "no_classes"


@pytest.mark.parametrize(("method", "body"), [("PATCH", {"threshold": 0.5}), ("DELETE", None)])
def test_an_outdated_etag_changes_nothing(acme: TestClient, method: str, body: Any) -> None:
    stale = acme.get("/classes/acme").headers["ETag"]
    acme.patch("/classes/acme", json={"threshold": 0.7})

    refused = acme.request(method, "/classes/acme", json=body, headers={"If-Match": stale})
    allowed = acme.request(method, "/classes/acme", json=body, headers={"If-Match": '"2"'})

    assert (refused.status_code, refused.json()["limit"]) == (412, 2)
    assert allowed.status_code == 200


@pytest.mark.parametrize("etag", ["2", 'W/"2"', '"a"', '"1", "2"'])
def test_what_is_no_etag_of_a_class_is_refused(acme: TestClient, etag: str) -> None:
    response = acme.delete("/classes/acme", headers={"If-Match": etag})

    assert (response.status_code, response.json()["field"]) == (422, "If-Match")


def test_if_match_with_a_star_is_any_version(acme: TestClient) -> None:
    assert acme.delete("/classes/acme", headers={"If-Match": "*"}).status_code == 200


GOOD_NAMES = [
    "a/b",
    "%2F",
    "a%b",
    "a?b#c",
    "...",
    " x ",
    "../../etc/passwd",
    "日本語",
    "\u202eabc",
    "🙂",
    "x" * 200,
    "examples",
    "a+b",
]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_name_comes_back_as_it_was_sent(client: TestClient, name: str) -> None:
    created = client.post(f"/classes/{quote(name, safe='')}/examples", files=form(ACME))

    assert created.json()["class"] == name
    assert [state["class"] for state in client.get("/classes").json()["classes"]] == [name]
    assert client.get(f"/classes/{quote(name, safe='')}").json()["class"] == name


def test_composed_and_decomposed_letters_name_one_class(client: TestClient) -> None:
    client.post("/classes/Caf%C3%A9/examples", files=form(ACME))  # e with acute

    assert client.get("/classes/Cafe%CC%81").json()["class"] == "Caf\u00e9"  # e, then a combining acute


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [("GET", "/classes/{name}", "name"), ("POST", "/classify?classes={name}", "classes"), ("PATCH", "/classes/acme", "name")],
)
def test_a_name_of_very_many_marks_is_refused_before_they_are_composed(
    acme: TestClient, method: str, path: str, field: str
) -> None:
    marks = "e" + "\u0301" * 8_000  # composing them takes 0.2 s, in which nobody is answered
    sent: dict[str, Any] = {"json": {"name": marks}} if method == "PATCH" else {"files": form(ACME)} if method == "POST" else {}

    problem = acme.request(method, path.format(name=quote(marks)), **sent).json()

    assert (problem["status"], problem["field"], problem["limit"]) == (422, field, 200)
    assert "this one has 8001" in problem["detail"]  # composed, it would have one less


@pytest.mark.parametrize("path", ["%2e", "%2E%2e", "a%00b", "a%0Ab", "%C3", "%ff", "a%zz", "x" * 201, "%ED%A0%80"])
def test_a_name_that_is_none_is_refused(client: TestClient, path: str) -> None:
    response = client.post(f"/classes/{path}/examples", files=form(ACME))

    assert (response.status_code, response.json()["field"]) == (422, "name")
    assert client.get("/classes").json()["classes"] == []

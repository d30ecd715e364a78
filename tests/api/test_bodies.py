"""What a body may be, and what each that may not be is told. All of it on /classify; enrolment reads bodies by the same code."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.schemas import PicturesIn
from tests.api.drawings import ACME, base64_of, form
from tests.conftest import Logged, MakeClient

BASE64 = base64_of(ACME)
MULTIPART = {"Content-Type": "multipart/form-data; boundary=line"}


def parts(*bodies: str, end: str = "--line--\r\n") -> bytes:
    return ("".join(f"--line\r\n{body}\r\n" for body in bodies) + end).encode("latin-1")


def part(name: str, content: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{content}'


REFUSED_FORMS: dict[str, tuple[bytes, int, str | None]] = {
    "no part at all": (parts(), 422, "image"),
    "a part of another name": (parts(part("file", "x")), 422, "file"),
    "a part without a name": (parts("Content-Type: image/png\r\n\r\nx"), 422, ""),
    "an empty picture": (parts(part("image", "")), 422, "image"),
    "two pictures where one is asked for": (parts(part("image", "x"), part("image", "y")), 422, "image"),
    "a box before its picture": (parts(part("box", "0,0,9,9"), part("image", "x")), 422, "box"),
    "two boxes for one picture": (parts(part("image", "x"), part("box", "0,0,9,9"), part("box", "0,0,9,9")), 422, "box"),
    "a box of three numbers": (parts(part("image", "x"), part("box", "0,0,9")), 422, "image.box"),
    "a box of fractions": (parts(part("image", "x"), part("box", "0.5,0,9,9")), 422, "image.box"),
    "a box without end": (parts(part("image", "x"), part("box", "1" * 65)), 422, "box"),
    "no last boundary": (parts(part("image", "x"), end=""), 400, None),
    "another boundary": (b"--other\r\n\r\n--other--\r\n", 400, None),
    "no multipart": (b"x" * 100, 400, None),
    "headers without end": (b"--line\r\n" + b"A: b\r\n" * 10_000, 400, None),
}


@pytest.mark.parametrize("case", REFUSED_FORMS)
def test_a_form_that_breaks_a_rule_is_refused_with_the_field(client: TestClient, case: str) -> None:
    body, status, field = REFUSED_FORMS[case]

    response = client.post("/classify", content=body, headers=MULTIPART)

    assert (response.status_code, response.json().get("field")) == (status, field)


REFUSED_JSON: dict[str, tuple[str, int, str | None]] = {
    "nothing": ("", 400, None),
    "cut off": ('{"image": {"data": "', 400, None),
    "too deep": ("[" * 100_000, 400, None),
    "not UTF-8": ('{"image": {"data": "\udcff"}}', 400, None),
    "a list": ("[]", 422, "body"),
    "no image": ("{}", 422, "image"),
    "several for one": ('{"images": []}', 422, "image"),
    "an unknown field": (f'{{"image": {{"data": "{BASE64}", "url": "x"}}}}', 422, "image.url"),
    "a number as data": ('{"image": {"data": 5}}', 422, "image.data"),
    "no base64": ('{"image": {"data": "????"}}', 422, "image.data"),
    "base64 without padding": ('{"image": {"data": "QUI"}}', 422, "image.data"),
    "base64 in lines": (r'{"image": {"data": "QUJD\nQUJD"}}', 422, "image.data"),
    "a data URL": (f'{{"image": {{"data": "data:image/png;base64,{BASE64}"}}}}', 422, "image.data"),
    "base64 of nothing": ('{"image": {"data": ""}}', 422, "image"),
    "a box of strings": (
        f'{{"image": {{"data": "{BASE64}", "box": {{"x": "1", "y": 0, "width": 9, "height": 9}}}}}}', 422, "image.box.x"
    ),
    "half a box": (f'{{"image": {{"data": "{BASE64}", "box": {{"x": 1, "y": 0}}}}}}', 422, "image.box.width"),
    "a huge box": (
        f'{{"image": {{"data": "{BASE64}", "box": {{"x": {10**30}, "y": 0, "width": 9, "height": 9}}}}}}', 422, "image.box"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_JSON)
def test_json_that_breaks_a_rule_is_refused_with_the_field(client: TestClient, case: str) -> None:
    body, status, field = REFUSED_JSON[case]

    response = client.post(
        "/classify", content=body.encode(errors="surrogateescape"), headers={"Content-Type": "application/json"}
    )

    assert (response.status_code, response.json().get("field")) == (status, field)


REFUSED_REQUESTS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "an empty raw body": ("", {"content": b"", "headers": {"Content-Type": "image/png"}}, 422, "image"),
    "no Content-Type": ("", {"content": ACME}, 415, "Content-Type"),
    "what curl sends by itself": (
        "", {"content": ACME, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 415, "Content-Type"
    ),
    "multipart without a boundary": (
        "", {"content": ACME, "headers": {"Content-Type": "multipart/form-data"}}, 400, "Content-Type"
    ),
    "a box in query and form": ("?box=0,0,9,9", {"files": [*form(ACME), ("box", (None, "0,0,9,9"))]}, 422, "box"),
    "a box in query and JSON": (
        "?box=0,0,9,9",
        {"json": {"image": {"data": BASE64, "box": {"x": 0, "y": 0, "width": 9, "height": 9}}}},
        422,
        "box",
    ),
    "a box that is none": ("?box=all", {"files": form(ACME)}, 422, "box"),
    "a box outside of the picture": ("?box=60,60,9,9", {"files": form(ACME)}, 422, "image.box"),
    "a box of no area": ("?box=0,0,0,9", {"files": form(ACME)}, 422, "image.box"),
    "an unknown parameter": ("?topk=3", {"files": form(ACME)}, 422, "topk"),
    "a parameter that is no number": ("?top_k=many", {"files": form(ACME)}, 422, "top_k"),
    "top_k over its limit": ("?top_k=101", {"files": form(ACME)}, 422, "top_k"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_REQUESTS)
def test_a_request_that_breaks_a_rule_is_refused_with_the_field(client: TestClient, case: str) -> None:
    query, sent, status, field = REFUSED_REQUESTS[case]

    response = client.post(f"/classify{query}", **sent)

    assert (response.status_code, response.json()["field"]) == (status, field)


def test_a_limit_that_was_passed_is_named(client: TestClient) -> None:
    problem = client.post("/classify?top_k=101", files=form(ACME)).json()

    assert problem["limit"] == 100


def test_all_faults_of_a_query_are_told_at_once(client: TestClient) -> None:
    detail = client.post("/classify?top_k=0&topk=3", files=form(ACME)).json()["detail"]

    assert "top_k: " in detail
    assert "topk: there is no such field or parameter" in detail


# Bodies of values without end, none of which is worth a look once there are more than the pictures of a request need.
FLOODS: dict[str, str] = {
    "no pictures": '{"images": [' + ",".join(["{}"] * 50_000) + "]}",
    "pictures of nothing": '{"images": [' + ",".join(['{"data": ""}'] * 50_000) + "]}",
    "unknown fields": "{" + ",".join(f'"{number}": 1' for number in range(50_000)) + "}",
    "unknown fields of a box": '{"images": [{"data": "", "box": {'
    + ",".join(f'"{number}": 1' for number in range(50_000))
    + "}}]}",
    "one value too many": "[" + ",".join("1" * 262) + "]",
}


@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_of_json_is_refused_before_it_is_parsed(client: TestClient, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(PicturesIn, "model_validate_json", lambda body: pytest.fail("parsed"))

    response = client.post("/classify/batch", content=FLOODS[case], headers={"Content-Type": "application/json"})

    assert (response.status_code, response.json()["field"], response.json()["limit"]) == (422, "images", 32)


def test_as_many_pictures_as_a_request_may_have_all_have_room_for_a_box(client: TestClient) -> None:
    picture = {"data": BASE64, "box": {"x": 0, "y": 0, "width": 9, "height": 9}}

    results = client.post("/classify/batch", json={"images": [picture] * 32}).json()["results"]

    assert [result["status"] for result in results] == [200] * 32


def test_of_many_faults_the_first_are_told(client: TestClient) -> None:
    problem = client.post("/classify/batch", json={"images": [{}] * 32}).json()

    assert problem["field"] == "images[0].data"
    assert "images[9].data: " in problem["detail"]
    assert "images[10]" not in problem["detail"]
    assert problem["detail"].endswith("; and 22 more.")


LONG = "x" * 5_000
ECHOES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a field": ("POST", "/classify", {"json": {LONG: 1}}),
    "a parameter": ("POST", f"/classify?{LONG}=1", {"files": form(ACME)}),
    "a parameter where there is none": ("GET", f"/info?{LONG}=1", {}),
    "the name of a part": ("POST", "/classify", {"content": parts(part(LONG[:3_000], "x")), "headers": MULTIPART}),
    "a Content-Type": ("POST", "/classify", {"content": ACME, "headers": {"Content-Type": LONG}}),
    "a path": ("GET", f"/{LONG}", {}),
    "an id": ("GET", f"/classes/acme/examples/{LONG}", {}),
}


@pytest.mark.parametrize("case", ECHOES)
def test_what_a_caller_sent_is_told_back_shortened(client: TestClient, logged: Logged, case: str) -> None:
    method, path, sent = ECHOES[case]
    client.post("/classes/acme/examples", files=form(ACME))

    response = client.request(method, path, **sent)

    assert 400 <= response.status_code < 500
    assert len(response.content) < 1_000
    assert all(len(line.get("detail", "")) < 500 for line in logged())


def test_json_is_held_to_its_own_limit_and_told_the_way_out(make_client: MakeClient) -> None:
    client = make_client(max_json_bytes=1024)

    response = client.post("/classify", json={"image": {"data": "A" * 1024}})

    assert response.status_code == 413
    assert response.json()["limit"] == 1024
    assert "multipart/form-data" in response.json()["detail"]
    assert client.post("/classify", files=form(ACME)).status_code == 200


def test_ten_thousand_parts_end_at_the_first_one_too_many(client: TestClient) -> None:
    response = client.post("/classify/batch", content=parts(*[part("image", "x")] * 10_000), headers=MULTIPART)

    assert (response.status_code, response.json()["limit"]) == (422, 32)


def test_several_pictures_are_named_by_their_place(client: TestClient) -> None:
    body = {"images": [{"data": BASE64}, {"data": "?"}]}

    assert client.post("/classify/batch", json=body).json()["field"] == "images[1].data"


def test_a_query_box_is_refused_for_several_pictures(client: TestClient) -> None:
    response = client.post("/classes/acme/examples?box=0,0,9,9", files=form(ACME, ACME))

    assert (response.status_code, response.json()["field"]) == (422, "box")

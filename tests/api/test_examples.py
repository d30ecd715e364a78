from __future__ import annotations

import io

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.api.drawings import ACME, GREEN, OTHER, RED, base64_of, drawing, form
from tests.conftest import MakeClient

SECOND = drawing(RED, GREEN, side_px=72)


def test_an_enrolment_reports_what_was_understood(client: TestClient) -> None:
    client.post("/classes/other/examples", files=form(OTHER))

    response = client.post("/classes/acme/examples", files=[*form(ACME), ("box", (None, "0,0,60,64"))])

    report = response.json()
    assert response.status_code == 201
    assert (report["class"], report["version"], report["dry_run"]) == ("acme", 2, False)
    assert report["examples"][0]["box"] == {"x": 0, "y": 0, "width": 60, "height": 64}
    assert [nearest["class"] for nearest in report["nearest"]] == ["other"]
    assert report["threshold"] == client.get("/classes/acme").json()["threshold"]


def test_a_warning_has_its_number_and_its_limit(client: TestClient) -> None:
    tiny = drawing(RED, GREEN, side_px=16)  # under the 24 px of the tests' calibration

    warnings = client.post("/classes/acme/examples", files=form(tiny)).json()["examples"][0]["warnings"]

    small = next(warning for warning in warnings if warning["code"] == "too_small")
    assert (small["value"], small["limit"], small["class"], small["example"]) == (16, 24, None, None)
    assert small["detail"]


def test_a_second_enrolment_appends(client: TestClient) -> None:
    client.post("/classes/acme/examples", files=form(ACME))

    client.post("/classes/acme/examples", files=form(SECOND))

    assert client.get("/classes/acme").json()["examples"] == 2


def test_several_pictures_are_one_enrolment(client: TestClient) -> None:
    report = client.post("/classes/acme/examples", json={"images": [{"data": base64_of(data)} for data in (ACME, SECOND)]}).json()

    assert len(report["examples"]) == 2
    assert report["version"] == 1


def test_the_same_picture_again_returns_the_example_that_is_there(client: TestClient) -> None:
    first = client.post("/classes/acme/examples", files=form(ACME))

    again = client.post("/classes/acme/examples", content=ACME, headers={"Content-Type": "image/png"})

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["examples"][0]["id"] == first.json()["examples"][0]["id"]
    assert client.get("/classes/acme").json()["examples"] == 1


def test_a_dry_run_reports_and_stores_nothing(client: TestClient) -> None:
    response = client.post("/classes/acme/examples?dry_run=true", files=form(ACME))

    assert response.status_code == 200
    assert response.json()["dry_run"]
    assert client.get("/classes").json()["classes"] == []


def test_one_bad_picture_of_three_stores_none(client: TestClient) -> None:
    response = client.post("/classes/acme/examples", files=form(ACME, ACME[:200], SECOND))

    assert response.status_code == 422
    assert response.json()["field"] == "images[1]"
    assert client.get("/classes/acme").status_code == 404


def test_a_picture_over_the_megapixels_is_refused(make_client: MakeClient) -> None:
    client = make_client(max_image_megapixels=0.004)  # 4,000 pixels, and the drawing has 64 x 64 = 4,096

    response = client.post("/classes/acme/examples", files=form(ACME))

    assert (response.status_code, response.json()["limit"]) == (413, 4000)


def test_examples_are_listed_with_their_similarity_to_the_others(client: TestClient) -> None:
    client.post("/classes/acme/examples", files=form(ACME))
    alone = client.get("/classes/acme/examples").json()["examples"]
    client.post("/classes/acme/examples", files=form(SECOND))

    together = client.get("/classes/acme/examples").json()["examples"]

    assert [example["similarity"] for example in alone] == [None]
    assert all(example["similarity"] > 0.9 for example in together)
    assert together[0]["box"]["x"] == 0


def test_pages_of_examples_join_without_gap_or_repeat(client: TestClient) -> None:
    pictures = [drawing(RED, GREEN, side_px=side) for side in (64, 72, 80)]
    client.post("/classes/acme/examples", files=form(*pictures))

    first = client.get("/classes/acme/examples?limit=2").json()
    second = client.get(f"/classes/acme/examples?limit=2&cursor={first['next_cursor']}").json()

    ids = [example["id"] for page in (first, second) for example in page["examples"]]
    assert len(set(ids)) == 3
    assert second["next_cursor"] is None


def test_one_example_can_be_read_and_removed(client: TestClient) -> None:
    report = client.post("/classes/acme/examples", files=form(ACME, SECOND)).json()
    kept, gone = (f"/classes/acme/examples/{example['id']}" for example in report["examples"])

    removed = client.delete(gone)

    assert removed.json() == {"version": 2}
    assert client.get(gone).status_code == 404
    assert client.get(kept).json()["similarity"] is None  # alone now


def test_an_outdated_etag_removes_no_example(client: TestClient) -> None:
    report = client.post("/classes/acme/examples", files=form(ACME, SECOND)).json()
    path = f"/classes/acme/examples/{report['examples'][0]['id']}"
    stale = client.get("/classes/acme").headers["ETag"]
    fresh = client.patch("/classes/acme", json={"threshold": 0.7}).headers["ETag"]

    refused, allowed = (client.delete(path, headers={"If-Match": etag}) for etag in (stale, fresh))

    assert (refused.status_code, refused.json()["limit"]) == (412, 2)
    assert (allowed.status_code, allowed.json()["version"]) == (200, 3)


@pytest.mark.parametrize("etag", ['"1"', "*"])
def test_an_enrolment_that_is_sent_a_condition_is_refused(client: TestClient, etag: str) -> None:
    response = client.post("/classes/acme/examples", files=form(ACME), headers={"If-Match": etag})

    assert (response.status_code, response.json()["field"]) == (422, "If-Match")
    assert client.get("/classes").json()["classes"] == []


def test_a_class_without_examples_stays_and_never_answers(client: TestClient) -> None:
    report = client.post("/classes/acme/examples", files=form(ACME)).json()

    client.delete(f"/classes/acme/examples/{report['examples'][0]['id']}")

    state = client.get("/classes/acme").json()
    assert (state["examples"], state["threshold"]) == (0, None)
    assert client.post("/classify", files=form(ACME)).json()["candidates"] == []


def test_the_picture_of_an_example_is_served_as_a_file_and_nothing_else(client: TestClient) -> None:
    report = client.post("/classes/acme/examples", files=form(ACME)).json()

    response = client.get(f"/classes/acme/examples/{report['examples'][0]['id']}/image")

    assert Image.open(io.BytesIO(response.content)).size == (64, 64)
    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.headers["Content-Disposition"].startswith("attachment;")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_without_stored_pictures_there_is_none_to_serve(make_client: MakeClient) -> None:
    client = make_client(store_images="none")
    report = client.post("/classes/acme/examples", files=form(ACME)).json()

    response = client.get(f"/classes/acme/examples/{report['examples'][0]['id']}/image")

    assert (response.status_code, response.json()["type"]) == (404, "urn:firstsight:problem:not-found")


@pytest.mark.parametrize("path", ["/classes/nobody/examples", "/classes/nobody/examples/0", "/classes/nobody/examples/0/image"])
def test_examples_of_an_unknown_class_are_not_found(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert (response.status_code, response.json()["type"]) == (404, "urn:firstsight:problem:unknown-class")


@pytest.mark.parametrize("end", ["", "/image"])
def test_an_unknown_example_is_not_found(client: TestClient, end: str) -> None:
    client.post("/classes/acme/examples", files=form(ACME))

    response = client.get(f"/classes/acme/examples/..%2f..%2fetc%2fpasswd{end}")

    assert (response.status_code, response.json()["type"]) == (404, "urn:firstsight:problem:unknown-example")


def test_removing_an_unknown_example_is_not_found(client: TestClient) -> None:
    client.post("/classes/acme/examples", files=form(ACME))

    assert client.delete("/classes/acme/examples/0").status_code == 404

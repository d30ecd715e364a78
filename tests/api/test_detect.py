from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.domain.values import PixelArray
from tests.api.drawings import base64_of, encoded, form
from tests.conftest import Logged, MakeClient

RAW = {"Content-Type": "application/octet-stream"}


def print_of(seed: int) -> PixelArray:
    """Squares of 2 pixels, black or white at random; the fake points find it again on a grid of 8 pixels."""
    squares = np.random.default_rng(seed).integers(0, 2, (32, 32, 1), dtype=np.uint8) * 255
    return squares.repeat(2, axis=0).repeat(2, axis=1).repeat(3, axis=2)


ACME, OTHER = print_of(1), print_of(2)


def scene(**places: tuple[int, int]) -> bytes:
    """Acme and other on grey, where they are wanted: as much of them as is inside."""
    pixels = np.full((240 + 64, 320 + 64, 3), 128, np.uint8)
    for name, (x, y) in places.items():
        pixels[y : y + 64, x : x + 64] = {"acme": ACME, "other": OTHER}[name]
    return encoded(pixels[:240, :320], "PNG")


def enrol_both(client: TestClient) -> TestClient:
    for name, pixels in (("acme", ACME), ("other", OTHER)):
        assert client.post(f"/classes/{name}/examples", files=form(encoded(pixels, "PNG"))).status_code == 201
    return client


@pytest.fixture
def taught(client: TestClient) -> TestClient:
    """Knows acme and other."""
    return enrol_both(client)


def found_in(answer: dict[str, Any]) -> set[tuple[str, int, int]]:
    return {(one["class"], one["box"]["x"], one["box"]["y"]) for one in answer["detections"]}


BOTH = scene(acme=(8, 16), other=(200, 160))


def test_an_enrolled_thing_is_found_from_the_next_request_on(taught: TestClient) -> None:
    example = taught.get("/classes/acme/examples").json()["examples"][0]["id"]

    answer = taught.post("/detect", files=form(scene(acme=(104, 48)))).json()

    (one,) = answer["detections"]
    shown = one["evidence"][0]
    assert answer["image"] == {"width": 320, "height": 240}
    assert (answer["version"], answer["model"]) == (2, "fakemodelset0000")
    assert (one["class"], one["outcome"], one["reason"], one["accepted"]) == ("acme", "match", None, True)
    assert one["box"] == {"x": 104, "y": 48, "width": 64, "height": 64}
    assert 0 <= one["probability"] <= 1
    assert -1 <= one["similarity"] <= 1
    assert (shown["example"], shown["verified"]["quad"]) == (example, one["quad"])
    assert np.allclose(one["quad"], [[104, 48], [168, 48], [168, 112], [104, 112]], atol=0.5)
    assert list(one) == [
        *("class", "box", "similarity", "probability", "outcome", "reason", "accepted", "threshold", "quad", "evidence")
    ]


def test_a_box_is_clipped_and_a_quad_is_not(taught: TestClient) -> None:
    (one,) = taught.post("/detect", files=form(scene(acme=(280, 200)))).json()["detections"]

    assert one["box"] == {"x": 280, "y": 200, "width": 40, "height": 40}
    assert np.allclose(one["quad"][2], [344, 264], atol=0.5)


def test_the_three_body_forms_give_the_same_answer(taught: TestClient) -> None:
    multipart = taught.post("/detect", files=form(BOTH))
    json = taught.post("/detect", json={"image": {"data": base64_of(BOTH)}})
    raw = taught.post("/detect", content=BOTH, headers={"Content-Type": "image/png"})

    assert multipart.json() == json.json() == raw.json()
    assert found_in(raw.json()) == {("acme", 8, 16), ("other", 200, 160)}


def test_the_three_ways_to_give_a_region_are_one(taught: TestClient) -> None:
    box = {"x": 160, "y": 120, "width": 160, "height": 120}
    multipart = taught.post("/detect", files=[*form(BOTH), ("box", (None, "160,120,160,120"))])
    json = taught.post("/detect", json={"image": {"data": base64_of(BOTH), "box": box}})
    raw = taught.post("/detect?box=160,120,160,120", content=BOTH, headers=RAW)

    assert multipart.json() == json.json() == raw.json()
    assert found_in(raw.json()) == {("other", 200, 160)}
    assert raw.json()["image"] == {"width": 320, "height": 240}


def test_a_region_in_query_and_body_is_refused(taught: TestClient) -> None:
    response = taught.post("/detect?box=0,0,99,99", files=[*form(BOTH), ("box", (None, "0,0,99,99"))])

    assert (response.status_code, response.json()["field"]) == (422, "box")


def test_a_region_that_does_not_fit_is_refused_with_the_limit(taught: TestClient) -> None:
    response = taught.post("/detect?box=300,0,99,99", content=BOTH, headers=RAW)

    assert (response.status_code, response.json()["field"], response.json()["limit"]) == (422, "image.box", "320x240")


def test_a_filter_looks_for_the_named_classes_only(taught: TestClient) -> None:
    assert found_in(taught.post("/detect?classes=other", files=form(BOTH)).json()) == {("other", 200, 160)}


def test_an_unknown_name_in_the_filter_is_refused_by_name(taught: TestClient) -> None:
    response = taught.post("/detect?classes=acme&classes=nobody", files=form(BOTH))

    assert (response.status_code, response.json()["field"]) == (422, "classes")
    assert "nobody" in response.json()["detail"]


@pytest.mark.parametrize("tiles", ["auto", "on", "off"])
def test_a_scene_may_be_looked_at_more_or_less_finely(taught: TestClient, tiles: str) -> None:
    assert len(taught.post(f"/detect?tiles={tiles}", files=form(BOTH)).json()["detections"]) == 2


@pytest.mark.parametrize("tiles", ["", "yes", "4", "AUTO"])
def test_another_word_for_tiles_is_refused_with_those_there_are(taught: TestClient, tiles: str) -> None:
    response = taught.post(f"/detect?tiles={tiles}", files=form(BOTH))

    assert (response.status_code, response.json()["field"]) == (422, "tiles")
    assert all(f"'{word}'" in response.json()["detail"] for word in ("auto", "on", "off"))


def test_max_detections_shows_the_best(taught: TestClient) -> None:
    every = taught.post("/detect", files=form(BOTH)).json()["detections"]
    first = taught.post("/detect?max_detections=1", files=form(BOTH)).json()["detections"]

    assert first == every[:1]


@pytest.mark.parametrize(("wanted", "limit"), [("0", 1), ("101", 100), ("-1", 1), ("many", None)])
def test_max_detections_has_limits(taught: TestClient, wanted: str, limit: int | None) -> None:
    response = taught.post(f"/detect?max_detections={wanted}", files=form(BOTH))

    assert (response.status_code, response.json()["field"], response.json().get("limit")) == (422, "max_detections", limit)


def test_an_unknown_parameter_is_refused(taught: TestClient) -> None:
    assert taught.post("/detect?top_k=3", files=form(BOTH)).status_code == 422


@pytest.mark.parametrize(("data", "status"), [(b"no picture", 415), (b"", 422)])
def test_what_is_no_picture_is_refused(taught: TestClient, data: bytes, status: int) -> None:
    assert taught.post("/detect", content=data, headers=RAW).status_code == status


@pytest.mark.parametrize("shape", [(8, 8), (240, 320)])
def test_a_blank_picture_shows_nothing(taught: TestClient, shape: tuple[int, int]) -> None:
    answer = taught.post("/detect", files=form(encoded(np.full((*shape, 3), 200, np.uint8), "PNG"))).json()

    assert answer["detections"] == []
    assert answer["image"] == {"width": shape[1], "height": shape[0]}


def test_without_classes_nothing_is_found(client: TestClient) -> None:
    answer = client.post("/detect", files=form(BOTH)).json()

    assert (answer["version"], answer["detections"]) == (0, [])


def test_without_verification_nothing_is_found(make_client: MakeClient) -> None:
    client = enrol_both(make_client(verify="off"))

    assert client.post("/detect", files=form(BOTH)).json()["detections"] == []


def test_a_scene_that_takes_too_long_is_answered_in_time(make_client: MakeClient) -> None:
    client = make_client(request_timeout_s=1e-6)

    response = client.post("/detect", files=form(BOTH))

    assert response.status_code == 503
    assert response.json()["type"].endswith("deadline-passed")


def test_things_found_are_counted_and_the_log_says_the_best_outcome(taught: TestClient, logged: Logged) -> None:
    before = _detections(taught)

    taught.post("/detect", files=form(BOTH))
    taught.post("/detect", files=form(scene()))

    assert _detections(taught) - before == 2
    first, second = (line for line in logged() if line.get("route") == "/detect")
    assert (first["outcome"], second["outcome"]) == ("match", "unknown")
    assert {"decode_ms", "points_ms", "vote_ms", "verify_ms", "embed_ms", "decide_ms"} <= first.keys()


def _detections(client: TestClient) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('firstsight_detections_total{outcome="match"}'))

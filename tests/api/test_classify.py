from __future__ import annotations

import io

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests import pictures
from tests.api.drawings import ACME, ACME_AGAIN, GREEN, OTHER, STRANGE, base64_of, form, printed
from tests.conftest import MakeClient

BOX = {"x": 8, "y": 8, "width": 40, "height": 48}


@pytest.fixture
def taught(client: TestClient) -> TestClient:
    """Knows acme and other."""
    for name, picture in (("acme", ACME), ("other", OTHER)):
        assert client.post(f"/classes/{name}/examples", files=form(picture)).status_code == 201
    return client


def test_an_enrolled_class_is_recognised_from_the_next_request_on(taught: TestClient) -> None:
    answer = taught.post("/classify", files=form(ACME_AGAIN)).json()

    assert (answer["outcome"], answer["decision"], answer["reason"]) == ("match", "acme", None)
    assert answer["version"] == 2
    assert answer["model"] == "fakemodelset0000"


def test_an_answer_shows_its_candidates_with_the_examples_that_decided(taught: TestClient) -> None:
    example = taught.get("/classes/acme/examples").json()["examples"][0]["id"]

    best, second = taught.post("/classify", files=form(ACME)).json()["candidates"]

    assert [best["class"], second["class"]] == ["acme", "other"]
    assert [best["accepted"], second["accepted"]] == [True, False]
    assert best["similarity"] >= best["threshold"] > second["similarity"]
    assert best["probability"] > second["probability"]
    assert best["evidence"] == [{"example": example, "similarity": best["evidence"][0]["similarity"], "verified": None}]


def test_a_picture_of_nothing_enrolled_is_unknown(taught: TestClient) -> None:
    answer = taught.post("/classify", files=form(STRANGE)).json()

    assert (answer["outcome"], answer["decision"], answer["reason"]) == ("unknown", None, "below_threshold")
    assert len(answer["candidates"]) == 2  # shown all the same


def test_without_classes_everything_is_unknown(client: TestClient) -> None:
    answer = client.post("/classify", files=form(ACME)).json()

    assert (answer["outcome"], answer["reason"], answer["candidates"]) == ("unknown", "no_classes", [])


def test_top_k_limits_what_is_shown_and_not_what_is_decided(taught: TestClient) -> None:
    answer = taught.post("/classify?top_k=1", files=form(ACME)).json()

    assert answer["decision"] == "acme"
    assert len(answer["candidates"]) == 1


def test_a_filter_considers_the_named_classes_only(taught: TestClient) -> None:
    answer = taught.post("/classify?classes=other", files=form(ACME)).json()

    assert answer["decision"] is None
    assert [candidate["class"] for candidate in answer["candidates"]] == ["other"]


def test_an_unknown_name_in_the_filter_is_refused_by_name(taught: TestClient) -> None:
    response = taught.post("/classify?classes=acme&classes=nobody", files=form(ACME))

    assert response.status_code == 422
    assert response.json()["field"] == "classes"
    assert "nobody" in response.json()["detail"]


def test_the_three_body_forms_give_the_same_answer(taught: TestClient) -> None:
    multipart = taught.post("/classify", files=form(ACME))
    json = taught.post("/classify", json={"image": {"data": base64_of(ACME)}})
    raw = taught.post("/classify", content=ACME, headers={"Content-Type": "image/png"})

    assert multipart.json() == json.json() == raw.json()


def test_the_format_is_decided_by_content_not_by_header(taught: TestClient) -> None:
    answer = taught.post("/classify", content=ACME, headers={"Content-Type": "image/jpeg"})

    assert answer.json()["decision"] == "acme"


def test_the_three_ways_to_give_a_box_are_one(taught: TestClient) -> None:
    text = "{x},{y},{width},{height}".format(**BOX)
    multipart = taught.post("/classify", files=[*form(ACME), ("box", (None, text))])
    json = taught.post("/classify", json={"image": {"data": base64_of(ACME), "box": BOX}})
    raw = taught.post(f"/classify?box={text}", content=ACME, headers={"Content-Type": "application/octet-stream"})
    whole = taught.post("/classify", files=form(ACME))

    assert multipart.json() == json.json() == raw.json()
    assert raw.json() != whole.json()


def test_a_batch_answers_each_picture_on_its_own(taught: TestClient) -> None:
    response = taught.post("/classify/batch", files=form(ACME, b"no picture", OTHER))

    results = response.json()["results"]
    assert response.status_code == 200
    assert [result["status"] for result in results] == [200, 415, 200]
    assert [results[0]["decision"], results[2]["decision"]] == ["acme", "other"]
    assert results[1]["problem"]["field"] == "images[1]"
    assert "JPEG, PNG" in results[1]["problem"]["limit"]


def test_a_batch_takes_json_and_the_filter(taught: TestClient) -> None:
    body = {"images": [{"data": base64_of(ACME)}, {"data": base64_of(OTHER), "box": BOX}]}

    results = taught.post("/classify/batch?top_k=1&classes=acme", json=body).json()["results"]

    assert [result["decision"] for result in results] == ["acme", None]
    assert all(len(result["candidates"]) == 1 for result in results)


def test_a_batch_of_more_than_the_limit_is_refused_in_either_form(taught: TestClient) -> None:
    in_form = taught.post("/classify/batch", files=form(*[ACME] * 33))
    in_json = taught.post("/classify/batch", json={"images": [{"data": base64_of(ACME)}] * 33})

    assert [(refused.status_code, refused.json()["limit"]) for refused in (in_form, in_json)] == [(422, 32)] * 2
    assert [refused.json()["field"] for refused in (in_form, in_json)] == ["image", "images"]


LABEL = printed(side_px=32)  # 16 blocks of print
QUAD = [[16, 8], [48, 8], [48, 40], [16, 40]]


def shelf(*, left: int = 16, top: int = 8, side_px: int = 64, turned: bool = False) -> bytes:
    """The label on a plain ground; turned as a camera stores it that was held upside down, with the tag that says so."""
    picture = Image.new("RGB", (side_px, side_px), GREEN)
    picture.paste(Image.open(io.BytesIO(LABEL)), (left, top))
    if not turned:
        return pictures.encoded(picture)
    exif = Image.Exif()
    exif[pictures.ORIENTATION_TAG] = 3
    return pictures.encoded(picture.transpose(Image.Transpose.ROTATE_180), exif=exif)


def test_evidence_shows_the_print_that_was_verified_and_where_it_lies(taught: TestClient) -> None:
    example = taught.post("/classes/label/examples", files=form(LABEL)).json()["examples"][0]["id"]

    answer = taught.post("/classify", files=form(shelf())).json()

    best, *others = answer["candidates"]
    assert (answer["decision"], best["class"], best["accepted"]) == ("label", "label", True)
    assert best["similarity"] < best["threshold"]
    # Found are the middles of 4 x 4 blocks of 8 pixels: 24 of 32 pixels a side.
    verified = {"points": 16, "coverage": pytest.approx(0.5625, abs=0.001), "quad": QUAD}
    assert best["evidence"] == [{"example": example, "similarity": best["evidence"][0]["similarity"], "verified": verified}]
    assert [evidence["verified"] for other in others for evidence in other["evidence"]] == [None, None]


def test_a_quad_is_in_pixels_of_the_upright_picture_and_not_of_the_box(taught: TestClient) -> None:
    taught.post("/classes/label/examples", files=form(LABEL))

    def quad_of(picture: bytes, box: str | None = None) -> list[list[float]]:
        parts = form(picture) if box is None else [*form(picture), ("box", (None, box))]
        best = taught.post("/classify", files=parts).json()["candidates"][0]
        found: list[list[float]] = best["evidence"][0]["verified"]["quad"]
        return found

    assert quad_of(shelf(turned=True)) == QUAD
    assert quad_of(shelf(left=80, top=40, side_px=128), box="64,32,64,64") == [[80, 40], [112, 40], [112, 72], [80, 72]]


def test_with_verification_off_print_is_neither_looked_for_nor_shown(make_client: MakeClient) -> None:
    client = make_client(verify="off")
    client.post("/classes/label/examples", files=form(LABEL))

    answer = client.post("/classify", files=form(shelf())).json()

    assert answer["decision"] is None
    assert answer["candidates"][0]["evidence"][0]["verified"] is None

"""Hostile pictures through HTTP: each is told what it is, nothing is stored, and the next good picture is answered as before."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.errors import InvalidPicture, TooLarge, UnsupportedPicture
from tests.api.drawings import ACME, form
from tests.pictures import HOSTILE

STATUSES = {InvalidPicture: 422, TooLarge: 413, UnsupportedPicture: 415}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_picture_is_refused_beside_a_good_one(client: TestClient, case: str) -> None:
    make, error = HOSTILE[case]

    refused = client.post("/classes/acme/examples", files=form(ACME, make()))

    assert refused.json()["field"] == "images[1]"
    assert refused.status_code == STATUSES[error]
    assert client.get("/classes").json()["classes"] == []
    assert client.post("/classes/acme/examples", files=form(ACME)).status_code == 201

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app import metrics
from tests.api.drawings import ACME, OTHER, form, printed
from tests.conftest import MakeClient


def sample(client: TestClient, series: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series)


def test_info_says_what_runs(client: TestClient) -> None:
    client.post("/classes/acme/examples", files=form(ACME))

    info = client.get("/info").json()

    assert (info["name"], info["model"], info["networks"]) == ("firstsight", "fakemodelset0000", "fake networks")
    assert (info["store"], info["classes"], info["gallery_version"]) == ("memory", 1, 1)
    assert info["limits"]["max_images_per_request"] == 32
    assert info["limits"]["max_examples_per_class"] == 1000


def test_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"ready": True, "waiting_for": None}


def test_probes_ignore_parameters_that_a_prober_adds(client: TestClient) -> None:
    assert client.get("/healthz?probe=1").status_code == 200


@pytest.mark.parametrize("stage", ["queue", "decode", "embed", "search", "decide"])
def test_each_stage_of_a_classification_is_timed(client: TestClient, stage: str) -> None:
    series = f'firstsight_stage_seconds_count{{stage="{stage}"}}'
    before = sample(client, series)

    client.post("/classify", files=form(ACME))

    assert sample(client, series) > before


@pytest.mark.parametrize("stage", ["points", "vote", "verify", "look"])
def test_each_stage_of_a_proof_is_timed(make_client: MakeClient, stage: str) -> None:
    client = make_client(verify="always")
    client.post("/classes/label/examples", files=form(printed()))
    series = f'firstsight_stage_seconds_count{{stage="{stage}"}}'
    before = sample(client, series)

    client.post("/classify", files=form(printed()))

    assert sample(client, series) == before + 1


@pytest.mark.parametrize("stage", ["points", "commit"])
def test_points_and_commit_of_an_enrolment_are_timed(client: TestClient, stage: str) -> None:
    series = f'firstsight_stage_seconds_count{{stage="{stage}"}}'
    before = sample(client, series)

    client.post("/classes/acme/examples", files=form(ACME))

    assert sample(client, series) == before + 1


def test_requests_are_counted_by_route_and_status(client: TestClient) -> None:
    series = 'firstsight_requests_total{method="GET",route="/classes/{name}",status="404"}'
    before = sample(client, series)

    client.get("/classes/one"), client.get("/classes/two")

    assert sample(client, series) == before + 2


def test_outcomes_are_counted_single_and_in_batches(client: TestClient) -> None:
    client.post("/classes/acme/examples", files=form(ACME))
    series = 'firstsight_outcomes_total{outcome="match"}'
    before = sample(client, series)

    client.post("/classify", files=form(ACME))
    client.post("/classify/batch", files=form(ACME, OTHER, ACME))

    assert sample(client, series) == before + 3


def test_what_is_refused_for_want_of_time_is_counted_once_single_and_in_batches(make_client: MakeClient) -> None:
    client = make_client(request_timeout_s=1e-9)
    series = 'firstsight_refusals_total{reason="DeadlinePassed"}'
    before = sample(client, series)

    client.post("/classify", files=form(ACME))
    client.post("/classify/batch", files=form(ACME, OTHER))

    assert sample(client, series) == before + 3


def test_the_gallery_is_counted_as_it_is_served(client: TestClient) -> None:
    client.post("/classes/acme/examples", files=form(ACME))
    client.post("/classes/other/examples", files=form(OTHER))

    assert (sample(client, "firstsight_classes"), sample(client, "firstsight_version")) == (2, 2)
    assert sample(client, "firstsight_ready") == 1


def test_no_series_is_labelled_by_what_users_name(client: TestClient) -> None:
    client.post("/classes/very-secret/examples", files=form(ACME))
    client.get("/classes/very-secret")

    assert b"very-secret" not in metrics.exposition()

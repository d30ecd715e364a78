"""kill -9 of the service in the middle of enrolments over HTTP: what a client was told is stored, is there after a restart."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from queue import SimpleQueue

import httpx

from demo.server import Server, serving
from tests.api.drawings import drawing, form
from tests.model_sets import write_model_set

KILLS = 2
CLIENTS = 3  # each enrols in a class of its own, one picture after the other, so that there is always something under way
SEED = 12
ANSWERED_WITHIN_S = 60

Acknowledged = tuple[str, str, int]  # class, example, version


def test_every_enrolment_that_was_acknowledged_is_there_after_a_kill_of_the_service(tmp_path: Path) -> None:
    models = write_model_set(tmp_path / "models")
    settings = {"STORE": f"sqlite:///{tmp_path / 'firstsight.db'}", "MODELS_DIR": str(models)}
    chance, acknowledged = random.Random(SEED), list[Acknowledged]()

    for life in range(KILLS):
        with serving(settings) as live:
            acknowledged += enrol_until_killed(live, life, after=chance.randint(5, 25))
            assert live.process.wait() == -signal.SIGKILL

    with serving(settings) as live:
        there = {client: examples_of(live, f"client {client}") for client in range(CLIENTS)}
        for class_name, example_id, _ in acknowledged:
            assert example_id in there[int(class_name.removeprefix("client "))]
            assert live.http.get(f"/classes/{class_name}/examples/{example_id}/image").is_success
        # A client has one picture under way, and the last commit may be durable though its answer was cut off.
        stored = sum(map(len, there.values()))
        assert 0 <= stored - len(acknowledged) <= KILLS * CLIENTS
        assert sorted({version for *_, version in acknowledged}) == sorted(version for *_, version in acknowledged)
        assert live.http.get("/info").json()["gallery_version"] == stored  # an example each, and nothing by halves


def enrol_until_killed(live: Server, life: int, *, after: int) -> list[Acknowledged]:
    """What was acknowledged by a service that is killed once `after` enrolments were, while others are under way."""
    told = SimpleQueue[Acknowledged]()

    def enrol(client: int) -> None:
        with httpx.Client(base_url=live.http.base_url, timeout=ANSWERED_WITHIN_S) as http:
            try:
                for picture in pictures(life, client):
                    report = http.post(f"/classes/client {client}/examples", files=form(picture)).raise_for_status().json()
                    told.put((report["class"], report["examples"][0]["id"], report["version"]))
            except httpx.TransportError:
                return

    with ThreadPoolExecutor(CLIENTS) as clients:
        ending = [clients.submit(enrol, client) for client in range(CLIENTS)]
        try:
            first = [told.get(timeout=ANSWERED_WITHIN_S) for _ in range(after)]
        finally:
            live.process.kill()
        for each in ending:
            each.result()
    return first + [told.get() for _ in range(told.qsize())]


def pictures(life: int, client: int) -> Iterator[bytes]:
    """Without end, and each only once."""
    return (drawing((number % 256, 100 * client, 100 * life)) for number in count())


def examples_of(live: Server, class_name: str) -> set[str]:
    page = live.http.get(f"/classes/{class_name}/examples", params={"limit": 500}).json()
    assert page["next_cursor"] is None
    return {example["id"] for example in page["examples"]}

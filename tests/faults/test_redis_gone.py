"""kill -9 of Redis: nothing acknowledged is lost, reads go on and say that they are stale, writes are refused, all comes back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from fastapi.testclient import TestClient

from app.adapters.store_redis import RedisStore
from app.domain.gallery import Gallery
from app.errors import StoreUnavailable
from app.main import create_app, open_store
from tests.api.drawings import ACME, OTHER, form
from tests.conftest import MakeClient, fake_adapters, settings_for_tests, wait_for_start
from tests.redis_servers import RedisServer, needs_redis, redis_server
from tests.values import NETWORKS, added, plain

pytestmark = needs_redis

KILLS = 3
WRITERS = 3
SEED = 15
COMES_WITHIN_S = 60


def until(is_so: Callable[[], bool]) -> None:
    """Asks again and again; a test that waits for what never comes fails here."""
    give_up = time.monotonic() + COMES_WITHIN_S
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.01)  # what it waits for needs the processor too


def test_what_redis_acknowledged_survives_its_kill_and_nothing_is_torn(tmp_path: Path) -> None:
    chance, acknowledged = random.Random(SEED), set[str]()
    with redis_server(tmp_path) as server:
        for life in range(KILLS):
            acknowledged |= enrol_until_killed(server, life, after=chance.randint(5, 60))
            server.start()
            with closing(RedisStore(server.address)) as store:
                snapshot, log = store.snapshot(), store.follow(0)
                stored = {state.name for state in snapshot.classes}
                assert acknowledged <= stored
                assert len(stored - acknowledged) <= (life + 1) * WRITERS  # durable, though the answer was cut off
                assert all(store.read_crop(name, "e0") == name.encode() for name in stored)
                folded = Gallery.empty(NETWORKS).fold(*log).snapshot()
                assert plain(folded.classes) == plain(snapshot.classes)


def enrol_until_killed(server: RedisServer, life: int, *, after: int) -> set[str]:
    """What was acknowledged to writers side by side, before the server was killed under them."""
    told: list[str] = []

    def enrol(writer: int) -> None:
        with suppress(StoreUnavailable), closing(RedisStore(server.address)) as store:
            for number in count():
                name = f"{life} {writer} {number}"
                store.commit(added(name), expected=0, crops={"e0": name.encode()})
                told.append(name)

    with ThreadPoolExecutor(WRITERS) as writers:
        ending = [writers.submit(enrol, writer) for writer in range(WRITERS)]
        until(lambda: len(told) >= after or any(each.done() for each in ending))
        server.kill()
        for each in ending:
            each.result()
    return set(told)


def test_without_redis_reads_go_on_and_say_so_writes_are_refused_and_all_comes_back(
    make_client: MakeClient, tmp_path: Path
) -> None:
    with redis_server(tmp_path) as server:
        client = make_client(on_store=open_store(server.address), store=server.address)
        assert client.post("/classes/acme/examples", files=form(ACME)).status_code == 201
        assert "X-Stale" not in client.get("/classes").headers

        server.kill()
        until(lambda: "X-Stale" in client.get("/classes").headers)
        answer = client.post("/classify", files=form(ACME))
        refused = client.post("/classes/beta/examples", files=form(OTHER))
        assert (answer.status_code, answer.json()["decision"]) == (200, "acme")
        assert int(answer.headers["X-Stale"]) >= 1
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert refused.json()["type"] == "urn:firstsight:problem:store-unavailable"
        assert client.get("/readyz").status_code == 200  # taking it out of service would take the reads away too

        server.start()
        until(lambda: client.post("/classes/beta/examples", files=form(OTHER)).status_code in (200, 201))
        until(lambda: "X-Stale" not in client.get("/classes").headers)
        assert [each["class"] for each in client.get("/classes").json()["classes"]] == ["acme", "beta"]


def test_a_start_waits_for_a_redis_that_is_not_there_or_is_too_weak_and_says_which(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        server.kill()
        settings = settings_for_tests(store=server.address)
        app = create_app(settings, open_adapters=lambda given: fake_adapters(given, store=open_store(given.store)))
        with TestClient(app) as client:

            def waits_for(words: str) -> bool:
                ready = client.get("/readyz")
                return ready.status_code == 503 and words in str(ready.json()["waiting_for"])

            until(lambda: waits_for("cannot be used"))
            server.start(appendfsync="everysec")
            until(lambda: waits_for("appendfsync is everysec, not always"))
            server.client.config_set("appendfsync", "always")
            wait_for_start(client)
            assert client.get("/readyz").status_code == 200


def test_a_redis_that_was_weakened_is_refused_until_it_is_mended_while_reads_go_on(
    make_client: MakeClient, tmp_path: Path
) -> None:
    with redis_server(tmp_path) as server:
        client = make_client(on_store=open_store(server.address), store=server.address)
        client.post("/classes/acme/examples", files=form(ACME))

        server.client.config_set("maxmemory-policy", "allkeys-lru")
        until(lambda: client.get("/readyz").status_code == 503)
        assert "maxmemory-policy is allkeys-lru, not noeviction" in client.get("/readyz").json()["waiting_for"]
        assert "\nfirstsight_ready 0.0\n" in client.get("/metrics").text
        assert client.post("/classify", files=form(ACME)).json()["decision"] == "acme"
        assert client.post("/classes/beta/examples", files=form(OTHER)).status_code == 503

        server.client.config_set("maxmemory-policy", "noeviction")
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/classes/beta/examples", files=form(OTHER)).status_code == 201


def test_a_weaker_redis_in_the_place_of_the_one_that_was_looked_at_gets_no_write(make_client: MakeClient, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        client = make_client(on_store=open_store(server.address), store=server.address)
        client.post("/classes/acme/examples", files=form(ACME))

        server.kill()
        server.start(appendfsync="everysec")  # as a standby might be set that takes over
        refused = client.post("/classes/beta/examples", files=form(OTHER))
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert server.client.hkeys("firstsight:{default}:versions") == [b"acme"]
        until(lambda: "appendfsync is everysec, not always" in str(client.get("/readyz").json()["waiting_for"]))


def test_two_replicas_see_what_the_other_has_enrolled(make_client: MakeClient, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        one, other = (make_client(on_store=open_store(server.address), store=server.address) for _ in range(2))
        one.post("/classes/acme/examples", files=form(ACME))
        until(lambda: other.get("/classes/acme").status_code == 200)
        assert other.post("/classify", files=form(ACME)).json() == one.post("/classify", files=form(ACME)).json()
        assert other.get("/classes/acme").headers["X-Class-Model"] == one.get("/classes/acme").headers["X-Class-Model"]

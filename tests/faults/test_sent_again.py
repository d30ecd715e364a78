"""One Idempotency-Key at two replicas, of which one stands still: the other says so, and does it in the end: once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from demo.server import Server, serving
from tests.api.drawings import drawing, form
from tests.faults.test_redis_gone import until
from tests.model_sets import write_model_set
from tests.redis_servers import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

PICTURES = [drawing((number, 100, 50)) for number in range(32)]  # as many as a request may have, so that it takes its time
TRIES = 10


@pytest.mark.timeout(300)
def test_a_request_that_is_at_work_on_one_replica_is_409_on_another_and_happens_once(tmp_path: Path) -> None:
    models = str(write_model_set(tmp_path / "models"))
    with redis_server(tmp_path / "redis") as server:
        settings = {"STORE": server.address, "MODELS_DIR": models, "REQUEST_TIMEOUT_S": "60"}
        with serving(settings) as one, serving(settings) as other, ThreadPoolExecutor(1) as threads:
            for key in map(str, range(TRIES)):
                first = threads.submit(enrol, one, key)
                until(lambda seen=int(key): len(receipts(server)) > seen)
                with standing_still(one):
                    if not is_at_work(server):  # it was faster than this test
                        continue
                    meanwhile = enrol(other, key)
                    until(lambda key=key: enrol(other, key).status_code != 409)  # once the lease is over
                told = [first.result(), enrol(one, key), enrol(other, key)]
                break
            stored = other.http.get(f"/classes/acme {key}").json()

    assert (meanwhile.status_code, meanwhile.headers["Retry-After"]) == (409, "1")
    assert [response.status_code for response in told] == [201, 201, 201]
    assert told[0].json() == told[1].json() == told[2].json()
    assert (stored["examples"], stored["version"]) == (len(PICTURES), int(key) + 1)


def enrol(replica: Server, key: str) -> httpx.Response:
    url = replica.http.base_url.join(f"/classes/acme {key}/examples")
    return httpx.post(url, files=form(*PICTURES), headers={"Idempotency-Key": key}, timeout=120)


def receipts(server: RedisServer) -> list[bytes]:
    return [key for key in server.all_keys() if b":receipt:" in key]


def is_at_work(server: RedisServer) -> bool:
    return any(server.client.hexists(receipt, "holder") for receipt in receipts(server))


@contextmanager
def standing_still(replica: Server) -> Iterator[None]:
    replica.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        replica.process.send_signal(signal.SIGCONT)

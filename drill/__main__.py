"""The drill: what a team's deployment promises, held against real processes on loopback. `make drill`; exits 0 where all holds.

Two replicas behind nginx on one Redis, with a tiny network, so that what is measured is the way between them. `--scale 0.1` sends
a tenth of everything; with `--untimed` figures of time are printed and not judged, for machines that do other work.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx

from app.adapters.store_redis import RedisStore
from drill.stack import Stack, stack
from tests.api.drawings import drawing, form
from tests.model_sets import write_model_set

SEED = 15
TRIES_S = 60  # for which a client goes on with one request
P99_S, MOST_S = 0.25, 1.0  # until another replica has seen a write


@dataclass
class Report:
    untimed: bool
    failed: list[str] = field(default_factory=list)

    def holds(self, claim: str, is_so: bool, *, timed: bool = False) -> None:
        judged = is_so or (timed and self.untimed)
        print(f"{'ok    ' if is_so else 'slow  ' if judged else 'FAILED'}  {claim}", flush=True)
        if not judged:
            self.failed.append(claim)


def picture(number: int) -> bytes:
    return drawing((number % 256, number // 256 % 256, 40))


def client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=30)


def insist(send: Callable[[], httpx.Response]) -> httpx.Response:
    """Sends until it is answered with anything but a passing fault: what is sent has to have an Idempotency-Key, or be a read."""
    give_up = time.monotonic() + TRIES_S
    while True:
        try:
            response = send()
            if response.status_code not in (409, 502, 503, 504):
                return response
        except httpx.TransportError:
            response = None
        if time.monotonic() > give_up:
            raise RuntimeError(f"not answered within {TRIES_S} s: {response.text if response else 'no connection'}")
        time.sleep(random.uniform(0.01, 0.05))  # noqa: S311


def enrol(http: httpx.Client, name: str, data: bytes, key: str | None = None) -> httpx.Response:
    return http.post(f"/classes/{name}/examples", files=form(data), headers={"Idempotency-Key": key or uuid4().hex})


def converge(up: Stack, report: Report, count: int) -> None:
    lags = []
    with client(up.urls[0]) as one, client(up.urls[1]) as other:
        for number in range(count):
            insist(lambda number=number: enrol(one, f"c{number}", picture(number))).raise_for_status()  # type: ignore[misc]
            written = time.perf_counter()
            while other.get(f"/classes/c{number}").status_code != 200:
                pass
            lags.append(time.perf_counter() - written)
    lags.sort()
    p99, most = lags[min(len(lags) - 1, int(0.99 * len(lags)))], lags[-1]
    report.holds(
        f"{count} writes on one replica seen by the other: p99 {p99 * 1000:.0f} ms of {P99_S * 1000:.0f}",
        p99 <= P99_S,
        timed=True,
    )
    report.holds(f"  and the last after {most * 1000:.0f} ms of {MOST_S * 1000:.0f}", most <= MOST_S, timed=True)


def crowd(up: Stack, report: Report, count: int) -> None:
    """Eight writers on one class, four at each replica."""

    def write(writer: int) -> None:
        with client(up.urls[writer % 2]) as http:
            for number in range(writer, count, 8):
                key = uuid4().hex
                insist(lambda number=number, key=key: enrol(http, "crowd", picture(number), key)).raise_for_status()  # type: ignore[misc]

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, range(8)))
    shown, answers, models = [], [], []
    with client(up.urls[0]) as one, client(up.urls[1]) as other:
        token = one.get("/classes").headers["X-Version"]
        for http in (one, other):
            read = http.get("/classes/crowd", headers={"X-Min-Version": token})
            shown.append(read.json())
            models.append(read.headers["X-Class-Model"])
            asked = [
                http.post("/classify?classes=crowd", files=form(picture(number))).json()
                for number in range(0, count, max(1, count // 20))
            ]
            answers.append(asked)
    report.holds(f"2 x 4 writers on one class: {shown[0]['examples']} examples of {count}", shown[0]["examples"] == count)
    report.holds("  and both replicas answer alike", shown[0] == shown[1] and answers[0] == answers[1])
    stored = stored_model(up, "crowd")
    report.holds(f"  from the same bytes of a class model, {stored[:16]}…, which is the one stored", {*models} == {stored})


def stored_model(up: Stack, class_name: str) -> str:
    """The digest of a class model as it is in Redis."""
    with closing(RedisStore(up.redis_url)) as store:
        return next(state.model.digest for state in store.snapshot().classes if state.name == class_name and state.model)


def storm(up: Stack, report: Report, keys: int) -> None:
    """Every key three times at once, to either replica."""
    with client(up.urls[0]) as http:
        before = http.get("/classes/storm").json().get("version") or enrol(http, "storm", picture(0)).json()["version"]

    def send(number: int) -> int:
        with client(up.urls[number % 2]) as http:
            sent = insist(
                lambda: http.patch(
                    "/classes/storm",
                    json={"metadata": {"n": number // 3}},
                    headers={"Idempotency-Key": f"storm {number // 3}".replace(" ", "-")},
                )
            )
            version: int = sent.raise_for_status().json()["version"]
            return version

    with ThreadPoolExecutor(12) as senders:
        versions = list(senders.map(send, range(3 * keys)))
    with client(up.urls[0]) as http:
        after = insist(
            lambda: http.get("/classes/storm", headers={"X-Min-Version": http.get("/classes").headers["X-Version"]})
        ).json()
    told_alike = all(len(set(versions[3 * key : 3 * key + 3])) == 1 for key in range(keys))
    duplicates = after["version"] - before - keys
    report.holds(f"{keys} keys, each sent 3 times at once: {duplicates} duplicates", duplicates == 0 and told_alike)


@dataclass
class Load:
    """Clients that enrol through nginx, each a picture of its own at a time, and remember what was acknowledged."""

    url: str
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    read: int = 0

    @contextmanager
    def running(self, name: str, *, insists: bool, clients: int = 4) -> Iterator[None]:
        stop = threading.Event()

        def run(number: int) -> None:
            with client(self.url) as http:
                step = 0
                while not stop.is_set():
                    step += 1
                    data, key = picture(number * 10_000 + step), uuid4().hex
                    class_name = f"{name}{number}"
                    self._note(
                        class_name, lambda data=data, key=key, class_name=class_name: enrol(http, class_name, data, key), insists
                    )  # type: ignore[misc]
                    self._note(None, lambda data=data: http.post("/classify", files=form(data)), insists)  # type: ignore[misc]

        with ThreadPoolExecutor(clients) as threads:
            running = [threads.submit(run, number) for number in range(clients)]
            try:
                yield
            finally:
                stop.set()
            for each in running:
                each.result()

    def _note(self, class_name: str | None, send: Callable[[], httpx.Response], insists: bool) -> None:
        try:
            response = insist(send) if insists else send()
        except (RuntimeError, httpx.TransportError) as error:
            self.failed.append(str(error) or type(error).__name__)
            return
        if not response.is_success:
            self.failed.append(f"{response.status_code} {response.text[:200]}")
        elif class_name:
            self.acknowledged.append((class_name, response.json()["examples"][0]["id"]))
        else:
            self.read += 1

    def judge(self, report: Report, after: str) -> None:
        """Nothing that was acknowledged is lost, and nothing failed for good."""
        with client(self.url) as http:
            lost = sum(
                not insist(lambda a=a: http.get(f"/classes/{a[0]}/examples/{a[1]}/image")).is_success for a in self.acknowledged
            )  # type: ignore[misc]
        report.holds(f"{after}: {lost} of {len(self.acknowledged)} acknowledged are lost", lost == 0)
        report.holds(f"  and {len(self.failed)} requests failed after retries {self.failed[:2]}", not self.failed)

    def until(self, count: int) -> None:
        give_up = time.monotonic() + 2 * TRIES_S
        goal = len(self.acknowledged) + count
        while len(self.acknowledged) < goal:
            if time.monotonic() > give_up:
                raise RuntimeError(f"only {len(self.acknowledged)} of {goal} enrolments came through: {self.failed[:3]}")
            time.sleep(0.01)


def kill_redis(up: Stack, report: Report, count: int) -> None:
    load = Load(up.nginx_url)
    with load.running("redis", insists=True):
        load.until(count)
        up.redis.kill()
        time.sleep(1)
        up.redis.start()
        load.until(count)
    load.judge(report, "Redis killed under load")


def kill_replica(up: Stack, report: Report, count: int) -> None:
    load = Load(up.nginx_url)
    with load.running("replica", insists=True):
        for replica in up.replicas:
            load.until(count)
            replica.kill()
            load.until(count)
            replica.start()
    load.judge(report, "each replica killed under load")


def roll(up: Stack, report: Report, count: int) -> None:
    load = Load(up.nginx_url)
    with load.running("rolling", insists=False):
        for replica in up.replicas:
            load.until(count)
            replica.stop()
            load.until(count)
            replica.start()
            load.until(count)
    done = len(load.acknowledged) + load.read
    report.holds(f"a rolling restart under load: {len(load.failed)} of {done} requests failed {load.failed[:2]}", not load.failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--untimed", action="store_true")
    given = parser.parse_args()
    random.seed(SEED)
    report = Report(given.untimed)

    def scaled(count: int) -> int:
        return max(8, int(count * given.scale))

    with tempfile.TemporaryDirectory() as name, stack(Path(name), write_model_set(Path(name) / "models")) as up:
        converge(up, report, scaled(1000))
        crowd(up, report, scaled(2000))
        storm(up, report, scaled(1000))
        kill_redis(up, report, scaled(200))
        kill_replica(up, report, scaled(100))
        roll(up, report, scaled(100))
    print("all holds" if not report.failed else f"{len(report.failed)} of these do not hold")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())

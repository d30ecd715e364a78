"""Overload, long bodies, slow bodies and clients that leave, at the seam where they are decided: ASGI messages in and out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app import metrics
from app.api.admission import MAX_BODY_S, Admission, AdmissionLimits, AdmissionMiddleware, Ticket
from app.api.edge import Edge
from app.api.problems import problem_response
from app.api.readiness import Readiness
from app.errors import FirstsightError
from tests.api.drawings import ACME, form
from tests.conftest import MakeClient

LIMITS = AdmissionLimits(pictures=2, body_bytes=1000, body_bytes_in_flight=1500, body_timeout_s=10.0, min_body_bytes_per_s=100)
Handler = Callable[[Request], Awaitable[Response]]


class Exchange:
    """One request to the middleware in front of a handler, and what came of it."""

    def __init__(
        self, *, headers: dict[str, str] | None = None, body: list[bytes] | None = None, path: str = "/classify"
    ) -> None:
        self.scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        chunks = body or [b""]
        self._incoming: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": chunk is not chunks[-1]} for chunk in chunks
        ]
        self.left = asyncio.Event()  # set it, and the client is gone
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        await asyncio.sleep(0)  # lets a timeout that is due have its turn, as the network would
        if self._incoming:
            return self._incoming.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def unread(self) -> int:
        return len(self._incoming)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def problem(self) -> dict[str, Any]:
        problem: dict[str, Any] = json.loads(b"".join(message.get("body", b"") for message in self.sent[1:]))
        return problem


class Front:
    """Edge and admission as in the application, around a handler that reads the body and then does as it is told."""

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        ready: bool = True,
        clock: Callable[[], float] = lambda: 0.0,
        limits: AdmissionLimits = LIMITS,
    ) -> None:
        self.admission = Admission(limits)
        self._handler = handler or self._read
        readiness = Readiness()
        if ready:
            readiness.is_ready()
        self._app = Edge(AdmissionMiddleware(self._answer, admission=self.admission, readiness=readiness, clock=clock))

    async def __call__(self, exchange: Exchange) -> Exchange:
        await self._app(exchange.scope, exchange.receive, exchange.send)
        return exchange

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._handler(Request(scope, receive))
        except FirstsightError as error:
            response = problem_response(error)
        await response(scope, receive, send)

    async def _read(self, request: Request) -> Response:
        return Response(str(len(await request.body())))


def overloaded() -> float:
    """How many requests have been refused as too many, so far in this process."""
    lines = metrics.exposition().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith('firstsight_refusals_total{reason="Overloaded"}'))


def test_a_full_service_refuses_at_once_and_reads_nothing() -> None:
    front = Front()
    front.admission.enter(0), front.admission.enter(0)
    refusals = overloaded()

    refused = asyncio.run(front(Exchange()))

    assert (refused.status, refused.problem["limit"]) == (503, 2)
    assert refused.headers["retry-after"] == "1"
    assert refused.unread == 1
    assert overloaded() == refusals + 1


def test_bodies_in_flight_are_bounded_together() -> None:
    front = Front()
    front.admission.enter(1000).count_body(1000)

    refused = asyncio.run(front(Exchange(headers={"Content-Length": "600"})))

    assert (refused.status, refused.problem["limit"]) == (503, 1500)


def test_bytes_that_are_only_promised_take_nobodys_room() -> None:
    front = Front()
    front.admission.enter(1000)  # of which nothing has come

    assert asyncio.run(front(Exchange(headers={"Content-Length": "1000"}, body=[b"x" * 1000]))).status == 200


def test_a_body_of_no_declared_length_is_refused_where_it_finds_no_room() -> None:
    front = Front()
    other = front.admission.enter(1000)
    other.count_body(1000)
    sent = {"headers": {"Transfer-Encoding": "chunked"}, "body": [b"x" * 400, b"y" * 200]}

    refused = asyncio.run(front(Exchange(**sent)))
    front.admission.leave(other)

    assert (refused.status, refused.problem["limit"]) == (503, 1500)
    assert asyncio.run(front(Exchange(**sent))).status == 200


def test_what_was_admitted_makes_room_when_it_is_answered() -> None:
    front = Front()

    async def many() -> list[int | None]:
        return [(await front(Exchange(headers={"Content-Length": "1000"}, body=[b"x" * 1000]))).status for _ in range(5)]

    assert asyncio.run(many()) == [200] * 5


def test_a_request_counts_as_its_pictures_once_they_are_known() -> None:
    async def three_pictures(request: Request) -> Response:
        ticket: Ticket = request.state.ticket
        ticket.count_pictures(3)  # of two that may be at work
        return Response()

    front = Front(three_pictures)

    refused = asyncio.run(front(Exchange()))

    assert (refused.status, refused.problem["type"]) == (503, "urn:firstsight:problem:overloaded")
    front.admission.enter(0), front.admission.enter(0)  # nothing of it is left behind


def test_health_is_answered_however_full_the_service_is() -> None:
    front = Front()
    front.admission.enter(0), front.admission.enter(0)

    assert asyncio.run(front(Exchange(path="/healthz"))).status == 200


def test_until_it_is_ready_the_service_says_what_it_waits_for() -> None:
    refused = asyncio.run(Front(ready=False)(Exchange()))

    assert (refused.status, refused.problem["type"]) == (503, "urn:firstsight:problem:starting")
    assert "the start" in refused.problem["detail"]
    assert refused.headers["retry-after"] == "1"


def test_a_body_that_is_declared_too_long_is_refused_unread() -> None:
    exchange = Exchange(headers={"Content-Length": "1001"}, body=[b"x" * 500, b"x" * 501])

    refused = asyncio.run(Front()(exchange))

    assert (refused.status, refused.problem["field"], refused.problem["limit"]) == (413, "body", 1000)


def test_a_body_of_no_declared_length_is_counted() -> None:
    exchange = Exchange(headers={"Transfer-Encoding": "chunked"}, body=[b"x" * 600, b"y" * 600, b"z" * 600])

    assert asyncio.run(Front()(exchange)).status == 413


def test_a_length_that_is_no_number_is_malformed() -> None:
    refused = asyncio.run(Front()(Exchange(headers={"Content-Length": "-1"})))

    assert (refused.status, refused.problem["field"]) == (400, "Content-Length")


def test_after_a_refusal_the_rest_is_dropped_before_the_connection_closes() -> None:
    # Else TCP would reset the connection under the answer.
    exchange = Exchange(headers={"Content-Length": "1001"}, body=[b"x" * 500, b"x" * 501])

    refused = asyncio.run(Front()(exchange))

    assert refused.headers["connection"] == "close"
    assert refused.unread == 0
    assert [message.get("more_body") for message in refused.sent[1:]] == [True, False]


def test_a_body_that_falls_behind_its_pace_is_refused() -> None:
    late = iter([0.0, 10.0, 16.0])  # the start, then the time at each read
    exchange = Exchange(headers={"Content-Length": "900"}, body=[b"x" * 500])  # 500 bytes earn 5 s more than the 10
    exchange._incoming[0]["more_body"] = True

    async def stalled() -> Exchange:
        exchange.left.clear()
        return await Front(clock=lambda: next(late))(exchange)

    refused = asyncio.run(stalled())

    assert (refused.status, refused.problem["field"], refused.problem["limit"]) == (400, "body", 100)


def test_a_slow_body_that_keeps_its_pace_is_read() -> None:
    steady = iter([0.0, 5.0, 12.0])  # later than 10 s, but 500 bytes have earned 5 s more
    exchange = Exchange(headers={"Content-Length": "900"}, body=[b"x" * 500, b"y" * 400])

    assert asyncio.run(Front(clock=lambda: next(steady))(exchange)).status == 200


def test_a_body_that_keeps_its_pace_has_to_end_all_the_same() -> None:
    patient = replace(LIMITS, min_body_bytes_per_s=1)  # 500 bytes earn 500 s
    late = iter([0.0, 1.0, MAX_BODY_S])
    exchange = Exchange(headers={"Content-Length": "900"}, body=[b"x" * 500])
    exchange._incoming[0]["more_body"] = True
    exchange.left.set()  # after the time is over

    refused = asyncio.run(Front(clock=lambda: next(late), limits=patient)(exchange))

    assert (refused.status, refused.problem["field"], refused.problem["limit"]) == (400, "body", MAX_BODY_S)


def test_work_for_a_client_that_left_is_cancelled() -> None:
    working, cancelled = asyncio.Event(), asyncio.Event()

    async def work(request: Request) -> Response:
        await request.body()
        working.set()
        try:
            await asyncio.Event().wait()  # for ever
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Response()

    async def leave() -> tuple[Exchange, Front]:
        front, exchange = Front(work), Exchange()
        running = asyncio.create_task(front(exchange))
        await working.wait()
        exchange.left.set()
        return await running, front

    exchange, front = asyncio.run(leave())

    assert cancelled.is_set()
    assert exchange.sent == []
    front.admission.enter(0), front.admission.enter(0)  # its place is free again


def test_a_client_that_leaves_within_its_body_is_no_error() -> None:
    exchange = Exchange(headers={"Content-Length": "900"}, body=[b"x"])
    exchange._incoming[0]["more_body"] = True

    async def leave() -> Exchange:
        exchange.left.set()
        return await Front()(exchange)

    assert asyncio.run(leave()).sent == []


@pytest.mark.parametrize("path", ["/classify/batch", "/classes/acme/examples"])
def test_more_pictures_than_there_is_room_for_are_refused_by_the_application(make_client: MakeClient, path: str) -> None:
    client: TestClient = make_client(max_concurrent_requests=2, max_images_per_request=2)

    assert client.post(path, files=form(ACME, ACME)).status_code in (200, 201)
    assert client.post(path, files=form(ACME, ACME, ACME)).status_code == 422

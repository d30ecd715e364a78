"""Who may come in, decided on the headers: a refusal costs no body, no decoding and no queue, and takes less than a millisecond.

How many megapixels a body holds is not known before it is read; its bytes stand for them. They count from when they arrive, since
room kept for a promise could be taken by promising, and have to arrive at a pace and within a time. When the client leaves, its
work is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import metrics
from app.api.problems import problem_response
from app.api.readiness import Readiness
from app.errors import FirstsightError, MalformedRequest, Overloaded, Starting, TooLarge

# What an operator must reach however busy the service is, and the console, which shows that it is. No pictures, and little work.
ALWAYS_OPEN = frozenset({"/", "/healthz", "/readyz", "/metrics", "/openapi.json"})
CONSOLE_FILES = "/console/"

# From the headers to the end of a body, whatever its pace: 32 MiB at the least pace would hold a place for half an hour.
MAX_BODY_S = 120


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    pictures: int  # admitted and not yet answered; a request without pictures counts as one
    body_bytes: int  # of one request
    body_bytes_in_flight: int  # of all admitted requests
    body_timeout_s: float  # that a body may fall behind its pace
    min_body_bytes_per_s: int


class Admission:
    """The count of what is admitted. One per process, used on the event loop only."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self.limits = limits
        self._pictures = 0
        self._body_bytes = 0

    def enter(self, declared_bytes: int) -> Ticket:
        """Overloaded when the service is full, or could not take in now what the body is declared to be."""
        self._check_room(pictures=1, body_bytes=declared_bytes)
        ticket = Ticket(self)
        self.take(ticket, pictures=1)
        return ticket

    def take(self, ticket: Ticket, *, pictures: int = 0, body_bytes: int = 0) -> None:
        self._check_room(pictures, body_bytes)
        ticket.pictures += pictures
        ticket.body_bytes += body_bytes
        self._move(pictures, body_bytes)

    def leave(self, ticket: Ticket) -> None:
        self._move(-ticket.pictures, -ticket.body_bytes)

    def _check_room(self, pictures: int, body_bytes: int) -> None:
        if self._pictures + pictures > self.limits.pictures:
            raise Overloaded("The service is working on as many pictures as it can.", limit=self.limits.pictures)
        if self._body_bytes + body_bytes > self.limits.body_bytes_in_flight:
            raise Overloaded("The service is receiving as many bytes as it can.", limit=self.limits.body_bytes_in_flight)

    def _move(self, pictures: int, body_bytes: int) -> None:
        self._pictures += pictures
        self._body_bytes += body_bytes
        metrics.set_admitted(self._pictures)


class Ticket:
    """What one admitted request holds until it is answered."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.pictures = 0
        self.body_bytes = 0

    def count_pictures(self, count: int) -> None:
        """Counts a request as its pictures, once they are known. Overloaded when there is no room for as many."""
        self._admission.take(self, pictures=count - self.pictures)

    def count_body(self, arrived_bytes: int) -> None:
        """Overloaded when there is no room for them."""
        self._admission.take(self, body_bytes=arrived_bytes)


def is_always_open(path: str) -> bool:
    return path in ALWAYS_OPEN or path.startswith(CONSOLE_FILES)


class AdmissionMiddleware:
    def __init__(
        self, app: ASGIApp, *, admission: Admission, readiness: Readiness, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._admission = admission
        self._readiness = readiness
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_always_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            ticket = self._admit(Headers(scope=scope))
        except FirstsightError as error:
            scope.setdefault("state", {})["error"] = error
            await problem_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["ticket"] = ticket
        body = PacedBody(receive, ticket, self._admission.limits, self._clock)
        try:
            await run_while_client_waits(self._app, scope, body, send)
        finally:
            self._admission.leave(ticket)

    def _admit(self, headers: Headers) -> Ticket:
        if self._readiness.starting_for is not None:
            raise Starting(self._readiness.starting_for)
        limits = self._admission.limits
        declared = _declared_bytes(headers)
        if declared > limits.body_bytes:
            raise _too_large(limits)
        return self._admission.enter(declared)


class PacedBody:
    """The `receive` of an admitted request: counts the bytes, and times them by the average pace since the headers."""

    def __init__(self, receive: Receive, ticket: Ticket, limits: AdmissionLimits, clock: Callable[[], float]) -> None:
        self._receive = receive
        self._ticket = ticket
        self._limits = limits
        self._clock = clock
        self._started = clock()
        self._received = 0
        self.complete = asyncio.Event()  # nothing more to come but the client's leaving

    async def __call__(self) -> Message:
        if self.complete.is_set():
            return await self._receive()
        message = await self._next()
        arrived_bytes = len(message.get("body", b""))
        self._received += arrived_bytes
        if self._received > self._limits.body_bytes:
            raise _too_large(self._limits)
        self._ticket.count_body(arrived_bytes)
        if not message.get("more_body", False):
            self.complete.set()
        return message

    async def _next(self) -> Message:
        pace = self._limits.min_body_bytes_per_s
        allowed_s = self._limits.body_timeout_s + self._received / pace
        try:
            async with asyncio.timeout(self._started + min(allowed_s, MAX_BODY_S) - self._clock()):
                return await self._receive()
        except TimeoutError:
            if allowed_s < MAX_BODY_S:
                raise MalformedRequest(f"The body came slower than {pace} bytes a second.", field="body", limit=pace) from None
            raise MalformedRequest(f"The body took longer than {MAX_BODY_S} seconds.", field="body", limit=MAX_BODY_S) from None


async def run_while_client_waits(app: ASGIApp, scope: Scope, body: PacedBody, send: Send) -> None:
    """Runs the app, and cancels it when the client closes the connection: nobody would read the answer."""
    answered = False

    async def watched_send(message: Message) -> None:
        nonlocal answered
        answered = answered or (message["type"] == "http.response.body" and not message.get("more_body", False))
        await send(message)

    async def client_left() -> None:
        await body.complete.wait()
        while not answered and (await body())["type"] != "http.disconnect":
            pass

    work = asyncio.ensure_future(app(scope, body, watched_send))
    leaving = asyncio.ensure_future(client_left())
    try:
        await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not (work.done() or answered):
            metrics.count_abandoned()
            work.cancel()
        await asyncio.wait((work,))
    finally:
        leaving.cancel()
        work.cancel()
    if not work.cancelled():
        work.result()


def _declared_bytes(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    if not length.isdecimal():
        raise MalformedRequest("Content-Length is not a number of bytes.", field="Content-Length")
    return int(length)


def _too_large(limits: AdmissionLimits) -> TooLarge:
    return TooLarge(f"The body has more than {limits.body_bytes} bytes.", field="body", limit=limits.body_bytes)

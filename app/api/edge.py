"""The outermost layer: each request gets an id, a line in the log and a place in the metrics; what nobody caught is a problem.

Pure ASGI, so that nothing is buffered on the way.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import defaultdict
from contextlib import suppress
from http import HTTPStatus
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import metrics
from app.api.admission import is_always_open
from app.api.audit import Audit
from app.api.problems import UNEXPECTED, problem_response
from app.errors import FirstsightError, LimitReached
from app.logs import logger

log = logger(__name__)

SAFE_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)  # what may go from a caller into our log as it is
CLIENT_LEFT = 499  # nginx' word for it; only ever in log and metrics
# How long, and how much of, a refused body is read off and dropped: enough for a slow line, and for a client that looks for an
# answer only when it has sent everything.
LINGER_S = 5.0
LINGER_BYTES = 64 * 2**20


class Edge:
    def __init__(self, app: ASGIApp, *, audit: Audit | None = None) -> None:
        self._app = app
        self._audit = audit or Audit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Routes match the path as it was sent: decoded, a class name with a slash would be two segments.
        scope["path"] = scope["raw_path"].decode("ascii")
        exchange = _Exchange(scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = None
        except Exception:
            log.exception("unexpected error", request_id=exchange.request_id)
            if exchange.status is not None:
                raise  # half an answer is out: the server can only close the connection
            await problem_response(UNEXPECTED)(scope, exchange.receive, exchange.send)
        finally:
            exchange.record()
            self._audit.note(scope, request_id=exchange.request_id, status=exchange.status)
        await exchange.finish()


class _Exchange:
    """One request and its response, as they pass by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = time.perf_counter()
        self._stages = metrics.begin_stages()
        headers = Headers(scope=scope)
        self._body_left = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._lingers = False
        given_id = headers.get("x-request-id", "")
        self.request_id = given_id if SAFE_REQUEST_ID.fullmatch(given_id) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = self.request_id
        self.status: int | None = None  # None until the response starts

    async def receive(self) -> Message:
        message = await self._receive()
        self._body_left = self._body_left and message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._lingers = self._body_left
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            for name, value in self._scope.get("state", {}).get("headers", {}).items():
                headers[name] = value
            if self._lingers:
                headers["Connection"] = "close"
        elif self._lingers:
            message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        """Closes a connection on which the body was refused, in the order that lets the client see why.

        Were the connection closed with bytes of the body still arriving, TCP would reset it and could take the response along. So
        the response is complete first, then the body is dropped for a while, then comes the end.
        """
        if not self._lingers:
            return
        dropped = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._body_left and dropped < LINGER_BYTES:
                    dropped += len((await self.receive()).get("body", b""))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def record(self) -> None:
        seconds = time.perf_counter() - self._started
        # The template, such as /classes/{name}: names are people's, and without end as a label.
        route = getattr(self._scope.get("route"), "path", "none")
        method = self._scope["method"]
        status = self.status or CLIENT_LEFT
        metrics.observe_request(method=method, route=route, status=status, seconds=seconds)
        state = self._scope.get("state", {})
        error: FirstsightError | None = state.get("error")
        log.log(
            _level_of(self._scope["path"], status, error),
            "request",
            request_id=self.request_id,
            method=method,
            route=route,
            status=status,
            ms=_ms(seconds),
            **{f"{stage}_ms": _ms(spent) for stage, spent in self._spent().items()},
            **({"outcome": state["outcome"]} if "outcome" in state else {}),
            **({"detail": error.detail} if error else {}),
        )

    def _spent(self) -> dict[str, float]:
        """Stage -> seconds; pictures at work side by side add up to more than the request took."""
        spent: dict[str, float] = defaultdict(float)
        for stage, seconds in self._stages:
            spent[stage] += seconds
        return spent


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _level_of(path: str, status: int, error: FirstsightError | None) -> int:
    if isinstance(error, LimitReached) or is_always_open(path):
        return logging.DEBUG  # they come by the second, or when busy by the thousand: the metrics count them
    return logging.ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO

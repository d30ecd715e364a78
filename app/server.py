"""The HTTP server under the application: uvicorn, with an end to what it would wait for without limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.problems import problem_response
from app.errors import MalformedRequest

HEADER_TIMEOUT_S = 10.0  # from the first byte of a request, or from the connection, to the end of its headers
MAX_HEADER_BYTES = 64 * 1024  # h11's limit; httptools has none
HEADER_FRAME_BYTES = len(b": \r\n")
# Longer than a proxy keeps an idle connection (nginx: 60 s), so that our end never closes one that it has just chosen.
KEEP_ALIVE_S = 75
# Connections that wait to be accepted. Few, so that when the loop cannot keep up the kernel refuses at once.
BACKLOG = 128


class HeadersTooLong(Exception):
    """Stops httptools, which has no other way; the answer is out by then."""


class Protocol(HttpToolsProtocol):
    """One connection. Headers have to come within a time and a size, and what is no HTTP is answered with a problem."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers_due: asyncio.TimerHandle | None = None  # None while no headers are awaited
        self._header_bytes = 0  # read since the last body, or the begin of a message

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_awaiting_headers()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        self._stop_awaiting_headers()
        # Counted as parsed: the read in which they began, which may be all of them, is not in the other count.
        if len(self.url) + sum(len(name) + len(value) + HEADER_FRAME_BYTES for name, value in self.headers) > MAX_HEADER_BYTES:
            self._refuse_headers()
            raise HeadersTooLong  # ends the parser
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_due is not None:  # else it is a trailer behind the body, which nobody here asks for
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._header_bytes = 0
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        self._header_bytes += len(data)
        super().data_received(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse_headers()

    def send_400_response(self, msg: str) -> None:
        self._refuse(MalformedRequest("This is no HTTP/1.1 request. Is all but ASCII in its path and query percent-encoded?"))

    def _await_headers(self) -> None:
        self._stop_awaiting_headers()
        self._header_bytes = 0
        self._headers_due = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.close)

    def _stop_awaiting_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _refuse_headers(self) -> None:
        self._refuse(MalformedRequest(f"The headers have more than {MAX_HEADER_BYTES} bytes.", limit=MAX_HEADER_BYTES))

    def _refuse(self, error: MalformedRequest) -> None:
        if self.transport.is_closing():  # it has been
            return
        # Below the application, so the response is written by hand.
        response = problem_response(error)
        response.headers["X-Request-Id"] = uuid4().hex
        response.headers["Connection"] = "close"
        head = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + bytes(response.body))
        self.transport.close()
        self._stop_awaiting_headers()


class Server(uvicorn.Server):
    """Serves an application, which is given `give_up` to call when it cannot go on."""

    def __init__(
        self,
        make_application: Callable[[Callable[[], None]], ASGIApp],
        *,
        host: str,
        port: int,
        shutdown_timeout_s: int,
        trusted_proxies: str | None = None,
    ) -> None:
        self.failed = False
        super().__init__(
            uvicorn.Config(
                make_application(self._give_up),
                host=host,
                port=port,
                http=Protocol,
                ws="none",
                lifespan="on",
                log_config=None,  # logs.py has configured them
                access_log=False,  # the edge writes the line
                server_header=False,
                proxy_headers=trusted_proxies is not None,
                forwarded_allow_ips=trusted_proxies,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=shutdown_timeout_s,
            )
        )

    def _give_up(self) -> None:
        self.failed = True
        self.should_exit = True

"""Connections below the application, driven byte by byte on a clock that the test holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.server import HEADER_TIMEOUT_S, MAX_HEADER_BYTES, Protocol, Server

HEAD = b"GET /healthz HTTP/1.1\r\nHost: here\r\n"


class Timer:
    def __init__(self, delay_s: float, call: Callable[[], None]) -> None:
        self.delay_s, self.call, self.cancelled = delay_s, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """As much of an event loop as a connection needs before its application is called."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []
        self.requests = 0

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(delay_s, call))
        return self.timers[-1]

    def create_task(self, request: Any) -> asyncio.Future[None]:
        self.requests += 1
        request.close()
        return asyncio.Future(loop=asyncio.new_event_loop())

    def pass_s(self, seconds: float) -> None:
        for timer in self.timers:
            if not timer.cancelled and timer.delay_s <= seconds:
                timer.call()


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...


class Connection:
    def __init__(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None: ...

        self.loop, self.wire = Loop(), Wire()
        config = uvicorn.Config(application, http=Protocol, ws="none", log_config=None)
        self.protocol = Protocol(config, ServerState(), {}, _loop=self.loop)
        self.protocol.connection_made(self.wire)

    def receive(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.protocol.data_received(piece)


@pytest.fixture
def connection() -> Connection:
    return Connection()


def test_headers_that_do_not_end_in_time_close_the_connection(connection: Connection) -> None:
    connection.receive(HEAD[:10], HEAD[10:])

    connection.loop.pass_s(HEADER_TIMEOUT_S)

    assert connection.wire.closed


def test_a_connection_that_never_says_anything_is_closed(connection: Connection) -> None:
    connection.loop.pass_s(HEADER_TIMEOUT_S)

    assert connection.wire.closed


def test_headers_that_end_are_no_longer_timed(connection: Connection) -> None:
    connection.receive(HEAD, b"\r\n")

    connection.loop.pass_s(HEADER_TIMEOUT_S)

    assert connection.loop.requests == 1
    assert not connection.wire.closed


def test_headers_that_grow_without_end_are_refused(connection: Connection) -> None:
    line = b"X-Filler: " + b"x" * 1000 + b"\r\n"

    connection.receive(HEAD, *[line] * (MAX_HEADER_BYTES // len(line) + 1))

    assert connection.wire.closed
    assert problem_in(connection.wire.written)["limit"] == MAX_HEADER_BYTES


TOO_LONG = b"X-Filler: " + b"x" * MAX_HEADER_BYTES + b"\r\n"


@pytest.mark.parametrize("begun", [b"", HEAD], ids=["in one piece", "begun before"])
def test_too_many_headers_are_refused_however_they_come(connection: Connection, begun: bytes) -> None:
    connection.receive(*[begun] * bool(begun), HEAD.removeprefix(begun) + TOO_LONG + b"\r\n")

    assert connection.loop.requests == 0
    assert connection.wire.closed
    assert connection.wire.written.count(b"HTTP/1.1 400") == 1
    assert problem_in(connection.wire.written)["limit"] == MAX_HEADER_BYTES


def test_too_many_headers_are_refused_behind_a_body_that_came_with_them(connection: Connection) -> None:
    first = b"POST /classify HTTP/1.1\r\nHost: here\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000

    connection.receive(first + HEAD + TOO_LONG + b"\r\n")

    assert connection.loop.requests == 1
    assert connection.wire.closed


def test_as_many_headers_as_are_allowed_are_read_in_one_piece(connection: Connection) -> None:
    filler = b"X-Filler: " + b"x" * (MAX_HEADER_BYTES - len(HEAD) - len(b"X-Filler: \r\n\r\n")) + b"\r\n"

    connection.receive(HEAD + filler + b"\r\n")

    assert connection.loop.requests == 1
    assert not connection.wire.closed


CHUNKS = b"POST /classify HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000 + b"0\r\n"


def test_trailers_without_end_are_refused(connection: Connection) -> None:
    connection.receive(CHUNKS, b"X-Filler: ", *[b"x" * 1000] * (MAX_HEADER_BYTES // 1000 + 1))

    assert connection.wire.closed


def test_trailers_are_read_over_and_not_kept(connection: Connection) -> None:
    connection.receive(CHUNKS, b"X-Signed: yes\r\n\r\n")

    assert not connection.wire.closed
    assert [name for name, _ in connection.protocol.headers] == [b"host", b"transfer-encoding"]


def test_a_long_body_is_not_counted_as_headers(connection: Connection) -> None:
    connection.receive(b"POST /classify HTTP/1.1\r\nHost: here\r\nContent-Length: 200000\r\n\r\n", b"x" * 200_000)

    assert connection.loop.requests == 1
    assert connection.wire.written == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS to a port without
        b"GET\r\n\r\n",
        "GET /classes/café HTTP/1.1\r\nHost: here\r\n\r\n".encode(),
        b"POST /classify HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_problem_too(connection: Connection, sent: bytes) -> None:
    connection.receive(sent)

    assert connection.wire.written.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"x-request-id: " in connection.wire.written
    assert problem_in(connection.wire.written)["type"] == "urn:firstsight:problem:malformed-request"
    assert connection.wire.closed


def problem_in(written: bytes) -> dict[str, Any]:
    head, _, body = written.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    problem: dict[str, Any] = json.loads(body)
    return problem


@pytest.mark.parametrize(
    ("trusted", "forwarded", "caller"),
    [
        (None, "1.2.3.4", "10.0.0.5"),
        ("10.0.0.5", "1.2.3.4", "1.2.3.4"),
        (
            "10.0.0.0/24",
            "6.6.6.6, 1.2.3.4, 10.0.0.7",
            "1.2.3.4",
        ),  # what is before the nearest may be made up
        ("10.0.0.6", "1.2.3.4", "10.0.0.5"),
        ("*", "1.2.3.4", "1.2.3.4"),
    ],
)
def test_a_proxy_says_who_called_only_where_it_is_trusted(trusted: str | None, forwarded: str, caller: str) -> None:
    called_by = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        called_by.append(scope["client"][0])

    config = Server(lambda give_up: application, host="", port=0, shutdown_timeout_s=0, trusted_proxies=trusted).config
    config.load()
    scope = {"type": "http", "client": ("10.0.0.5", 1), "headers": [(b"x-forwarded-for", forwarded.encode())]}
    asyncio.run(config.loaded_app(scope, None, None))  # type: ignore[arg-type]

    assert called_by == [caller]

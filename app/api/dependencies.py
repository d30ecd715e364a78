"""What handlers ask for: the use cases, the request's pictures and deadline, and parts of path and headers as values.

All of it coroutines: FastAPI sends plain functions through a thread pool, which costs more than they do.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Header, Path, Request
from pydantic import BaseModel

from app.api.admission import Ticket
from app.api.auth import caller_of
from app.api.bodies import BodyLimits, read_patch, read_picture, read_pictures
from app.api.idempotency import Told, Write, once, write_of
from app.api.problems import shortened
from app.domain.changes import Position
from app.domain.values import Outcome, Upload, class_name_of
from app.errors import InvalidInput
from app.service.classes import Classes
from app.service.classify import Classify
from app.service.collection import Collection
from app.service.detect import Detect
from app.service.enrol import Enrol
from app.service.pools import Deadline

Shape = TypeVar("Shape", bound=BaseModel)

REACH_WITHIN_S = 2.0  # replicas are a twentieth of a second apart unless something is wrong

BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
MAX_ID_CHARS = 100  # three times those of an id, so that it is a bound on what is echoed and nothing else
POSITION = re.compile(r"(\d{1,18})-(\d{1,18})", re.ASCII)
ETAG = re.compile(r'"(\d{1,18})"', re.ASCII)


@dataclass(frozen=True, slots=True)
class UseCases:
    collection: Collection
    enrol: Enrol
    classify: Classify
    detect: Detect
    classes: Classes


UseCasesOf = Callable[[str], Awaitable[UseCases]]  # of a collection, by its name


class Call:
    """One request as handlers see it."""

    def __init__(self, request: Request, use_cases: UseCases) -> None:
        self._request = request
        state = request.app.state
        self._limits: BodyLimits = state.body_limits
        self._timeout_s: float = state.request_timeout_s
        self.use_cases = use_cases
        self.stored = False  # whether the write, when it is answered, has changed anything, now or the first time

    async def picture(self, *, box: str | None) -> Upload:
        return await read_picture(self._request, self._limits, box=box)

    async def pictures(self, *, box: str | None = None) -> Sequence[Upload]:
        uploads = await read_pictures(self._request, self._limits, box=box)
        ticket: Ticket = self._request.state.ticket
        ticket.count_pictures(len(uploads))
        return uploads

    async def patch(self, shape: type[Shape]) -> Shape:
        return await read_patch(self._request, shape, self._limits)

    def note_outcome(self, outcome: Outcome) -> None:
        """For the line in the log."""
        self._request.state.outcome = outcome

    async def once(self, shape: type[Told], work: Callable[[Write], Awaitable[Told]], content: bytes, deadline: Deadline) -> Told:
        """The answer to a write. `content` stands for what is in the body. See `idempotency.py`."""
        write = write_of(self._request, content, caller=caller_of(self._request)[0])
        self._request.state.write = write  # for the audit, which may have to go by it alone
        collection, headers = self.use_cases.collection, headers_of(self._request)
        told, again = await once(write, shape, work, collection=collection, deadline=deadline)
        if again:
            headers["Idempotency-Replayed"] = "true"
            await collection.catch_up(deadline)  # this replica may not have seen yet what another has done and told
        headers["X-Version"] = str(collection.served.position)
        self.stored = write.stored or again
        if self.stored:
            self._request.state.version, self._request.state.replayed = told.version, again
        return told

    def deadline(self) -> Deadline:
        """Counts from now: ask for it when the body is there, since how long that takes is up to the client's line."""
        return Deadline.after(self._timeout_s)


async def class_name_in_path(name: str) -> str:
    """The class name in the raw path, percent-decoded strictly."""
    if BROKEN_ESCAPE.search(name):
        raise InvalidInput("A '%' in a path is followed by two hex digits; the sign itself is written %25.", field="name")
    try:
        return class_name_of(unquote_to_bytes(name).decode())
    except UnicodeDecodeError:
        raise InvalidInput("The class name is not percent-encoded UTF-8.", field="name") from None


def class_names(names: Sequence[str]) -> frozenset[str] | None:
    """The `classes` filter; None when there is none."""
    return frozenset(class_name_of(name, field_name="classes") for name in names) or None


async def expected_version(if_match: Annotated[str | None, Header()] = None) -> int | None:
    """The version that the caller wants to change, from its ETag; None for any."""
    if if_match is None or if_match.strip() == "*":
        return None
    match = ETAG.fullmatch(if_match.strip())
    if match is None:
        raise InvalidInput('If-Match takes one ETag of a class, such as "43", or *.', field="If-Match")
    return int(match[1])


async def no_if_match(request: Request) -> None:
    if "if-match" in request.headers:
        raise InvalidInput(
            "Enrolment adds to a class at whatever version it is, so it takes no If-Match: send it without.", field="If-Match"
        )


async def may_be_sent_again(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Names this write, such as a UUID: sent again with it within 24 hours, it is told and not done again."
        ),
    ] = None,
) -> None:
    """For the description of the API; `Call.once` reads it."""


async def no_parameters(request: Request) -> None:
    if request.query_params:
        names = shortened(", ".join(request.query_params))
        raise InvalidInput(f"There is no such parameter here: {names}.", field=shortened(next(iter(request.query_params))))


async def call_of(
    request: Request,
    x_min_version: Annotated[
        str | None, Header(description="An `X-Version` that was answered: what is told here is of that version or a later one.")
    ] = None,
) -> Call:
    use_cases_of: UseCasesOf = request.app.state.use_cases_of
    call = Call(request, await use_cases_of(caller_of(request)[1]))
    collection = call.use_cases.collection
    if x_min_version is not None:
        await collection.reach(position_of(x_min_version), Deadline.after(REACH_WITHIN_S))
    stale_s, headers = collection.stale_s(), headers_of(request)
    if stale_s is not None:
        headers["X-Stale"] = str(stale_s)
    # Taken before the answer is made, which can only be of this version or a later one.
    headers["X-Version"] = str(collection.served.position)
    return call


def position_of(version: str) -> Position:
    match = POSITION.fullmatch(version.strip())
    if match is None:
        raise InvalidInput("X-Min-Version takes what an X-Version said, such as 1763800000000-43.", field="X-Min-Version")
    return Position(int(match[1]), int(match[2]))


def headers_of(request: Request) -> dict[str, str]:
    """Headers of the answer, whatever it will be; the edge adds them."""
    headers: dict[str, str] = request.scope["state"].setdefault("headers", {})
    return headers


CallDep = Annotated[Call, Depends(call_of)]
ClassNameDep = Annotated[str, Depends(class_name_in_path)]
ExampleId = Annotated[str, Path(max_length=MAX_ID_CHARS)]
ExpectedDep = Annotated[int | None, Depends(expected_version)]
MayBeSentAgain = Depends(may_be_sent_again)
NoIfMatch = Depends(no_if_match)
NoParameters = Depends(no_parameters)

"""What handlers ask for: the use cases, the request's pictures and deadline, and parts of path and headers as values.

All of it coroutines: FastAPI sends plain functions through a thread pool, which costs more than they do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Header, Path, Request
from pydantic import BaseModel

from app.api.admission import Ticket
from app.api.bodies import BodyLimits, read_patch, read_picture, read_pictures
from app.api.problems import shortened
from app.domain.values import Outcome, Upload, class_name_of
from app.errors import InvalidInput
from app.service.classes import Classes
from app.service.classify import Classify
from app.service.collection import Collection
from app.service.detect import Detect
from app.service.enrol import Enrol
from app.service.pools import Deadline

Shape = TypeVar("Shape", bound=BaseModel)

BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
MAX_ID_CHARS = 100  # three times those of an id, so that it is a bound on what is echoed and nothing else
ETAG = re.compile(r'"(\d{1,18})"', re.ASCII)


@dataclass(frozen=True, slots=True)
class UseCases:
    collection: Collection
    enrol: Enrol
    classify: Classify
    detect: Detect
    classes: Classes


class Call:
    """One request as handlers see it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        state = request.app.state
        self._limits: BodyLimits = state.body_limits
        self._timeout_s: float = state.request_timeout_s
        self.use_cases: UseCases = state.use_cases

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


async def no_parameters(request: Request) -> None:
    if request.query_params:
        names = shortened(", ".join(request.query_params))
        raise InvalidInput(f"There is no such parameter here: {names}.", field=shortened(next(iter(request.query_params))))


async def call_of(request: Request) -> Call:
    call = Call(request)
    stale_s = call.use_cases.collection.stale_s()
    if stale_s is not None:
        headers_of(request)["X-Stale"] = str(stale_s)
    return call


def headers_of(request: Request) -> dict[str, str]:
    """Headers of the answer, whatever it will be; the edge adds them."""
    headers: dict[str, str] = request.scope["state"].setdefault("headers", {})
    return headers


CallDep = Annotated[Call, Depends(call_of)]
ClassNameDep = Annotated[str, Depends(class_name_in_path)]
ExampleId = Annotated[str, Path(max_length=MAX_ID_CHARS)]
ExpectedDep = Annotated[int | None, Depends(expected_version)]
NoIfMatch = Depends(no_if_match)
NoParameters = Depends(no_parameters)

"""A client of Firstsight, for Python programs. It imports nothing else of `app`: copy it where httpx and pydantic are.

    with Firstsight("http://127.0.0.1:8000") as firstsight:
        firstsight.enrol("acme", "acme.jpg")
        answer = firstsight.classify("street.jpg")

`AsyncFirstsight` has the same calls to `await`. What a call sends, how its answer is read and when it is sent again stands here
once, without I/O; the two clients at the end only wait in two ways.

Errors, all of them below FirstsightError:

    FirstsightError
    ├── Unreachable      nobody answered, after every retry
    ├── UnreadableAnswer what answered is not Firstsight
    └── Problem          the service refused; its `type` is for programs
        ├── NotAllowed   the key is missing, unknown or of too small a scope
        ├── NotFound     no such class or example
        ├── Conflict     a name is taken, or a class has changed meanwhile
        └── Busy         overloaded, starting or without its store, after every retry
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Result = TypeVar("Result")
Shape = TypeVar("Shape", bound="Answered")

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S = 30.0  # three times what the service takes for an answer before it refuses
DEFAULT_RETRIES = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
PAGE = 500

# 429 and 503 are the service's own; 502 and 504 a proxy says for it. Whatever they answer may be sent again.
TRY_AGAIN = frozenset({429, 502, 503, 504})
IN_PROGRESS = "urn:firstsight:problem:idempotency-key-in-progress"  # an earlier attempt of ours is still at work
PROBLEM_TYPE = "application/problem+json"
RAW = {"Content-Type": "application/octet-stream"}


# What is sent


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in whole pixels of the upright picture."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture file, by its path or its bytes, and the box in it that is meant."""

    source: bytes | str | os.PathLike[str]
    box: Box | None = None

    def read(self) -> bytes:
        """OSError when there is no such file."""
        return self.source if isinstance(self.source, bytes) else Path(self.source).read_bytes()


PictureLike = Picture | bytes | str | os.PathLike[str]  # text is a path


# What comes back: fields may be added to it, so what is unknown here is kept and not refused.


class Answered(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, protected_namespaces=())

    def as_json(self) -> dict[str, Any]:
        """As the service sent it."""
        return self.model_dump(mode="json", by_alias=True)


class PlacedBox(Answered):
    x: int
    y: int
    width: int
    height: int


class Verified(Answered):
    """Proof that the picture shows the print of an example. `quad`: its corners in pixels, top left first, clockwise."""

    points: int
    coverage: float
    quad: list[tuple[float, float]]


class Evidence(Answered):
    example: str
    similarity: float
    verified: Verified | None


class Candidate(Answered):
    class_name: str = Field(alias="class")
    similarity: float
    probability: float
    accepted: bool
    threshold: float
    evidence: list[Evidence]


Outcome = Literal["match", "doubtful", "unknown"]


class Answer(Answered):
    """`decision` names a class exactly when the outcome is a match."""

    outcome: Outcome
    decision: str | None
    reason: str | None
    version: int
    model: str
    candidates: list[Candidate]


class Size(Answered):
    width: int
    height: int


class Detection(Candidate):
    box: PlacedBox
    outcome: Outcome
    reason: str | None
    quad: list[tuple[float, float]] | None


class Detections(Answered):
    image: Size
    version: int
    model: str
    detections: list[Detection]


class Warned(Answered):
    """What a person should know about an example, with the number and the limit that it passed."""

    code: str
    detail: str
    value: float
    limit: float
    class_name: str | None = Field(alias="class")
    example: str | None


class EnrolledExample(Answered):
    id: str
    box: PlacedBox
    warnings: list[Warned]


class NearestClass(Answered):
    class_name: str = Field(alias="class")
    similarity: float


class EnrolmentReport(Answered):
    class_name: str = Field(alias="class")
    version: int
    dry_run: bool
    threshold: float
    examples: list[EnrolledExample]
    nearest: list[NearestClass]


class ClassInfo(Answered):
    class_name: str = Field(alias="class")
    examples: int
    threshold: float | None
    version: int
    metadata: dict[str, Any]


class Example(Answered):
    id: str
    box: PlacedBox
    similarity: float | None


class ClassPage(Answered):
    classes: list[ClassInfo]
    next_cursor: str | None


class ExamplePage(Answered):
    examples: list[Example]
    next_cursor: str | None


class Removed(Answered):
    version: int


class Limits(Answered):
    max_body_bytes: int
    max_json_bytes: int
    max_image_megapixels: float
    max_images_per_request: int
    max_examples_per_class: int
    max_concurrent_requests: int
    request_timeout_s: float


class Info(Answered):
    name: str
    version: str
    model: str
    networks: str
    calibration: str
    store: str
    store_images: str
    device: str
    classes: int
    gallery_version: int
    limits: Limits


class ProblemDetails(Answered):
    """RFC 9457, as the service fills it in."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    limit: int | float | str | None = None


# What can go wrong


class FirstsightError(Exception):
    """Root of the tree."""


class Unreachable(FirstsightError):
    def __init__(self, url: str, error: Exception) -> None:
        super().__init__(f"Nobody answers at {url}: {str(error) or type(error).__name__}.")


class UnreadableAnswer(FirstsightError):
    def __init__(self, response: httpx.Response) -> None:
        kind = response.headers.get("content-type", "nothing")
        super().__init__(f"{response.url.copy_with(query=None)} answered {response.status_code} with {kind}: is that Firstsight?")


class Problem(FirstsightError):
    def __init__(self, details: ProblemDetails, *, request_id: str | None = None) -> None:
        super().__init__(details.detail)
        self.details = details
        self.request_id = request_id  # for the operator, who finds it in the log

    @property
    def type(self) -> str:
        """Its name without the prefix that all have: `unknown-class`."""
        return self.details.type.rpartition(":")[2]


class NotAllowed(Problem):
    pass


class NotFound(Problem):
    pass


class Conflict(Problem):
    pass


class Busy(Problem):
    pass


PROBLEM_KINDS: Mapping[int, type[Problem]] = {
    **dict.fromkeys((401, 403), NotAllowed),
    404: NotFound,
    **dict.fromkeys((409, 412), Conflict),
    **dict.fromkeys(TRY_AGAIN, Busy),
}


# Calls, without I/O


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], Result]
    request: Mapping[str, Any] = field(default_factory=dict)  # what httpx takes beside method and path
    headers: Mapping[str, str] = field(default_factory=dict)

    def as_write(self) -> Call[Result]:
        """With a key of its own, the same in each attempt: a service that knows such keys does it once."""
        return replace(self, headers={**self.headers, "Idempotency-Key": uuid4().hex})


def _shape(shape: type[Shape]) -> Callable[[httpx.Response], Shape]:
    return lambda response: shape.model_validate_json(response.content)


def _content(response: httpx.Response) -> bytes:
    return response.content


def _class_path(class_name: str) -> str:
    return f"/classes/{quote(class_name, safe='')}"


def _example_path(class_name: str, example_id: str) -> str:
    return f"{_class_path(class_name)}/examples/{quote(example_id, safe='')}"


def _picture_of(given: PictureLike) -> Picture:
    return given if isinstance(given, Picture) else Picture(given)


def _one_picture(given: PictureLike, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The bytes as they are: the fastest of the body forms."""
    picture = _picture_of(given)
    box = {} if picture.box is None else {"box": str(picture.box)}
    return {"content": picture.read(), "params": {**parameters, **box}}


def _several_pictures(given: Sequence[PictureLike], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A form, in which a box follows its picture."""
    parts: list[tuple[str, tuple[str | None, bytes, str]]] = []
    for picture in map(_picture_of, given):
        parts.append(("image", ("picture", picture.read(), "application/octet-stream")))
        if picture.box is not None:
            parts.append(("box", (None, str(picture.box).encode(), "text/plain")))
    return {"files": parts, "params": dict(parameters)}


def _enrol(class_name: str, pictures: Sequence[PictureLike], *, dry_run: bool) -> Call[EnrolmentReport]:
    request = _several_pictures(pictures, {"dry_run": "true"} if dry_run else {})
    return Call("POST", f"{_class_path(class_name)}/examples", _shape(EnrolmentReport), request).as_write()


def _classify(picture: PictureLike, *, top_k: int, classes: Sequence[str]) -> Call[Answer]:
    request = _one_picture(picture, {"top_k": top_k, "classes": list(classes)})
    return Call("POST", "/classify", _shape(Answer), request, RAW)


def _classify_batch(
    pictures: Sequence[PictureLike], *, top_k: int, classes: Sequence[str]
) -> Call[list[Answer | ProblemDetails]]:
    request = _several_pictures(pictures, {"top_k": top_k, "classes": list(classes)})
    return Call("POST", "/classify/batch", _read_batch, request)


def _detect(picture: PictureLike, *, max_detections: int, classes: Sequence[str], tiles: str) -> Call[Detections]:
    request = _one_picture(picture, {"max_detections": max_detections, "classes": list(classes), "tiles": tiles})
    return Call("POST", "/detect", _shape(Detections), request, RAW)


def _change_class(class_name: str, changed: Mapping[str, Any], expected: int | None) -> Call[ClassInfo]:
    return Call("PATCH", _class_path(class_name), _shape(ClassInfo), {"json": dict(changed)}, _if_match(expected)).as_write()


def _page(path: str, shape: type[Shape], cursor: str | None) -> Call[Shape]:
    return Call("GET", path, _shape(shape), {"params": {"limit": PAGE} | ({} if cursor is None else {"cursor": cursor})})


def _remove(path: str, expected: int | None) -> Call[int]:
    return Call("DELETE", path, lambda response: _shape(Removed)(response).version, headers=_if_match(expected)).as_write()


def _read_batch(response: httpx.Response) -> list[Answer | ProblemDetails]:
    """One of them for each picture, in their order."""
    return [
        Answer.model_validate(item) if "outcome" in item else ProblemDetails.model_validate(item["problem"])
        for item in response.json()["results"]
    ]


def _if_match(expected: int | None) -> dict[str, str]:
    return {} if expected is None else {"If-Match": f'"{expected}"'}


def _changes(
    name: str | None, threshold: float | Literal["computed"] | None, metadata: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a PATCH says; what is None here is left as it is."""
    given = {"name": name, "threshold": threshold, "metadata": None if metadata is None else dict(metadata)}
    changed = {key: value for key, value in given.items() if value is not None}
    return changed | ({"threshold": None} if threshold == "computed" else {})


# Attempts and versions, without I/O

VERSION = re.compile(r"(\d{1,18})-(\d{1,18})", re.ASCII)  # an X-Version


class VersionToken:
    """What was read once is not un-read: each answer names its version, and the next request asks for no older one."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None  # epoch of the store's log, version in it

    def headers(self) -> dict[str, str]:
        return {} if self._seen is None else {"X-Min-Version": f"{self._seen[0]}-{self._seen[1]}"}

    def note(self, response: httpx.Response) -> None:
        told = VERSION.fullmatch(response.headers.get("x-version", ""))
        if told is None:
            return
        position = int(told[1]), int(told[2])
        if self._seen is None or position > self._seen:  # answers to calls made side by side come in any order
            self._seen = position


@dataclass(frozen=True, slots=True)
class Pause:
    """Not answered yet: to be sent again after this."""

    seconds: float


class Attempts(Generic[Result]):
    """One call and its retries: what to make of each response, and how long to wait before the next."""

    def __init__(self, call: Call[Result], *, retries: int, url: str) -> None:
        self._call = call
        self._left = retries
        self._url = url
        self._pause_s = FIRST_PAUSE_S

    def failed(self, error: httpx.RequestError | httpx.InvalidURL) -> Pause:
        """Unreachable when sending again is no use, or was enough."""
        wrong_url = isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL)
        if wrong_url or not self._left:
            raise Unreachable(self._url, error) from error
        return self._pause(None)

    def answered(self, response: httpx.Response) -> Result | Pause:
        """Problem or UnreadableAnswer when that was the last word."""
        if response.is_success:
            return self._read(response)
        problem = _problem_of(response)
        busy = response.status_code in TRY_AGAIN or (problem is not None and problem.details.type == IN_PROGRESS)
        if busy and self._left:
            return self._pause(response.headers.get("retry-after"))
        raise problem or UnreadableAnswer(response)

    def _read(self, response: httpx.Response) -> Result:
        try:
            return self._call.read(response)
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            raise UnreadableAnswer(response) from error

    def _pause(self, retry_after: str | None) -> Pause:
        self._left -= 1
        self._pause_s, pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S), self._pause_s
        asked_s = float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0
        # Spread, so that those who were refused together do not come back together.
        return Pause(max(asked_s, pause_s) * random.uniform(1, 1.5))  # noqa: S311  # no secret is made of it


def _problem_of(response: httpx.Response) -> Problem | None:
    if not response.headers.get("content-type", "").startswith(PROBLEM_TYPE):
        return None
    try:
        details = ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        return None
    return PROBLEM_KINDS.get(response.status_code, Problem)(details, request_id=response.headers.get("x-request-id"))


# The clients


class _Connection:
    """What both clients are told, and what they remember."""

    def __init__(self, url: str, *, key: str | None, retries: int) -> None:
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._retries = retries
        self._version = VersionToken()

    def _attempts(self, call: Call[Result]) -> Attempts[Result]:
        return Attempts(call, retries=self._retries, url=self._url)

    def _arguments(self, call: Call[Any]) -> dict[str, Any]:
        """Those of httpx's `request`."""
        headers = {**self._headers, **self._version.headers(), **call.headers}
        return {"method": call.method, "url": self._url + call.path, "headers": headers, **call.request}


class Firstsight(_Connection):
    """A service at a URL. Of one's own for each process; threads may share it.

    `key` is an API key, where the service runs with keys. `retries` is how often a call is sent again after a lost connection or
    a busy service; `timeout_s` is for each attempt. Every call raises FirstsightError; a picture that cannot be read, OSError.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        retries: int = DEFAULT_RETRIES,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(url, key=key, retries=retries)
        self._http = httpx.Client(timeout=timeout_s, transport=transport)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def enrol(self, class_name: str, *pictures: PictureLike, dry_run: bool = False) -> EnrolmentReport:
        """Adds pictures to a class, which is made when new: all of them, or none when one cannot be used."""
        return self._call(_enrol(class_name, pictures, dry_run=dry_run))

    def classify(self, picture: PictureLike, *, top_k: int = 5, classes: Sequence[str] = ()) -> Answer:
        """Says what a picture shows; of `classes` only, where there are any."""
        return self._call(_classify(picture, top_k=top_k, classes=classes))

    def classify_batch(
        self, pictures: Sequence[PictureLike], *, top_k: int = 5, classes: Sequence[str] = ()
    ) -> list[Answer | ProblemDetails]:
        """An answer for each picture, or what is wrong with that one."""
        return self._call(_classify_batch(pictures, top_k=top_k, classes=classes))

    def detect(
        self,
        picture: PictureLike,
        *,
        max_detections: int = 100,
        classes: Sequence[str] = (),
        tiles: Literal["auto", "on", "off"] = "auto",
    ) -> Detections:
        """Says what a scene shows, and where."""
        return self._call(_detect(picture, max_detections=max_detections, classes=classes, tiles=tiles))

    def classes(self) -> Iterator[ClassInfo]:
        """All classes by name, read a page at a time."""
        cursor = None
        while True:
            page = self._call(_page("/classes", ClassPage, cursor))
            yield from page.classes
            if (cursor := page.next_cursor) is None:
                return

    def read_class(self, class_name: str) -> ClassInfo:
        return self._call(Call("GET", _class_path(class_name), _shape(ClassInfo)))

    def change_class(
        self,
        class_name: str,
        *,
        name: str | None = None,
        threshold: float | Literal["computed"] | None = None,
        metadata: Mapping[str, Any] | None = None,
        expected: int | None = None,
    ) -> ClassInfo:
        """What is None stays. `expected` is the version that was read: Conflict when the class has changed since."""
        return self._call(_change_class(class_name, _changes(name, threshold, metadata), expected))

    def remove_class(self, class_name: str, *, expected: int | None = None) -> int:
        """Returns the version of the change."""
        return self._call(_remove(_class_path(class_name), expected))

    def examples(self, class_name: str) -> Iterator[Example]:
        """All examples of a class, read a page at a time."""
        cursor = None
        while True:
            page = self._call(_page(f"{_class_path(class_name)}/examples", ExamplePage, cursor))
            yield from page.examples
            if (cursor := page.next_cursor) is None:
                return

    def read_example(self, class_name: str, example_id: str) -> Example:
        return self._call(Call("GET", _example_path(class_name, example_id), _shape(Example)))

    def example_image(self, class_name: str, example_id: str) -> bytes:
        """The picture that is kept of an example, a JPEG."""
        return self._call(Call("GET", f"{_example_path(class_name, example_id)}/image", _content))

    def remove_example(self, class_name: str, example_id: str, *, expected: int | None = None) -> int:
        """`expected` is the version of the class. Returns the version of the change."""
        return self._call(_remove(_example_path(class_name, example_id), expected))

    def info(self) -> Info:
        return self._call(Call("GET", "/info", _shape(Info)))

    def _call(self, call: Call[Result]) -> Result:
        attempts = self._attempts(call)
        while True:
            next_step = self._attempt(call, attempts)
            if not isinstance(next_step, Pause):
                return next_step
            self._sleep(next_step.seconds)

    def _attempt(self, call: Call[Result], attempts: Attempts[Result]) -> Result | Pause:
        try:
            response = self._http.request(**self._arguments(call))
        except (httpx.RequestError, httpx.InvalidURL) as error:
            return attempts.failed(error)
        self._version.note(response)
        return attempts.answered(response)


class AsyncFirstsight(_Connection):
    """Firstsight for event loops: the same calls, to await. Pictures given by path are read from disk at once, in the loop."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        retries: int = DEFAULT_RETRIES,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(url, key=key, retries=retries)
        self._http = httpx.AsyncClient(timeout=timeout_s, transport=transport)
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def enrol(self, class_name: str, *pictures: PictureLike, dry_run: bool = False) -> EnrolmentReport:
        return await self._call(_enrol(class_name, pictures, dry_run=dry_run))

    async def classify(self, picture: PictureLike, *, top_k: int = 5, classes: Sequence[str] = ()) -> Answer:
        return await self._call(_classify(picture, top_k=top_k, classes=classes))

    async def classify_batch(
        self, pictures: Sequence[PictureLike], *, top_k: int = 5, classes: Sequence[str] = ()
    ) -> list[Answer | ProblemDetails]:
        return await self._call(_classify_batch(pictures, top_k=top_k, classes=classes))

    async def detect(
        self,
        picture: PictureLike,
        *,
        max_detections: int = 100,
        classes: Sequence[str] = (),
        tiles: Literal["auto", "on", "off"] = "auto",
    ) -> Detections:
        """Says what a scene shows, and where."""
        return await self._call(_detect(picture, max_detections=max_detections, classes=classes, tiles=tiles))

    async def classes(self) -> AsyncIterator[ClassInfo]:
        cursor = None
        while True:
            page = await self._call(_page("/classes", ClassPage, cursor))
            for each in page.classes:
                yield each
            if (cursor := page.next_cursor) is None:
                return

    async def read_class(self, class_name: str) -> ClassInfo:
        return await self._call(Call("GET", _class_path(class_name), _shape(ClassInfo)))

    async def change_class(
        self,
        class_name: str,
        *,
        name: str | None = None,
        threshold: float | Literal["computed"] | None = None,
        metadata: Mapping[str, Any] | None = None,
        expected: int | None = None,
    ) -> ClassInfo:
        """What is None stays. `expected` is the version that was read: Conflict when the class has changed since."""
        return await self._call(_change_class(class_name, _changes(name, threshold, metadata), expected))

    async def remove_class(self, class_name: str, *, expected: int | None = None) -> int:
        return await self._call(_remove(_class_path(class_name), expected))

    async def examples(self, class_name: str) -> AsyncIterator[Example]:
        cursor = None
        while True:
            page = await self._call(_page(f"{_class_path(class_name)}/examples", ExamplePage, cursor))
            for each in page.examples:
                yield each
            if (cursor := page.next_cursor) is None:
                return

    async def read_example(self, class_name: str, example_id: str) -> Example:
        return await self._call(Call("GET", _example_path(class_name, example_id), _shape(Example)))

    async def example_image(self, class_name: str, example_id: str) -> bytes:
        return await self._call(Call("GET", f"{_example_path(class_name, example_id)}/image", _content))

    async def remove_example(self, class_name: str, example_id: str, *, expected: int | None = None) -> int:
        return await self._call(_remove(_example_path(class_name, example_id), expected))

    async def info(self) -> Info:
        return await self._call(Call("GET", "/info", _shape(Info)))

    async def _call(self, call: Call[Result]) -> Result:
        attempts = self._attempts(call)
        while True:
            next_step = await self._attempt(call, attempts)
            if not isinstance(next_step, Pause):
                return next_step
            await self._sleep(next_step.seconds)

    async def _attempt(self, call: Call[Result], attempts: Attempts[Result]) -> Result | Pause:
        try:
            response = await self._http.request(**self._arguments(call))
        except (httpx.RequestError, httpx.InvalidURL) as error:
            return attempts.failed(error)
        self._version.note(response)
        return attempts.answered(response)

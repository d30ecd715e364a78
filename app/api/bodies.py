"""The three body forms -> pictures: multipart, JSON with base64, or the bytes of one picture. The only code that knows multipart.

The form is taken from Content-Type; what kind of picture it is, is decided later by content, never by header or file name. Bodies
are read here, inside the handlers, so that whatever can be refused on the headers has been.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.problems import invalid_input_of, shortened
from app.api.schemas import OnePictureIn, PictureIn, PicturesIn
from app.domain.values import Box, Upload
from app.errors import InvalidInput, MalformedRequest, TooLarge, UnsupportedPicture

JSON = "application/json"
MULTIPART = "multipart/form-data"
RAW = re.compile(r"image/.+|application/octet-stream")
ACCEPTED = f"{MULTIPART}, {JSON}, image/* or application/octet-stream"

BOX = re.compile(r"(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9}),(-?\d{1,9})", re.ASCII)
BOX_PART_BYTES = 64  # four numbers of nine digits

# JSON costs time and memory by its values, of which 8 MiB can hold millions. Commas tell how many there are before anything is
# parsed: a picture with a box takes five, base64 has none, and the spare ones are for telling which fields are unknown.
COMMAS_PER_PICTURE = 5
SPARE_COMMAS = 100

MAX_PATCH_BYTES = 64 * 1024  # 4 KiB of metadata and a name of 200 characters, however they are escaped

Shape = TypeVar("Shape", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class BodyLimits:
    images: int  # of one request
    json_bytes: int


async def read_picture(request: Request, limits: BodyLimits, *, box: str | None) -> Upload:
    """The one picture of a request. `box` is the query's."""
    limits = replace(limits, images=1)
    if _content_type(request) == JSON:
        shape = await _read_json_pictures(request, OnePictureIn, limits, field="image")
        uploads = [_upload_of(shape.image, "image")]
    else:
        uploads = await _read_files(request, limits)
    return _with_query_box(uploads, box)[0]


async def read_pictures(request: Request, limits: BodyLimits, *, box: str | None = None) -> Sequence[Upload]:
    """All pictures of a request, one at least, in their order. `box` is the query's, and fits a single picture only."""
    if _content_type(request) == JSON:
        shape = await _read_json_pictures(request, PicturesIn, limits, field="images")
        _check_count(len(shape.images), limits, field="images")
        uploads = [_upload_of(picture, f"images[{position}]") for position, picture in enumerate(shape.images)]
    else:
        uploads = await _read_files(request, limits)
    return _with_query_box(uploads, box)


async def read_patch(request: Request, shape: type[Shape], limits: BodyLimits) -> Shape:
    return _shape_of(await _read_json(request, max_bytes=min(MAX_PATCH_BYTES, limits.json_bytes)), shape)


def box_of(text: str, *, field: str) -> Box:
    """`x,y,width,height` -> a box, which may yet not fit its picture."""
    match = BOX.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            "A box is written as x,y,width,height: four whole numbers of pixels, such as 10,20,300,200.", field=field
        )
    x, y, width, height = map(int, match.groups())
    return Box(x=x, y=y, width=width, height=height)


async def _read_json_pictures(request: Request, shape: type[Shape], limits: BodyLimits, *, field: str) -> Shape:
    body = await _read_json(request, max_bytes=limits.json_bytes, way_out=f": send large pictures as {MULTIPART} or as raw bytes")
    commas, most = body.count(b","), COMMAS_PER_PICTURE * limits.images + SPARE_COMMAS
    if commas > most:
        raise InvalidInput(
            f"A request has {limits.images} pictures at most, and its JSON {most} commas; this one has {commas}.",
            field=field,
            limit=limits.images,
        )
    return _shape_of(body, shape)


async def _read_json(request: Request, *, max_bytes: int, way_out: str = "") -> bytearray:
    if _content_type(request) != JSON:
        raise MalformedRequest(f"The body has to be JSON: send it with 'Content-Type: {JSON}'.", field="Content-Type", limit=JSON)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(f"JSON has {max_bytes} bytes at most here{way_out}.", field="body", limit=max_bytes)
    return body


def _shape_of(body: bytearray, shape: type[Shape]) -> Shape:
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise invalid_input_of(error.errors(include_url=False, include_input=False)) from None


def _content_type(request: Request) -> str:
    return parse_options_header(request.headers.get("content-type"))[0].decode("latin-1")


async def _read_files(request: Request, limits: BodyLimits) -> list[Upload]:
    content_type = _content_type(request)
    if content_type == MULTIPART:
        return await _read_multipart(request, limits)
    if RAW.fullmatch(content_type):
        return [_upload(b"".join([chunk async for chunk in request.stream()]), None, "image")]
    raise UnsupportedPicture(
        f"The Content-Type has to be {ACCEPTED}, not {shortened(content_type) or 'missing'}. With curl: -F image=@picture.jpg",
        field="Content-Type",
        limit=ACCEPTED,
    )


async def _read_multipart(request: Request, limits: BodyLimits) -> list[Upload]:
    _, options = parse_options_header(request.headers["content-type"])
    if b"boundary" not in options:
        raise MalformedRequest("The Content-Type names no boundary of the parts.", field="Content-Type")
    form = _PictureForm(limits)
    try:
        parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": form.begin_part,
                "on_header_field": form.add_header_name,
                "on_header_value": form.add_header_value,
                "on_header_end": form.end_header,
                "on_headers_finished": form.end_headers,
                "on_part_data": form.add_data,
                "on_part_end": form.end_part,
                "on_end": form.end,
            },
        )
        async for chunk in request.stream():
            parser.write(chunk)
    except FormParserError:
        raise MalformedRequest("The body is not multipart/form-data with the boundary that Content-Type names.") from None
    return form.uploads()


class _PictureForm:
    """Takes the parts of a form as the parser finds them: pictures named `image`, each with a `box` after it or not."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._images: list[bytes] = []
        self._boxes: dict[int, str] = {}  # by the position of the picture that it follows
        self._name = ""
        self._data = bytearray()
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._complete = False

    def begin_part(self) -> None:
        self._name = ""
        self._data = bytearray()

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value.decode("latin-1"))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header_name, self._header_value = bytearray(), bytearray()

    def end_headers(self) -> None:
        # As soon as a part is announced, so that a form of ten thousand parts ends at the first one too many.
        match self._name:
            case "image":
                _check_count(len(self._images) + 1, self._limits, field="image")
            case "box" if not self._images:
                raise InvalidInput("A part 'box' belongs after the part 'image' that it is about.", field="box")
            case "box" if len(self._images) - 1 in self._boxes:
                raise InvalidInput("A part 'image' can have one part 'box' only.", field="box")
            case "box":
                pass
            case unknown:
                name = shortened(unknown)
                raise InvalidInput(f"There is no part {name!r}: pictures are parts named 'image'.", field=name)

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]
        if self._name == "box" and len(self._data) > BOX_PART_BYTES:
            raise InvalidInput(f"A part 'box' has {BOX_PART_BYTES} bytes at most.", field="box", limit=BOX_PART_BYTES)

    def end_part(self) -> None:
        if self._name == "image":
            self._images.append(bytes(self._data))
        else:
            self._boxes[len(self._images) - 1] = self._data.decode("latin-1")

    def end(self) -> None:
        self._complete = True

    def uploads(self) -> list[Upload]:
        if not self._complete:
            raise MalformedRequest("The multipart body ends before its last boundary.")
        if not self._images:
            raise InvalidInput("The form has no part named 'image'.", field="image")
        return [self._upload(position) for position in range(len(self._images))]

    def _upload(self, position: int) -> Upload:
        field = "image" if len(self._images) == 1 else f"images[{position}]"
        box = self._boxes.get(position)
        return _upload(self._images[position], None if box is None else box_of(box, field=f"{field}.box"), field)


def _upload_of(picture: PictureIn, field: str) -> Upload:
    try:
        data = binascii.a2b_base64(picture.data, strict_mode=True)
    except ValueError:  # also what is not ASCII
        raise InvalidInput(
            "The data is not base64: send the standard alphabet, padded, without line breaks and without a 'data:' prefix.",
            field=f"{field}.data",
        ) from None
    box = picture.box
    return _upload(data, None if box is None else Box(x=box.x, y=box.y, width=box.width, height=box.height), field)


def _upload(data: bytes, box: Box | None, field: str) -> Upload:
    if not data:
        raise InvalidInput("The picture has no bytes.", field=field)
    return Upload(data, box, field)


def _with_query_box(uploads: list[Upload], box: str | None) -> list[Upload]:
    if box is None:
        return uploads
    if len(uploads) != 1 or uploads[0].box is not None:
        raise InvalidInput("A box in the query is for a single picture that has none in the body.", field="box")
    return [replace(uploads[0], box=box_of(box, field="box"))]


def _check_count(count: int, limits: BodyLimits, *, field: str) -> None:
    if count > limits.images:
        raise InvalidInput(f"A request has {limits.images} pictures at most.", field=field, limit=limits.images)

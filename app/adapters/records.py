"""Changes, classes and examples as bytes, for every store that writes: the same value gives the same bytes, on any machine.

A record is a prefix, a JSON header that says everything but the arrays, and the arrays as raw little-endian numbers. The checksum
is there because a flipped bit in a vector would be a silently wrong answer. No pickle: a record is only data.

Format 1 had no points. It is read as what it was: examples without points, class models of a provenance without them. Format 4
has what a detector makes of examples. What has none of that is still written in format 2, so that older versions can read it.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from app.domain.changes import (
    Change,
    ClassConfigured,
    ClassRefitted,
    ClassRemoved,
    ClassRenamed,
    ClassRestored,
    ExampleRemoved,
    ExamplesAdded,
    Receipt,
)
from app.domain.values import (
    DESCRIPTOR_SIZE,
    Box,
    ClassModel,
    ClassState,
    Example,
    FloatArray,
    HalfArray,
    Points,
    Provenance,
    no_regions,
)
from app.errors import IncompatibleStore, StoreUnavailable

Fields = dict[str, Any]
Bytes = NDArray[np.uint8]

FORMAT = 4
WITHOUT_REGIONS = 2
READABLE_FORMATS = (1, WITHOUT_REGIONS, FORMAT)  # none is another with a flipped bit: the checksum does not cover the format
PREFIX = struct.Struct("<II")  # format; CRC-32 of all that follows
HEADER_SIZE = struct.Struct("<I")  # bytes of the header, with its padding
STEP_BYTES = 4  # arrays begin on a multiple of it, so that numpy can use them in place; the header counts in it


class _Arrays:
    """The arrays of a record being written; the header refers to them by offset, in steps."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.format = WITHOUT_REGIONS

    def add_vectors(self, vectors: FloatArray) -> Fields:
        return {"at": self._add(vectors.astype("<f4").tobytes()), "shape": vectors.shape}

    def add_points(self, points: Points) -> Fields:
        # Descriptors last: they are bytes, and the others stay on whole numbers whatever the count.
        parts = (points.places.astype("<u2"), points.words.astype("<u2"), points.descriptors)
        return {"at": self._add(b"".join(part.tobytes() for part in parts)), "count": len(points)}

    def add_regions(self, regions: HalfArray) -> Fields:
        self.format = FORMAT
        return {"at": self._add(regions.astype("<f2").tobytes()), "shape": regions.shape}

    def _add(self, data: bytes) -> int:
        at = len(self.data) // STEP_BYTES
        self.data += data
        self.data += bytes(-len(data) % STEP_BYTES)
        return at


def encode_change(change: Change) -> bytes:
    arrays = _Arrays()
    return _seal(_change_fields(change, arrays), arrays)


def decode_change(record: bytes) -> Change:
    """Raises StoreUnavailable for a damaged record, IncompatibleStore for one of a newer format."""
    fields, data = _open(record)
    name = fields["class"]
    match fields["kind"]:
        case "examples_added":
            return ExamplesAdded(name, _examples(fields["examples"], data), _model(fields["model"], data))
        case "example_removed":
            return ExampleRemoved(name, fields["example"], _model_or_none(fields["model"], data))
        case "class_configured":
            return ClassConfigured(name, fields["user_threshold"], fields["metadata"])
        case "class_renamed":
            return ClassRenamed(name, fields["new_name"], fields["user_threshold"], fields["metadata"])
        case "class_refitted":
            return ClassRefitted(name, _examples(fields["examples"], data), _model(fields["model"], data))
        case "class_restored":
            examples, model = _examples(fields["examples"], data), _model_or_none(fields["model"], data)
            return ClassRestored(name, examples, model, fields["user_threshold"], fields["metadata"])
        case "class_removed":
            return ClassRemoved(name)
        case kind:
            raise IncompatibleStore(f"The store holds a change of an unknown kind, {kind!r}: it was written by a newer version.")


def encode_class(state: ClassState) -> bytes:
    arrays = _Arrays()
    fields = {
        "class": state.name,
        "version": state.version,
        "examples": [_example_fields(example, arrays) for example in state.examples],
        "model": _model_fields(state.model, arrays),
        "user_threshold": state.user_threshold,
        "metadata": state.metadata,
    }
    return _seal(fields, arrays)


def decode_class(record: bytes) -> ClassState:
    """Raises StoreUnavailable for a damaged record, IncompatibleStore for one of a newer format."""
    fields, data = _open(record)
    return ClassState(
        fields["class"],
        fields["version"],
        _examples(fields["examples"], data),
        _model_or_none(fields["model"], data),
        fields["user_threshold"],
        fields["metadata"],
    )


def encode_example(example: Example) -> bytes:
    arrays = _Arrays()
    return _seal(_example_fields(example, arrays), arrays)


def decode_example(record: bytes) -> Example:
    """Raises StoreUnavailable for a damaged record, IncompatibleStore for one of a newer format."""
    return _example(*_open(record))


def encode_receipt(receipt: Receipt) -> bytes:
    """All but its key and its version, which stand beside it."""
    return _seal({"fingerprint": receipt.fingerprint, "answer": receipt.answer}, _Arrays())


def decode_receipt(key: str, record: bytes, version: int) -> Receipt:
    """Raises StoreUnavailable for a damaged record, IncompatibleStore for one of a newer format."""
    fields, _ = _open(record)
    return Receipt(key, fields["fingerprint"], fields["answer"], version)


def _change_fields(change: Change, arrays: _Arrays) -> Fields:
    fields: Fields = {"class": change.class_name}
    match change:
        case ExamplesAdded() | ClassRefitted():
            kind = "examples_added" if isinstance(change, ExamplesAdded) else "class_refitted"
            examples = [_example_fields(example, arrays) for example in change.examples]
            return fields | {"kind": kind, "examples": examples, "model": _model_fields(change.model, arrays)}
        case ExampleRemoved():
            return fields | {
                "kind": "example_removed",
                "example": change.example_id,
                "model": _model_fields(change.model, arrays),
            }
        case ClassConfigured():
            configured = {"user_threshold": change.user_threshold, "metadata": change.metadata}
            return fields | {"kind": "class_configured"} | configured
        case ClassRenamed():
            configured = {"user_threshold": change.user_threshold, "metadata": change.metadata}
            return fields | {"kind": "class_renamed", "new_name": change.new_name} | configured
        case ClassRestored():
            examples = [_example_fields(example, arrays) for example in change.examples]
            configured = {"user_threshold": change.user_threshold, "metadata": change.metadata}
            model = _model_fields(change.model, arrays)
            return fields | {"kind": "class_restored", "examples": examples, "model": model} | configured
        case ClassRemoved():
            return fields | {"kind": "class_removed"}


def _example_fields(example: Example, arrays: _Arrays) -> Fields:
    box = example.box
    fields = {
        "id": example.id,
        "box": [box.x, box.y, box.width, box.height],
        "embedding": arrays.add_vectors(example.embedding),
        "spread": example.spread,
        "points": arrays.add_points(example.points),
    }
    return fields if not len(example.regions) else fields | {"regions": arrays.add_regions(example.regions)}


def _examples(fields: list[Fields], data: Bytes) -> tuple[Example, ...]:
    return tuple(_example(each, data) for each in fields)


def _example(fields: Fields, data: Bytes) -> Example:
    points = _points(fields["points"], data) if "points" in fields else Points.none()
    return Example(
        id=fields["id"],
        box=Box(*fields["box"]),
        embedding=_vectors(fields["embedding"], data),
        spread=fields["spread"],
        points=points,
        regions=_regions(fields, data),
    )


def _model_fields(model: ClassModel | None, arrays: _Arrays) -> Fields | None:
    if model is None:
        return None
    provenance = model.provenance
    fields = {
        "representatives": arrays.add_vectors(model.representatives),
        "spread": model.spread,
        "threshold": model.threshold,
        "networks": provenance.networks,
        "calibration": provenance.calibration,
        "points": provenance.points,
    }
    if not provenance.detector:
        return fields
    # Even if it has seen no example, because no crop is stored: it has been asked.
    return fields | {"detector": provenance.detector, "regions": arrays.add_regions(model.regions)}


def _model(fields: Fields, data: Bytes) -> ClassModel:
    provenance = Provenance(fields["networks"], fields["calibration"], fields.get("points", ""), fields.get("detector", ""))
    return ClassModel(
        representatives=_vectors(fields["representatives"], data),
        spread=fields["spread"],
        threshold=fields["threshold"],
        provenance=provenance,
        regions=_regions(fields, data),
    )


def _model_or_none(fields: Fields | None, data: Bytes) -> ClassModel | None:
    return None if fields is None else _model(fields, data)


def _vectors(place: Fields, data: Bytes) -> FloatArray:
    return _array(data, place["at"] * STEP_BYTES, "<f4", place["shape"])


def _regions(fields: Fields, data: Bytes) -> HalfArray:
    if "regions" not in fields:
        return no_regions()
    return _array(data, fields["regions"]["at"] * STEP_BYTES, "<f2", fields["regions"]["shape"])


def _points(place: Fields, data: Bytes) -> Points:
    count = place["count"]
    places = place["at"] * STEP_BYTES
    words = places + 4 * 2 * count  # after four uint16 a point
    descriptors = words + 2 * count
    return Points(
        places=_array(data, places, "<u2", (count, 4)),
        descriptors=_array(data, descriptors, "u1", (count, DESCRIPTOR_SIZE)),
        words=_array(data, words, "<u2", (count,)),
    )


def _array(data: Bytes, at: int, dtype: DTypeLike, shape: Sequence[int]) -> NDArray[Any]:
    """The numbers that begin at a byte, as a view."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return data[at : at + size].view(dtype).reshape(shape)


def _seal(fields: Fields, arrays: _Arrays) -> bytes:
    header = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()
    header += b" " * (-len(header) % STEP_BYTES)
    content = HEADER_SIZE.pack(len(header)) + header + arrays.data
    return PREFIX.pack(arrays.format, zlib.crc32(content)) + content


def _open(record: bytes) -> tuple[Fields, Bytes]:
    """The header and the bytes of the arrays, which stay views of the record: read-only, and not copied."""
    if len(record) < PREFIX.size:
        raise StoreUnavailable(f"A record of the store is damaged: it has {len(record)} bytes.")
    written_format, checksum = PREFIX.unpack_from(record)
    if written_format not in READABLE_FORMATS:
        raise IncompatibleStore(
            f"The store holds a record of format {written_format}; this version reads formats up to {FORMAT}."
        )
    if zlib.crc32(memoryview(record)[PREFIX.size :]) != checksum:
        raise StoreUnavailable("A record of the store is damaged: its checksum does not match.")
    (header_size,) = HEADER_SIZE.unpack_from(record, PREFIX.size)
    start = PREFIX.size + HEADER_SIZE.size
    end = start + header_size
    return json.loads(record[start:end]), np.frombuffer(record, np.uint8, offset=end)

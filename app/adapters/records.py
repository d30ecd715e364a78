"""Changes and classes as bytes, for every store that writes: the same value gives the same bytes, on any machine.

A record is a prefix, a JSON header that says everything but the vectors, and the vectors as raw little-endian float32. The
checksum is there because a flipped bit in a vector would be a silently wrong answer. No pickle: a record is only data.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from typing import Any

import numpy as np

from app.domain.changes import (
    Change,
    ClassConfigured,
    ClassRefitted,
    ClassRemoved,
    ClassRenamed,
    ExampleRemoved,
    ExamplesAdded,
)
from app.domain.values import Box, ClassModel, ClassState, Example, FloatArray, Provenance
from app.errors import IncompatibleStore, StoreUnavailable

Fields = dict[str, Any]

FORMAT = 1
PREFIX = struct.Struct("<II")  # format; CRC-32 of all that follows
HEADER_SIZE = struct.Struct("<I")  # bytes of the header, with its padding
FLOAT_BYTES = 4


class _Vectors:
    """The float part of a record being written; the header refers to it by offset, in floats."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, array: FloatArray) -> Fields:
        at = len(self.data) // FLOAT_BYTES
        self.data += array.astype("<f4").tobytes()
        return {"at": at, "shape": array.shape}


def encode_change(change: Change) -> bytes:
    vectors = _Vectors()
    return _seal(_change_fields(change, vectors), vectors)


def decode_change(record: bytes) -> Change:
    """Raises StoreUnavailable for a damaged record, IncompatibleStore for one of a newer format."""
    fields, floats = _open(record)
    name = fields["class"]
    match fields["kind"]:
        case "examples_added":
            return ExamplesAdded(name, _examples(fields["examples"], floats), _model(fields["model"], floats))
        case "example_removed":
            return ExampleRemoved(name, fields["example"], _model_or_none(fields["model"], floats))
        case "class_configured":
            return ClassConfigured(name, fields["user_threshold"], fields["metadata"])
        case "class_renamed":
            return ClassRenamed(name, fields["new_name"], fields["user_threshold"], fields["metadata"])
        case "class_refitted":
            return ClassRefitted(name, _examples(fields["examples"], floats), _model(fields["model"], floats))
        case "class_removed":
            return ClassRemoved(name)
        case kind:
            raise IncompatibleStore(f"The store holds a change of an unknown kind, {kind!r}: it was written by a newer version.")


def encode_class(state: ClassState) -> bytes:
    vectors = _Vectors()
    fields = {
        "class": state.name,
        "version": state.version,
        "examples": [_example_fields(example, vectors) for example in state.examples],
        "model": _model_fields(state.model, vectors),
        "user_threshold": state.user_threshold,
        "metadata": state.metadata,
    }
    return _seal(fields, vectors)


def decode_class(record: bytes) -> ClassState:
    """Raises StoreUnavailable for a damaged record, IncompatibleStore for one of a newer format."""
    fields, floats = _open(record)
    return ClassState(
        fields["class"],
        fields["version"],
        _examples(fields["examples"], floats),
        _model_or_none(fields["model"], floats),
        fields["user_threshold"],
        fields["metadata"],
    )


def _change_fields(change: Change, vectors: _Vectors) -> Fields:
    fields: Fields = {"class": change.class_name}
    match change:
        case ExamplesAdded() | ClassRefitted():
            kind = "examples_added" if isinstance(change, ExamplesAdded) else "class_refitted"
            examples = [_example_fields(example, vectors) for example in change.examples]
            return fields | {"kind": kind, "examples": examples, "model": _model_fields(change.model, vectors)}
        case ExampleRemoved():
            return fields | {
                "kind": "example_removed",
                "example": change.example_id,
                "model": _model_fields(change.model, vectors),
            }
        case ClassConfigured():
            configured = {"user_threshold": change.user_threshold, "metadata": change.metadata}
            return fields | {"kind": "class_configured"} | configured
        case ClassRenamed():
            configured = {"user_threshold": change.user_threshold, "metadata": change.metadata}
            return fields | {"kind": "class_renamed", "new_name": change.new_name} | configured
        case ClassRemoved():
            return fields | {"kind": "class_removed"}


def _example_fields(example: Example, vectors: _Vectors) -> Fields:
    box = example.box
    return {
        "id": example.id,
        "box": [box.x, box.y, box.width, box.height],
        "embedding": vectors.add(example.embedding),
        "spread": example.spread,
    }


def _examples(fields: list[Fields], floats: FloatArray) -> tuple[Example, ...]:
    return tuple(Example(each["id"], Box(*each["box"]), _vectors(each["embedding"], floats), each["spread"]) for each in fields)


def _model_fields(model: ClassModel | None, vectors: _Vectors) -> Fields | None:
    if model is None:
        return None
    return {
        "representatives": vectors.add(model.representatives),
        "spread": model.spread,
        "threshold": model.threshold,
        "networks": model.provenance.networks,
        "calibration": model.provenance.calibration,
    }


def _model(fields: Fields, floats: FloatArray) -> ClassModel:
    provenance = Provenance(fields["networks"], fields["calibration"])
    return ClassModel(_vectors(fields["representatives"], floats), fields["spread"], fields["threshold"], provenance)


def _model_or_none(fields: Fields | None, floats: FloatArray) -> ClassModel | None:
    return None if fields is None else _model(fields, floats)


def _vectors(place: Fields, floats: FloatArray) -> FloatArray:
    at, shape = place["at"], place["shape"]
    return floats[at : at + math.prod(shape)].reshape(shape)


def _seal(fields: Fields, vectors: _Vectors) -> bytes:
    header = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()
    header += b" " * (-len(header) % FLOAT_BYTES)  # vectors begin on a whole float, so that numpy can use them in place
    content = HEADER_SIZE.pack(len(header)) + header + vectors.data
    return PREFIX.pack(FORMAT, zlib.crc32(content)) + content


def _open(record: bytes) -> tuple[Fields, FloatArray]:
    """The header and the vectors, which stay views of the record: read-only, and not copied."""
    if len(record) < PREFIX.size:
        raise StoreUnavailable(f"A record of the store is damaged: it has {len(record)} bytes.")
    written_format, checksum = PREFIX.unpack_from(record)
    if written_format != FORMAT:
        raise IncompatibleStore(f"The store holds a record of format {written_format}; this version reads format {FORMAT}.")
    if zlib.crc32(memoryview(record)[PREFIX.size :]) != checksum:
        raise StoreUnavailable("A record of the store is damaged: its checksum does not match.")
    (header_size,) = HEADER_SIZE.unpack_from(record, PREFIX.size)
    start = PREFIX.size + HEADER_SIZE.size
    end = start + header_size
    return json.loads(record[start:end]), np.frombuffer(record, "<f4", offset=end)

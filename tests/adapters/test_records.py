from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.records import decode_change, decode_class, decode_example, encode_change, encode_class, encode_example
from app.domain.changes import ClassConfigured, ExamplesAdded
from app.domain.gallery import Gallery
from app.domain.values import POINT_BYTES, Box, ClassState, Example, Points, no_regions
from app.errors import IncompatibleStore, StoreUnavailable
from tests.adapters.old_stores import EXAMPLE_1, EXAMPLE_OF_1, MODEL_1, MODEL_OF_1, record_of_format_1
from tests.histories import Expecting, committed, histories
from tests.values import DETECTOR, NETWORKS, class_of, example_of, model_of, plain, random_regions, unit

REGIONS = encode_change(ExamplesAdded("acme", (example_of("e0", regions=1),), model_of((1, 0), regions=random_regions(1))))
RECORD = encode_change(ExamplesAdded("acme", (example_of("e0", (3, 4), points=1), example_of("e1")), model_of((1, 0))))


@given(histories())
def test_every_kind_of_change_comes_back_as_it_was(history: list[Expecting]) -> None:
    for each in history:
        assert plain(decode_change(encode_change(each.change))) == plain(each.change)


@given(histories())
def test_every_class_comes_back_as_it_was(history: list[Expecting]) -> None:
    for state in Gallery.empty(NETWORKS).fold(*committed(history)).snapshot().classes:
        assert plain(decode_class(encode_class(state))) == plain(state)


@given(histories())
def test_every_example_comes_back_as_it_was(history: list[Expecting]) -> None:
    for state in Gallery.empty(NETWORKS).fold(*committed(history)).snapshot().classes:
        for example in state.examples:
            assert plain(decode_example(encode_example(example))) == plain(example)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()), max_size=4))
def test_any_metadata_comes_back_as_it_was(metadata: dict[str, object]) -> None:
    change = ClassConfigured("acme", None, metadata)
    assert decode_change(encode_change(change)) == change


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_comes_back_bit_by_bit(number: float) -> None:
    state = ClassState("acme", 1, user_threshold=number)
    assert struct.pack("<d", decode_class(encode_class(state)).user_threshold) == struct.pack("<d", number)


def test_a_record_can_be_read_with_json_and_struct_alone() -> None:
    points = Points(
        places=np.array([[1, 2, 3, 65535]], np.uint16),
        descriptors=np.arange(128, dtype=np.uint8)[np.newaxis],
        words=np.array([258], np.uint16),
    )
    record = encode_class(ClassState("acme", 1, (Example("e0", Box(0, 0, 9, 9), unit((3, 4)), 0.125, points),)))
    written_format, _, header_size = struct.unpack_from("<III", record)
    header = json.loads(record[12 : 12 + header_size])
    assert (written_format, header["class"], header["examples"][0]["id"]) == (2, "acme", "e0")
    assert header["examples"][0]["points"] == {"at": 2, "count": 1}  # after two steps of four bytes
    # (3, 4) at unit length, rounded to float32 as `struct` rounds; then place, word, descriptor, and a filling to four bytes.
    arrays = struct.pack("<2f4HH", 0.6, 0.8, 1, 2, 3, 65535, 258) + bytes(range(128)) + b"\0\0"
    assert record[12 + header_size :] == arrays


def test_the_same_value_gives_the_same_bytes() -> None:
    assert encode_class(class_of("acme", (3, 4))) == encode_class(class_of("acme", (3, 4)))


@pytest.mark.parametrize("count", [1, 2, 3, 300])
def test_points_take_their_size_and_little_more(count: int) -> None:
    with_points, without = encode_example(example_of("e0", points=count)), encode_example(example_of("e0"))
    assert 0 <= len(with_points) - len(without) - count * POINT_BYTES < 8


@pytest.mark.parametrize("example_id", ["a", "ab", "abc", "abcd"])  # whatever the length of the header
def test_arrays_that_come_back_are_the_records_own_bytes_and_can_be_used_as_they_lie(example_id: str) -> None:
    for count in (1, 2, 3):
        record = encode_example(example_of(example_id, points=count))
        example = decode_example(record)
        points = example.points
        for array in (example.embedding, points.places, points.descriptors, points.words):
            assert np.shares_memory(array, np.frombuffer(record, np.uint8))
            assert array.flags.aligned


def test_vectors_that_come_back_cannot_be_changed() -> None:
    state = decode_class(encode_class(class_of("acme", (3, 4))))
    with pytest.raises(ValueError, match="read-only"):
        state.examples[0].embedding[0] = 1


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_noticed_wherever_it_is(bit: int) -> None:
    for record in (RECORD, REGIONS):
        for position in range(len(record)):
            damaged = bytearray(record)
            damaged[position] ^= 1 << bit
            with pytest.raises((StoreUnavailable, IncompatibleStore)):
                decode_change(bytes(damaged))


def test_a_record_cut_short_is_noticed_wherever_it_ends() -> None:
    for length in range(len(RECORD)):
        with pytest.raises(StoreUnavailable):
            decode_change(RECORD[:length])


def test_a_record_of_a_newer_format_is_refused_by_its_number() -> None:
    newer = struct.pack("<I", 5) + RECORD[4:]
    with pytest.raises(IncompatibleStore, match="format 5"):
        decode_change(newer)


def test_a_class_of_format_1_is_read_as_one_without_points() -> None:
    fields = {"class": "acme", "version": 7, "user_threshold": None, "metadata": {"shop": 3}}
    state = decode_class(record_of_format_1(fields | {"examples": [EXAMPLE_1], "model": MODEL_1}))
    assert plain(state) == plain(ClassState("acme", 7, (EXAMPLE_OF_1,), MODEL_OF_1, None, {"shop": 3}))


def test_a_change_of_format_1_is_read_as_one_without_points() -> None:
    change = decode_change(
        record_of_format_1({"class": "acme", "kind": "examples_added", "examples": [EXAMPLE_1], "model": MODEL_1})
    )
    assert plain(change) == plain(ExamplesAdded("acme", (EXAMPLE_OF_1,), MODEL_OF_1))


def test_what_was_read_in_format_1_is_written_in_format_2() -> None:
    fields = {"class": "acme", "version": 7, "user_threshold": None, "metadata": {}, "examples": [EXAMPLE_1], "model": MODEL_1}
    state = decode_class(record_of_format_1(fields))
    again = encode_class(state)
    assert struct.unpack_from("<I", again) == (2,)
    assert plain(decode_class(again)) == plain(state)


def format_of(record: bytes) -> int:
    return struct.unpack_from("<I", record)[0]


def test_what_a_detector_made_can_be_read_with_json_and_struct_alone() -> None:
    regions = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float16)
    example = Example("e0", Box(0, 0, 9, 9), unit((3, 4)), 0.125, regions=regions)
    record = encode_class(ClassState("acme", 1, (example,), model_of((3, 4), regions=regions[:1])))
    (header_size,) = struct.unpack_from("<I", record, 8)
    header = json.loads(record[12 : 12 + header_size])
    assert format_of(record) == 4
    assert header["examples"][0]["regions"] == {"at": 2, "shape": [3, 2]}  # after two floats; there are no points
    assert (header["model"]["detector"], header["model"]["regions"]) == (DETECTOR, {"at": 7, "shape": [1, 2]})
    arrays = struct.pack("<2f6e2f2e", 0.6, 0.8, 1, 0, 0.6, 0.8, 0, 1, 0.6, 0.8, 1, 0)
    assert record[12 + header_size :] == arrays


def test_what_no_detector_has_seen_is_written_as_before_so_that_older_versions_can_read_it() -> None:
    state = class_of("acme", (3, 4))
    assert (format_of(encode_class(state)), format_of(encode_example(state.examples[0])), format_of(RECORD)) == (2, 2, 2)
    assert "regions" not in encode_class(state).decode(errors="ignore")
    assert "detector" not in encode_class(state).decode(errors="ignore")


def test_a_class_whose_crops_no_detector_could_see_says_so() -> None:
    model = model_of((1, 0), regions=no_regions())
    record = encode_class(ClassState("acme", 1, (example_of("e0"),), model))
    assert format_of(record) == 4
    assert plain(decode_class(record).model) == plain(model)


def test_regions_that_come_back_are_the_records_own_bytes() -> None:
    record = encode_example(example_of("e0", points=3, regions=3))
    regions = decode_example(record).regions
    assert np.shares_memory(regions, np.frombuffer(record, np.uint8))
    assert regions.flags.aligned

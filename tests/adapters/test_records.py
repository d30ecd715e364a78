from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.records import decode_change, decode_class, encode_change, encode_class
from app.domain.changes import ClassConfigured
from app.domain.gallery import Gallery
from app.domain.values import ClassState
from app.errors import IncompatibleStore, StoreUnavailable
from tests.histories import Expecting, committed, histories
from tests.values import NETWORKS, added, class_of, example_of, plain

RECORD = encode_change(added("acme", (3, 4), (1, 0)))


@given(histories())
def test_every_kind_of_change_comes_back_as_it_was(history: list[Expecting]) -> None:
    for each in history:
        assert plain(decode_change(encode_change(each.change))) == plain(each.change)


@given(histories())
def test_every_class_comes_back_as_it_was(history: list[Expecting]) -> None:
    for state in Gallery.empty(NETWORKS).fold(*committed(history)).snapshot().classes:
        assert plain(decode_class(encode_class(state))) == plain(state)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()), max_size=4))
def test_any_metadata_comes_back_as_it_was(metadata: dict[str, object]) -> None:
    change = ClassConfigured("acme", None, metadata)
    assert decode_change(encode_change(change)) == change


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_comes_back_bit_by_bit(number: float) -> None:
    state = ClassState("acme", 1, user_threshold=number)
    assert struct.pack("<d", decode_class(encode_class(state)).user_threshold) == struct.pack("<d", number)


def test_a_record_can_be_read_with_json_and_struct_alone() -> None:
    record = encode_class(ClassState("acme", 1, (example_of("e0", (3, 4)),)))
    written_format, _, header_size = struct.unpack_from("<III", record)
    header = json.loads(record[12 : 12 + header_size])
    assert (written_format, header["class"], header["examples"][0]["id"]) == (1, "acme", "e0")
    # (3, 4) at unit length, rounded to float32 as `struct` rounds.
    assert record[12 + header_size :] == struct.pack("<2f", 0.6, 0.8)


def test_the_same_value_gives_the_same_bytes() -> None:
    assert encode_class(class_of("acme", (3, 4))) == encode_class(class_of("acme", (3, 4)))


def test_vectors_that_come_back_cannot_be_changed() -> None:
    state = decode_class(encode_class(class_of("acme", (3, 4))))
    with pytest.raises(ValueError, match="read-only"):
        state.examples[0].embedding[0] = 1


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_noticed_wherever_it_is(bit: int) -> None:
    for position in range(len(RECORD)):
        damaged = bytearray(RECORD)
        damaged[position] ^= 1 << bit
        with pytest.raises((StoreUnavailable, IncompatibleStore)):
            decode_change(bytes(damaged))


def test_a_record_cut_short_is_noticed_wherever_it_ends() -> None:
    for length in range(len(RECORD)):
        with pytest.raises(StoreUnavailable):
            decode_change(RECORD[:length])


def test_a_record_of_a_newer_format_is_refused_by_its_number() -> None:
    newer = struct.pack("<I", 2) + RECORD[4:]
    with pytest.raises(IncompatibleStore, match="format 2"):
        decode_change(newer)

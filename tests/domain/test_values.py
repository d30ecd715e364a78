from __future__ import annotations

import unicodedata

import pytest

from app.domain.values import MAX_NAME_CHARS, class_name_of
from app.errors import InvalidInput

ALPHA_WITH_THREE_MARKS = "\u1f82"  # no code point is written in more, when decomposed


def test_the_longest_name_is_taken_decomposed_too() -> None:
    name = ALPHA_WITH_THREE_MARKS * MAX_NAME_CHARS
    decomposed = unicodedata.normalize("NFD", name)

    assert len(decomposed) == 4 * MAX_NAME_CHARS
    assert class_name_of(decomposed) == name


def test_what_no_composing_makes_short_enough_is_counted_as_it_came() -> None:
    with pytest.raises(InvalidInput, match="this one has 801") as refusal:  # composed, it would have 800
        class_name_of("e" + "\u0301" * 800, field_name="classes")

    assert (refusal.value.field, refusal.value.limit) == ("classes", MAX_NAME_CHARS)

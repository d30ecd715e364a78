from __future__ import annotations

import hashlib
import struct
import unicodedata
from dataclasses import replace

import numpy as np
import pytest

from app.domain.values import MAX_NAME_CHARS, POINT_BYTES, Points, class_name_of
from app.errors import InvalidInput
from tests.values import NETWORKS, model_of, random_points

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


def test_points_are_counted_and_have_a_fixed_size() -> None:
    points = random_points(3)
    assert len(points) == 3
    assert points.places.nbytes + points.descriptors.nbytes + points.words.nbytes == 3 * POINT_BYTES


def test_no_points_are_points_too() -> None:
    assert len(Points.none()) == 0


@pytest.mark.parametrize(
    ("wrong", "array"),
    [
        ("places", np.zeros((3, 3), np.uint16)),
        ("places", np.zeros((2, 4), np.uint16)),
        ("places", np.zeros((3, 4), np.float32)),
        ("descriptors", np.zeros((3, 64), np.uint8)),
        ("descriptors", np.zeros((4, 128), np.uint8)),
        ("descriptors", np.zeros((3, 128), np.float32)),
        ("words", np.zeros((3, 1), np.uint16)),
        ("words", np.zeros(3, np.int64)),
    ],
)
def test_points_whose_arrays_do_not_fit_are_refused_by_name(wrong: str, array: np.ndarray) -> None:
    points = random_points(3)
    arrays = {"places": points.places, "descriptors": points.descriptors, "words": points.words}
    with pytest.raises(ValueError, match=wrong):
        Points(**(arrays | {wrong: array}))


def test_class_models_have_one_digest_when_every_byte_is_the_same_and_else_another() -> None:
    model = model_of((1, 0), (0, 1))
    nudged = np.nextafter(model.representatives, 2, dtype=np.float32)  # by the last bit of each number
    others = [
        replace(model, representatives=nudged),
        replace(model, representatives=model.representatives[::-1].copy()),
        replace(model, spread=np.nextafter(model.spread, 1)),
        replace(model, threshold=np.nextafter(model.threshold, 1)),
        replace(model, provenance=replace(model.provenance, calibration="another")),
    ]
    assert model_of((1, 0), (0, 1)).digest == model.digest
    assert len({model.digest, *(other.digest for other in others)}) == 6


def test_the_digest_of_a_class_model_without_a_detector_is_what_it_was_before_there_were_any() -> None:
    model = model_of((1, 0))
    numbers = struct.pack("<2d", model.spread, model.threshold)
    made_by = "\0".join((NETWORKS, "calibration", "points")).encode()
    assert model.digest == hashlib.sha256(model.representatives.tobytes() + numbers + made_by).hexdigest()


def test_the_digest_of_a_class_model_is_of_what_a_detector_knows_too() -> None:
    unseen = np.empty((0, 0), np.float16)
    models = model_of((1, 0)), *(model_of((1, 0), regions=regions) for regions in (unseen, EYE[:1], EYE[1:]))
    assert len({model.digest for model in models}) == 4


EYE = np.eye(2, dtype=np.float16)

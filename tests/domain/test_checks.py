"""Measures against hand calculations, and each warning just above and just below its limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.domain.checks import WarningLimits, disagreement, picture_warnings, sharpness, support_warnings
from app.domain.values import Box, ExampleWarning, FloatArray, Picture, PixelArray, WarningCode
from tests.values import example_of, unit

LIMITS = WarningLimits(
    too_small_px=24,
    blurred=0.05,
    several_things=0.5,
    near_duplicate=0.95,
    unlike_class=0.3,
    closer_to_other=0.7,
    few_points=4,
    same_print=0.5,
)
ONE_THING = np.ones((4, 4, 8), np.float32)


def noise(height: int = 100, width: int = 100) -> PixelArray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int = 100, width: int = 100) -> PixelArray:
    """A slope from black to white: its second derivative is 0 but for rounding."""
    return np.linspace(0, 255, width).astype(np.uint8)[None, :, None].repeat(height, axis=0).repeat(3, axis=2)


def picture_of(pixels: PixelArray, box: Box | None = None) -> Picture:
    height, width = pixels.shape[:2]
    return Picture(pixels, box or Box(0, 0, width, height), width, height)


def codes(warnings: tuple[ExampleWarning, ...]) -> list[WarningCode]:
    return [warning.code for warning in warnings]


def embedding(similarity: float) -> FloatArray:
    """A unit vector with this similarity to (1, 0)."""
    return np.array([similarity, np.sqrt(1 - similarity**2)], np.float32)


def test_the_sharpness_of_white_noise_is_twenty() -> None:
    # Independent pixels: the variances of 4 neighbours and of 4 times the middle add up to 4 + 16 of one pixel's.
    assert sharpness(noise()) == pytest.approx(20, rel=0.05)


def test_the_sharpness_of_a_wave_is_its_squared_gain() -> None:
    # The Laplacian of cos(wx) is -2(1 - cos w)cos(wx): for 8 pixels a period, 4 * (1 - cos 45 degrees)**2 = 0.343.
    wave = 128 + 100 * np.cos(2 * np.pi * np.arange(64) / 8)
    pixels = wave.round().astype(np.uint8)[None, :, None].repeat(64, axis=0).repeat(3, axis=2)

    assert sharpness(pixels) == pytest.approx(0.343, abs=0.03)


def test_sharpness_does_not_depend_on_contrast_or_brightness() -> None:
    pale = (noise() // 8 + 200).astype(np.uint8)

    assert sharpness(pale) == pytest.approx(sharpness(noise()), rel=0.05)


def test_sharpness_does_not_depend_on_the_size_of_the_photograph() -> None:
    small = np.kron(noise(32, 32), np.ones((4, 4, 1), np.uint8))
    large = np.kron(noise(32, 32), np.ones((12, 12, 1), np.uint8))

    assert sharpness(large) == pytest.approx(sharpness(small), rel=1e-6)


def test_a_blank_a_tiny_and_a_very_thin_picture_have_no_sharpness() -> None:
    assert sharpness(np.full((50, 50, 3), 77, np.uint8)) == 0
    assert sharpness(noise(2, 2)) == 0
    assert sharpness(noise(8, 4000)) == 0


def test_quarters_that_point_the_same_way_agree_whatever_their_length() -> None:
    dense = ONE_THING * np.arange(1, 17, dtype=np.float32).reshape(4, 4, 1)

    assert disagreement(dense) == pytest.approx(0, abs=1e-9)


def test_two_halves_with_nothing_in_common_disagree_in_four_pairs_of_six() -> None:
    dense = np.zeros((4, 4, 2), np.float32)
    dense[:, :2, 0] = dense[:, 2:, 1] = 3

    assert disagreement(dense) == pytest.approx(4 / 6)


def test_what_differs_only_inside_of_the_quarters_does_not_disagree() -> None:
    checkers = np.eye(2, dtype=np.float32)[np.indices((4, 4)).sum(axis=0) % 2]  # (4, 4, 2)

    assert disagreement(checkers) == pytest.approx(0, abs=1e-9)


def test_an_empty_map_agrees() -> None:
    assert disagreement(np.zeros((4, 4, 8), np.float32)) == 0


def test_a_good_picture_gives_no_warning() -> None:
    assert picture_warnings(picture_of(noise()), ONE_THING, LIMITS) == ()


def test_too_small_is_about_the_box_and_its_shorter_side() -> None:
    narrow = picture_of(noise(), Box(0, 0, 400, 23))

    (warning,) = picture_warnings(narrow, ONE_THING, LIMITS)

    assert (warning.code, warning.value, warning.limit) == (WarningCode.TOO_SMALL, 23, 24)
    assert picture_warnings(replace(narrow, box=Box(0, 0, 400, 24)), ONE_THING, LIMITS) == ()


def test_a_smooth_picture_is_warned_about_as_blurred() -> None:
    (warning,) = picture_warnings(picture_of(smooth()), ONE_THING, LIMITS)

    assert warning.code == WarningCode.BLURRED
    assert warning.value < warning.limit == LIMITS.blurred


def test_a_map_that_disagrees_is_warned_about_as_several_things() -> None:
    apart = np.eye(4, dtype=np.float32).reshape(2, 2, 4)

    (warning,) = picture_warnings(picture_of(noise()), apart, LIMITS)

    assert (warning.code, warning.value, warning.limit) == (WarningCode.SEVERAL_THINGS, 1.0, 0.5)


def test_every_fault_of_a_picture_is_told() -> None:
    faulty = picture_of(smooth(10, 10))
    apart = np.eye(16, dtype=np.float32).reshape(4, 4, 16)

    assert codes(picture_warnings(faulty, apart, LIMITS)) == [
        WarningCode.TOO_SMALL,
        WarningCode.BLURRED,
        WarningCode.SEVERAL_THINGS,
    ]


def test_the_first_example_of_the_first_class_gives_no_warning() -> None:
    assert support_warnings(embedding(1), [], None, LIMITS) == ()


def test_a_near_duplicate_is_named() -> None:
    others = [example_of("far", embedding(0.5)), example_of("near", embedding(1))]

    (warning,) = support_warnings(embedding(0.96), others, None, LIMITS)

    assert (warning.code, warning.example_id, warning.limit) == (WarningCode.NEAR_DUPLICATE, "near", 0.95)
    assert warning.value == pytest.approx(0.96, abs=1e-4)


def test_an_example_unlike_all_others_is_warned_about_and_one_unlike_some_is_not() -> None:
    others = [example_of("a", (1, 0, 0)), example_of("b", (0, 1, 0))]

    (warning,) = support_warnings(unit((0.1, 0.1, 1)), others, None, LIMITS)

    assert warning.code == WarningCode.UNLIKE_CLASS
    assert warning.value == pytest.approx(0.099, abs=1e-3)  # 0.1 / sqrt(1.02)
    assert support_warnings(unit((0.1, 1, 1)), others, None, LIMITS) == ()


def test_an_example_closer_to_another_class_names_that_class() -> None:
    own = [example_of("a", embedding(0.5))]

    (warning,) = support_warnings(embedding(1), own, ("rival", 0.8), LIMITS)

    assert (warning.code, warning.class_name) == (WarningCode.CLOSER_TO_OTHER, "rival")
    assert (warning.value, warning.limit) == (0.8, 0.7)


def test_another_class_may_be_near_if_the_own_is_nearer() -> None:
    own = [example_of("a", embedding(0.9))]

    assert support_warnings(embedding(1), own, ("rival", 0.8), LIMITS) == ()


def test_a_first_example_is_warned_about_when_it_looks_like_another_class() -> None:
    assert codes(support_warnings(embedding(1), [], ("rival", 0.75), LIMITS)) == [WarningCode.CLOSER_TO_OTHER]
    assert support_warnings(embedding(1), [], ("rival", 0.65), LIMITS) == ()

from __future__ import annotations

import pytest

from app.domain.boxes import check_box
from app.domain.values import Box
from app.errors import InvalidInput


@pytest.mark.parametrize("box", [Box(0, 0, 100, 50), Box(0, 0, 8, 8), Box(92, 42, 8, 8)])
def test_a_box_inside_of_the_picture_is_good(box: Box) -> None:
    assert check_box(box, 100, 50, field="box") == box


@pytest.mark.parametrize(
    "box", [Box(-1, 0, 20, 20), Box(0, -1, 20, 20), Box(81, 0, 20, 20), Box(0, 31, 20, 20), Box(0, 0, 101, 50)]
)
def test_a_box_that_reaches_outside_is_refused_with_the_size_of_the_picture(box: Box) -> None:
    with pytest.raises(InvalidInput, match="outside") as refusal:
        check_box(box, 100, 50, field="images[2].box")

    assert (refusal.value.field, refusal.value.limit) == ("images[2].box", "100x50")


@pytest.mark.parametrize("box", [Box(0, 0, 7, 8), Box(0, 0, 8, 7), Box(0, 0, 0, 20), Box(10, 10, -20, 20)])
def test_a_box_without_area_to_speak_of_is_refused_with_the_least_side(box: Box) -> None:
    with pytest.raises(InvalidInput, match="8 pixels or more") as refusal:
        check_box(box, 100, 50, field="box")

    assert (refusal.value.field, refusal.value.limit) == ("box", 8)

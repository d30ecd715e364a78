"""Renders show the mark, and what the specification says is varied is varied."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from training import render  # noqa: E402

STILL = render.RenderSpec(
    scale=(1.0, 1.0), rotation_sd=0, shear_sd=0, perspective_sd=0, p_cylinder=0, p_invert=0, p_grey=0, p_tint=0, p_flat=0,
    light=0, contrast=(1.0, 1.0), p_resample=0, p_occluder=0, noise=0,
)  # fmt: skip
SIDE_PX = 32


def red_square(n: int = 1) -> torch.Tensor:
    """A red square with a transparent frame: RGBA (n, 4, 32, 32)."""
    marks = torch.zeros(n, 4, SIDE_PX, SIDE_PX)
    marks[:, 0, 8:24, 8:24] = 1
    marks[:, 3, 8:24, 8:24] = 1
    return marks


def test_without_any_variation_a_render_is_the_mark_on_its_ground() -> None:
    ground = torch.zeros(1, 3, SIDE_PX, SIDE_PX)
    ground[:, 2] = 1.0
    picture = render.render(red_square(), torch.ones(1), ground, STILL)
    assert torch.allclose(picture[0, :, 16, 16], torch.tensor([1.0, 0.0, 0.0]), atol=1e-3)
    assert picture[0, 2, 2, 2] > picture[0, 0, 2, 2]  # blue, if pulled a little towards being visible


def test_the_same_seed_draws_the_same_pictures_and_another_seed_others() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return render.render(red_square(4), torch.ones(4), torch.rand(4, 3, SIDE_PX, SIDE_PX), render.HARD)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("spec", [render.HARD, render.PLAIN, render.TRAIN])
def test_renders_are_finite_pictures(spec: render.RenderSpec) -> None:
    torch.manual_seed(0)
    pictures = render.render(red_square(16), torch.full((16,), 4.0), torch.rand(16, 3, 48, 48), spec)
    assert pictures.shape == (16, 3, 48, 48)
    assert bool(torch.isfinite(pictures).all())
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1


def test_each_render_answers_to_its_own_mark() -> None:
    marks = red_square(8)
    marks[4:, 0], marks[4:, 1] = 0.0, marks[4:, 3]  # the last four are green
    torch.manual_seed(0)
    pictures = render.render(marks, torch.ones(8), torch.zeros(8, 3, SIDE_PX, SIDE_PX), STILL)
    middle = pictures[:, :2, 16, 16]
    assert bool((middle[:4, 0] > middle[:4, 1]).all())
    assert bool((middle[4:, 1] > middle[4:, 0]).all())


def test_a_nearly_white_mark_is_enrolled_on_a_dark_ground() -> None:
    white = red_square()
    white[:, :3] = white[:, 3:]
    picture = render.clean(white, SIDE_PX)
    assert float(picture[0, :, 0, 0].mean()) < 0.2
    assert float(picture[0, :, 16, 16].mean()) > 0.9


def test_views_mirror_only_what_may_be_mirrored() -> None:
    left_to_right = torch.linspace(0, 1, SIDE_PX).expand(64, 3, SIDE_PX, SIDE_PX).contiguous()
    torch.manual_seed(0)
    views = render.photograph_views(left_to_right, torch.arange(64) < 32, SIDE_PX, render.ViewSpec(p_occluder=0.0, p_grey=0.0))
    falls = views[..., -8:].mean((1, 2, 3)) < views[..., :8].mean((1, 2, 3))
    assert bool(falls[:32].any())
    assert not bool(falls[32:].any())

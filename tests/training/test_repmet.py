"""RepMet's posterior and losses against hand calculations."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from training import repmet  # noqa: E402

# Two classes of two modes on a circle: class 0 at 0 and 90 degrees, class 1 at 180 and 270.
MODES = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]])


@pytest.fixture
def head() -> repmet.Representatives:
    made = repmet.Representatives(torch.eye(2), modes=2)
    with torch.no_grad():
        made.vectors.copy_(MODES * 3)  # of any length
    return made


def distances(head: repmet.Representatives, *embedding: float) -> torch.Tensor:
    return head.squared_distances(torch.tensor([embedding]), torch.arange(2))


def test_distances_are_of_unit_vectors(head: repmet.Representatives) -> None:
    # From (1, 0): 0 to itself, 2 to what is at right angles, 4 to its opposite.
    assert torch.allclose(distances(head, 1.0, 0.0), torch.tensor([[[0.0, 2.0], [4.0, 2.0]]]), atol=1e-6)


def test_the_width_starts_at_the_paper_s(head: repmet.Representatives) -> None:
    assert head.width.item() == pytest.approx(0.5)


def test_a_class_has_the_probability_of_its_nearest_mode_and_background_what_the_best_leaves(
    head: repmet.Representatives,
) -> None:
    found = repmet.class_probabilities(distances(head, 1.0, 0.0), head.width)
    # exp(-0 / 0.5) and exp(-2 / 0.5): the nearest mode of class 1 is at 2.
    assert torch.allclose(found, torch.tensor([[1.0, math.exp(-4)]]), atol=1e-6)
    logits = repmet.posterior_logits(found)
    assert torch.allclose(logits, 15 * torch.tensor([[0.0, 1.0, math.exp(-4)]]), atol=1e-5)


def test_the_mixture_posterior_adds_up_the_modes_of_a_class(head: repmet.Representatives) -> None:
    modes = [[1.0, math.exp(-4)], [math.exp(-8), math.exp(-4)]]
    total = sum(map(sum, modes))
    expected = torch.tensor([[sum(of_class) / total for of_class in modes]])
    assert torch.allclose(repmet.mixture_posterior(distances(head, 1.0, 0.0), head.width), expected, atol=1e-6)


def test_an_empty_representative_is_no_direction(head: repmet.Representatives) -> None:
    head.is_there[0, 0] = False
    assert distances(head, 1.0, 0.0)[0, 0].tolist() == pytest.approx([repmet.FAR, 2.0])


def test_cross_entropy_by_hand() -> None:
    probabilities = torch.tensor([[0.4, 0.1]])
    weights = [math.exp(15 * p) for p in (0.6, 0.4, 0.1)]
    for target, place in ((0, 1), (-1, 0)):
        expected = -math.log(weights[place] / sum(weights))
        assert float(repmet.cross_entropy(probabilities, torch.tensor([target]))) == pytest.approx(expected, rel=1e-4)


def test_the_margin_is_between_the_nearest_modes_and_background_has_none(head: repmet.Representatives) -> None:
    there = distances(head, 1.0, 0.0)  # 0 to class 0, 2 to class 1
    assert float(repmet.margin_loss(there, torch.tensor([0]), margin=0.4)) == 0
    assert float(repmet.margin_loss(there, torch.tensor([0]), margin=2.5)) == pytest.approx(0.5)
    assert float(repmet.margin_loss(there, torch.tensor([1]), margin=0.4)) == pytest.approx(2.4)
    assert float(repmet.margin_loss(there, torch.tensor([-1]), margin=0.4)) == 0


def test_the_classes_of_a_batch_are_always_among_those_compared() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([7, -1, 90, 7])
    competing, target = repmet.competing_classes(labels, 100, 10)
    assert competing.tolist() == sorted(set(competing.tolist()))
    assert [int(competing[t]) if t >= 0 else -1 for t in target.tolist()] == labels.tolist()
    assert 2 <= len(competing) <= 12

"""Muon turns kernels by the same in every direction, keeps their length, and goes on from a checkpoint as if never stopped."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from torch import nn  # noqa: E402

from training import run  # noqa: E402
from training.optimizer import Muon, kernels_and_others, optimizer_of, orthogonal  # noqa: E402


@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (32, 2, 1, 1)])
def test_directions_large_and_small_come_out_alike(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape).flatten(1)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    uneven = left @ torch.diag(torch.logspace(0, -0.7, left.shape[1])) @ right
    found = orthogonal(uneven.reshape(shape))
    assert found.shape == shape
    values = torch.linalg.svdvals(found.flatten(1))
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert torch.linalg.svdvals(left.T @ found.flatten(1) @ right.T).sum() == pytest.approx(
        float(torch.diagonal(left.T @ found.flatten(1) @ right.T).sum()), rel=1e-3
    )  # turned nowhere


def test_what_is_left_of_a_dead_channels_momentum_is_nothing() -> None:
    torch.manual_seed(0)
    kernel = torch.randn(6, 4, 3, 3)
    kernel[2] *= 1e-38
    found = orthogonal(kernel)
    assert not found[2].any()
    assert found[[0, 1, 3, 4, 5]].flatten(1).norm(dim=1).min() > 0.5


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(128, 2),
    )  # fmt: skip


def muon_of(learner: nn.Module) -> torch.optim.AdamW:
    optimizer = optimizer_of(learner, rate=1e-2, kernel_rate=0.2, weight_decay=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    return optimizer


def learn(learner: nn.Module, optimizer: torch.optim.AdamW, steps: range) -> float:
    for step in steps:
        torch.manual_seed(step)
        labels = torch.arange(16) % 2
        pictures = torch.randn(16, 3, 8, 8) + labels.view(-1, 1, 1, 1)
        loss = nn.functional.cross_entropy(learner(pictures), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def test_kernels_before_norms_are_muons_and_all_else_is_adams() -> None:
    learner = network()
    kernels, matrices, others = kernels_and_others(learner, rate=1e-2, kernel_rate=0.2, weight_decay=0.1)
    assert [p.shape for p in kernels["params"]] == [(8, 8, 3, 3)]
    assert [p.shape for p in matrices["params"]] == [(8, 3, 3, 3), (8, 8, 1, 1), (2, 128)]
    assert kernels["times"] == pytest.approx(20)
    assert sum(len(group["params"]) for group in (kernels, matrices, others)) == len(list(learner.parameters()))


def test_without_a_rate_of_their_own_kernels_are_adams_too() -> None:
    assert isinstance(muon_of(network()), Muon)
    plain = optimizer_of(network(), rate=1e-2, kernel_rate=0.0, weight_decay=0.1)
    assert not isinstance(plain, Muon)
    assert [group["weight_decay"] for group in plain.param_groups] == [0.1, 0.0]


def test_a_kernel_is_turned_and_keeps_its_length() -> None:
    learner = network()
    before = learner[3].weight.detach().clone()
    learn(learner, muon_of(learner), range(1))
    after = learner[3].weight.detach()
    assert after.norm() == pytest.approx(before.norm().item())
    turned = torch.rad2deg(torch.acos((before * after).sum() / (before.norm() * after.norm()))).item()
    assert 5 < turned < 15  # a fifth of its length, at a right angle or so, is 11 degrees


def test_it_learns() -> None:
    learner = network()
    optimizer = muon_of(learner)
    assert learn(learner, optimizer, range(1)) > 0.5
    assert learn(learner, optimizer, range(1, 30)) < 0.3


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one() -> None:
    whole, first, second = network(), network(), network()
    learn(whole, muon_of(whole), range(6))
    optimizer = muon_of(first)
    learn(first, optimizer, range(3))
    second.load_state_dict(first.state_dict())
    resumed = muon_of(second)
    run.unpack_optimizer(resumed, run.pack_optimizer(optimizer))
    learn(second, resumed, range(3, 6))
    for ours, theirs in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)

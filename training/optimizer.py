"""AdamW, and Muon for kernels: steps of equal length in every direction that a layer's kernels have (Jordan et al. 2024).

The momentum of a kernel, as a matrix of outputs by inputs, is replaced by the nearest matrix with orthonormal rows, so that
directions with small gradients are learnt as fast as those with large ones. The benchmark's network came in 3,100 steps to where
AdamW had brought it in 5,000 (docs/experiments.md). `torch.optim.Muon` takes matrices only, and computes in bfloat16, which many
CPUs have no instructions for.

As in Jordan's CIFAR-10 runs a kernel keeps its length, which the norm after it takes away again: the rate alone says how far a
step turns it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # of a singular value: steep at nought, between 0.7 and 1.2 after a few rounds
ROUNDS = 3
BETAS = (0.9, 0.98)
NEGLIGIBLE = 1e-8  # of a matrix of length one


def orthogonal(kernel: Tensor) -> Tensor:
    """What `kernel` (outputs, inputs, …) is as a matrix of outputs by all else, with singular values drawn to one; of its shape.

    Newton and Schulz's iteration on the smaller of both squares, so that a round costs that side's cube: the large product is
    computed twice in all.
    """
    matrix = kernel.flatten(1)
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    # What a dead channel's momentum decays to, and its products, are no normal numbers: those cost a CPU a hundred times more.
    wide = wide.masked_fill(wide.abs() < NEGLIGIBLE, 0)
    square = wide @ wide.T  # (s, s)
    found = one = torch.eye(len(square), device=square.device)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        turn = a * one + b * square + c * (square @ square)
        found, square = turn @ found, turn @ square @ turn
    wide = found @ wide
    return (wide if wide.shape == matrix.shape else wide.T).reshape(kernel.shape)


def optimizer_of(learner: nn.Module, *, rate: float, kernel_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Muon for kernels, with `kernel_rate` where all else has `rate`; AdamW for them too where it is 0."""
    if kernel_rate:
        return Muon(kernels_and_others(learner, rate=rate, kernel_rate=kernel_rate, weight_decay=weight_decay))
    return torch.optim.AdamW(parameter_groups(learner, weight_decay), betas=BETAS)


def parameter_groups(learner: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay on matrices and kernels only: not on norms, biases, pooling power or palette."""
    decayed = [p for name, p in learner.named_parameters() if p.ndim > 1 and "palette" not in name]
    others = [p for name, p in learner.named_parameters() if p.ndim <= 1 or "palette" in name]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def kernels_and_others(learner: nn.Module, *, rate: float, kernel_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for `Muon`: kernels of convolutions without a bias, after which comes a norm, but for those that see colours;
    other matrices, with decay; all else, without."""
    convolutions = [module for module in learner.modules() if isinstance(module, nn.Conv2d)]
    kernels = [one.weight for one in convolutions if one.bias is None and one.in_channels > 3]
    taken = {id(kernel) for kernel in kernels}
    decayed, others = parameter_groups(learner, weight_decay)
    decayed["params"] = [p for p in decayed["params"] if id(p) not in taken]
    return [{"params": kernels, "times": kernel_rate / rate}, decayed, others]


class Muon(torch.optim.AdamW):
    """Muon for groups with `times`, the multiple of the rate that kernels are turned by; AdamW for the others."""

    def __init__(self, groups: list[dict[str, Any]], *, momentum: float = 0.9) -> None:
        super().__init__(groups, betas=BETAS)
        self.momentum = momentum

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if "times" not in group:
                continue
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if "kernel_momentum" not in state:
                    # Adam, reading a checkpoint, asks every parameter for its step.
                    state.update(step=torch.zeros(()), kernel_momentum=torch.zeros_like(kernel))
                average = state["kernel_momentum"].mul_(self.momentum).add_(kernel.grad)
                ahead = kernel.grad.add(average, alpha=self.momentum)  # Nesterov's
                length = kernel.norm()
                kernel.sub_(orthogonal(ahead) * (group["lr"] * group["times"] * length / len(kernel) ** 0.5))
                kernel.mul_(length / kernel.norm())
                kernel.grad = None  # so that AdamW passes it by
        super().step()

"""One network trained by several processes, which `torchrun` starts: each has a part of every batch. Alone, a process is all.

    torchrun --nproc-per-node 2 -m -- training embedding --data DIR

Gradients are averaged, so that all ranks take the same step; the first one writes. Only torchrun's environment is read.
"""

from __future__ import annotations

import atexit
import os

import torch
from torch import distributed, nn


def rank() -> int:
    """0 is the first, and the only one without torchrun."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_share(batch: int) -> int:
    """Pictures of a batch that are this rank's. SystemExit where ranks cannot have as many, in pairs of one class."""
    if count() > 1 and batch % (2 * count()):
        raise SystemExit(f"--batch {batch}: shared by {count()} ranks, in pairs, it has to be a multiple of {2 * count()}")
    return batch // count()


def join() -> None:
    """All ranks can reach each other, until the process ends: tensors of a GPU by nccl, all others by gloo."""
    if count() > 1 and not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)


@torch.no_grad()
def average_gradients(learner: nn.Module) -> None:
    """Each gradient becomes its mean over the ranks, in one exchange."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    for gradient, part in zip(gradients, flat.div_(count()).split([one.numel() for one in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def first_ones(value: object) -> object:
    """What the first rank gives, on every rank."""
    if count() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def agree(spent_s: float, stop: bool) -> tuple[float, bool]:
    """The first rank's clock, and whether any rank was told to stop: else one would wait for another that is gone."""
    if count() == 1:
        return spent_s, stop
    said = torch.tensor([spent_s if rank() == 0 else 0.0, float(stop)], dtype=torch.float64)  # on the CPU: waits for no GPU
    distributed.all_reduce(said, distributed.ReduceOp.MAX)
    return float(said[0]), bool(said[1])

"""What `test_ranks.py` has torchrun start twice: three short runs of the loop, and what each rank ends with, in a folder."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training import loop, ranks

PICTURES = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Config:
    run: Path
    steps: int = 3
    minutes: float = 0.0
    ema: float = 0.9
    checkpoint_s: float = 600.0
    precision: str = "fp32"
    seed: int = 0
    smoke: bool = True


def learner() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def train(config: Config, network: nn.Linear, *, stop_at: int = 0) -> Tensor:
    """Steps on the rank's own share of PICTURES, SIGTERM in one of them -> what was drawn at random in the last."""
    steps, drawn = 0, torch.zeros(())

    def losses(_progress: float, _precision: str) -> dict[str, Tensor]:
        nonlocal steps, drawn
        steps, drawn = steps + 1, torch.rand(())
        if stop_at and steps == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        share = ranks.own_share(len(PICTURES))
        own = PICTURES[ranks.rank() * share :][:share]
        return {"square": network(own).square().mean(), "drawn": drawn}

    loop.fit(
        config, torch.device("cpu"), network, network, torch.optim.AdamW(network.parameters()),
        losses=losses, rate_at=lambda _: 0.1, scores=lambda _: {},
    )  # fmt: skip
    return drawn


def main(folder: Path) -> None:
    rank = ranks.rank()
    same, told, timed = (learner() for _ in range(3))
    drawn = train(Config(folder / "same"), same)
    try:
        train(Config(folder / "told", steps=100), told, stop_at=4 * rank)
        ended = 0
    except SystemExit as error:
        ended = int(str(error.code))
    if rank == 1:  # its own clock would have it end long before the other
        real = time.monotonic
        loop.time.monotonic = lambda: 1e4 * real()  # type: ignore[attr-defined]
    train(Config(folder / "timed", steps=0, minutes=0.002), timed)
    tensors = {name: one.weight.detach().clone() for name, one in (("same", same), ("told", told), ("timed", timed))}
    save_file(tensors | {"ended": torch.tensor(ended), "drawn": drawn}, folder / f"rank{rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What `test_ranks.py` has torchrun start twice: a short run of the detector, and what each rank ends with, in a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from training import detector, loop, ranks, scenes
from training.loop import Losses

EMBEDDING = Path(__file__).parents[2] / "models" / "embedding.safetensors"
STEPS = 2


def config_in(folder: Path) -> detector.Config:
    return detector.Config(
        data=folder / "packs", run=folder / "run", cache=folder / "cache", embedding=EMBEDDING,
        smoke=True, steps=STEPS, batch=8, side_px=64, dim=16, precision="fp32", device="cpu",
    )  # fmt: skip


def main(folder: Path) -> None:
    kept: dict[str, Tensor] = {}
    fit = loop.fit

    def fit_and_keep(config: Any, device: Any, learner: nn.Module, *others: Any, losses: Losses, **named: Any) -> None:
        steps: list[Tensor] = []

        def heard(progress: float, precision: str) -> dict[str, Tensor]:
            terms = losses(progress, precision)
            steps.append(torch.stack(list(terms.values())).detach())
            return terms

        fit(config, device, learner, *others, losses=heard, **named)
        # Not the buffers: statistics of batch norms are each rank's own, and the first one's are kept.
        kept.update({name: one.detach().clone().contiguous() for name, one in learner.named_parameters()})
        kept["terms"] = torch.stack(steps)

    loop.fit = fit_and_keep
    scenes.held_out = lambda name: name.startswith("toplogo10-dev/")  # of the drawn packs something has to be left to learn from
    detector.train(config_in(folder))
    save_file(kept, folder / f"rank{ranks.rank()}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

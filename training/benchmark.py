"""What is kept of the standard benchmark: the network that `mini_imagenet.py` trained, and a delta-encoder beside it.

    python -m training mini-imagenet --data DIR --run runs/mini-imagenet
    python -m training features --data DIR --model runs/mini-imagenet/checkpoint.safetensors --out runs/features/benchmark.npz
    python -m training benchmark

Writes into `models/benchmarks/mini-imagenet`, in half precision: `backbone.safetensors`, with the mean of the base pictures'
features as its `centre` (SimpleShot's CL2N), and `delta-encoder.safetensors`, trained as `synthesizer.py` trains what ships, on
the base classes' centred features. `evaluate classify --model` takes the folder, and scores the plain mean of supports and, as
its own rule, supports that the delta-encoder has moved. Nothing here has seen a picture but those of the 64 base classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.domain.values import FloatArray
from training import delta_encoder, features, mini_imagenet, run, synthesizer
from training.backbone import averaged_weights
from training.delta_encoder import DeltaEncoder
from training.synthesizer import Synthesis

BACKBONE_FILE, DELTA_FILE = "backbone.safetensors", "delta-encoder.safetensors"


@dataclass(frozen=True)
class Config:
    run: Path = field(default=Path("runs/mini-imagenet"), metadata={"help": "run folder of the network"})
    features: Path = field(default=Path("runs/features/benchmark.npz"), metadata={"help": "its features of base pictures"})
    out: Path = field(default=Path("models/benchmarks/mini-imagenet"), metadata={"help": "folder to write to"})
    real_share: float = field(default=0.7, metadata={"help": "weight of the real pictures beside what is made of them"})
    steps: int = field(default=synthesizer.Config.steps, metadata={"help": "of the delta-encoder"})
    episodes: int = field(default=synthesizer.Config.episodes, metadata={"help": "of its second stage"})
    seed: int = 0


def keep(config: Config) -> None:
    """SystemExit where the features are not of this network."""
    weights, base = averaged_weights(config.run), features.read(config.features)
    size = mini_imagenet.network_of(weights).features
    if base.features.shape[1] != size:
        raise SystemExit(
            f"--features {config.features}: {base.features.shape[1]} numbers a picture; the run's network gives {size}"
        )
    centre = base.features.mean(0)
    config.out.mkdir(parents=True, exist_ok=True)
    side_px = json.loads((config.run / "config.json").read_text())["sides_px"].split(",")[-1]  # that the run ended with
    save_file(weights | {"centre": torch.from_numpy(centre)}, config.out / BACKBONE_FILE, {"side_px": side_px})
    wanted = synthesizer.Config(steps=config.steps, episodes=config.episodes, seed=config.seed)
    network, codes = synthesizer.train(wanted, [replace(base, features=base.features - centre)])
    kept = {name: value.half().contiguous() for name, value in network.state_dict().items()} | {"bank": codes.half()}
    save_file(kept, config.out / DELTA_FILE, {"real_share": str(config.real_share)})


def read_delta_encoder(path: Path) -> Synthesis:
    """What supports are moved with. ValueError for another file."""
    tensors: dict[str, Tensor] = {name: tensor.float() for name, tensor in load_file(path).items()}
    try:
        bank, hidden = tensors.pop("bank"), len(tensors["encoder.0.bias"])
        size = len(tensors["decoder.3.bias"])
        network = DeltaEncoder(size, hidden=hidden, code=bank.shape[1], dropout=0.0, residual=True)
        network.load_state_dict(tensors)
        real_share = float(run.read_metadata(path)["real_share"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path.name} does not hold a delta-encoder of training.benchmark") from error

    def synthesize(support: FloatArray, seed: int) -> FloatArray:
        codes = bank[np.random.default_rng(seed).permutation(len(bank))[: synthesizer.MADE]]
        return delta_encoder.synthesise(network.eval(), torch.from_numpy(support), codes).numpy()

    return Synthesis(synthesize, real_share)


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Keep the benchmark's network and teach a delta-encoder on it.")
    keep(config)
    for path in sorted(config.out.iterdir()):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")

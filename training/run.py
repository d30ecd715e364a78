"""What every training loop needs and no paper is about: flags from a Config, precision, run folder, checkpoint, log line.

A run is a folder: `config.json`, `log.jsonl` (one line a logged step), `checkpoint.safetensors` + `checkpoint.json` (step and
random state), and whatever the stage leaves. Running the same command again goes on from the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Config = TypeVar("Config")


def config_from_flags(config_type: type[Config], arguments: list[str], *, description: str) -> Config:
    """A frozen dataclass filled from `--field-name value` flags; a field without a default must be given, `X | None` reads an X.

    Unknown names, missing ones and wrong types stop with a message.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    hints = get_type_hints(config_type)
    for field in fields(config_type):  # type: ignore[arg-type]
        kind, flag = next(iter(get_args(hints[field.name])), hints[field.name]), "--" + field.name.replace("_", "-")
        help_text = str(field.metadata.get("help", " "))
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default, help=help_text)
        elif field.default is MISSING:
            parser.add_argument(flag, type=kind, required=True, help=help_text, default=argparse.SUPPRESS)
        else:
            parser.add_argument(flag, type=kind, default=field.default, help=help_text)
    return config_type(**vars(parser.parse_args(arguments)))


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; under torchrun each process has its own, by its number on the machine."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(name)
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def pick_precision(device: torch.device, precision: str, step: Callable[[str], object]) -> str:
    """`auto` times one step in each precision (after one to warm up) and keeps the faster.

    On CPUs with AMX bf16 is several times faster than fp32, on those without it is several times slower.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16"
    seconds = {}
    for candidate in ("fp32", "bf16"):
        step(candidate)
        start = time.perf_counter()
        step(candidate)
        seconds[candidate] = time.perf_counter() - start
    return min(seconds, key=lambda candidate: seconds[candidate])


class RunFolder:
    """Config, log and checkpoint of one run."""

    def __init__(self, path: Path, config: Any, *, writes: bool = True) -> None:
        """`writes` is for one process of those that train together; the others only load."""
        self.path = path
        if not writes:
            return
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(asdict(config), indent=2, default=str) + "\n")

    def log(self, **values: float) -> None:
        with (self.path / "log.jsonl").open("a") as stream:
            stream.write(json.dumps(values) + "\n")

    def draw_curve(self) -> None:
        """`curve.png`: every logged figure against the minutes spent, a panel each."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        lines = [json.loads(line) for line in (self.path / "log.jsonl").read_text().splitlines()]
        names = list(dict.fromkeys(name for line in lines for name in line if name not in ("step", "spent_s")))
        figure, axes = pyplot.subplots(-(-len(names) // 3), 3, figsize=(12, 2.6 * -(-len(names) // 3)), squeeze=False)
        for name, axis in zip(names, axes.flat, strict=False):
            points = [(line["spent_s"] / 60, line[name]) for line in lines if name in line]
            axis.plot(*zip(*points, strict=True))
            axis.set(title=name, xlabel="minutes")
        figure.tight_layout()
        figure.savefig(self.path / "curve.png")
        pyplot.close(figure)

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Both files whole or the old ones: a kill in the middle leaves the previous checkpoint."""
        partial = self.path / "checkpoint.part"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, {"state": json.dumps(state)})
        os.replace(partial, self.path / "checkpoint.safetensors")

    def load(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return None
        return load_file(path, device=str(device)), json.loads(read_metadata(path)["state"])


def read_metadata(path: Path) -> dict[str, str]:
    """The string metadata of a safetensors file: an 8-byte length, then a JSON header."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return dict(header.get("__metadata__", {}))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors under flat names; rates and decays come from the config again."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor.detach() for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


class MovingAverage:
    """An exponential moving average of a network's weights and buffers; what is evaluated and shipped.

    The decay ramps up as (1 + step) / (10 + step), so that a short run is not an average of its random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: tensor.detach().clone().float() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        current = network.state_dict()
        names = [name for name in self.average if current[name].is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in names], [current[n].float() for n in names], 1 - decay)

    def as_state(self, network: nn.Module) -> dict[str, Tensor]:
        return {name: self.average[name].to(tensor.dtype) for name, tensor in network.state_dict().items()}

"""Any classification network of torchvision as an embedding: its classifier cut off, its normalisation inside.

    python -m training export --torchvision resnet18 --weights imagenet --models mine

What the classifier would have been given are the features; the last map before they are pooled is the dense map (of a vision
transformer, its tokens). The weights are somebody else's, with a licence of their own, and stay with whoever fetched them:
nothing of them is in this project's `models/`.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

SIDE_PX = 224  # what torchvision's weights were trained at, but for a few
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, in 0 to 1
RANDOM = "random start"
# No linear classifier to cut off, or branches for training alone and a normalisation of their own.
UNUSABLE = ("squeezenet1_0", "squeezenet1_1", "googlenet", "inception_v3")


class TorchvisionEmbedding(nn.Module):
    """A network without its classifier; `map_of` names the part of it whose output is the dense map."""

    def __init__(self, network: nn.Module, map_of: str) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(DEVIATION)[:, None, None], persistent=False)
        network.get_submodule(map_of).register_forward_hook(self._keep)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8-valued RGB (n, 3, side, side) -> unit embedding (n, f), features (n, f), dense map (n, c, rows, rows)."""
        features = self.network((pictures - self.mean) / self.deviation)
        return F.normalize(features), features, self._last

    def _keep(self, _part: nn.Module, _given: Any, output: Tensor) -> None:
        if output.ndim == 3:  # tokens (n, 1 + rows * rows, c), that of the class first
            rows = math.isqrt(output.shape[1] - 1)
            output = output[:, 1:].transpose(1, 2).unflatten(2, (rows, rows))
        self._last = output


def embedding_of(name: str, weights: str, side_px: int) -> tuple[TorchvisionEmbedding, str]:
    """The network of this name, and where its weights come from, in words.

    `weights` is `none` (a random start), `imagenet` (torchvision fetches its own) or a file with a state dict, whose classifier
    may have any number of classes. SystemExit, naming the flag, for whatever cannot be used.
    """
    models = _torchvision_models()
    usable = [known for known in models.list_models(module=models) if known not in UNUSABLE]
    if name not in usable:
        raise SystemExit(f"--torchvision {name}: not one of {', '.join(usable)}")
    network, origin = _fetched(models, name) if weights == "imagenet" else (models.get_model(name, weights=None), RANDOM)
    head, _ = [named for named in network.named_modules() if isinstance(named[1], nn.Linear)][-1]
    network.set_submodule(head, nn.Identity())
    if weights == "none":
        _settle_norms(network, side_px)
    elif weights != "imagenet":
        origin = _load(network, name, Path(weights), head)
    return TorchvisionEmbedding(network, _place_of_last_map(network.eval(), name, side_px)).eval(), origin


def _torchvision_models() -> ModuleType:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: it was built for another torch
        raise SystemExit(
            f"--torchvision: torchvision cannot be imported ({error}). Install the build of it that belongs to torch "
            f"{torch.__version__}, from where that came from."
        ) from error
    return models


def _fetched(models: ModuleType, name: str) -> tuple[nn.Module, str]:
    chosen = models.get_model_weights(name).DEFAULT
    try:
        return models.get_model(name, weights=chosen), f"torchvision's {chosen}"
    except (URLError, OSError) as error:
        raise SystemExit(f"--weights imagenet: {chosen.url} cannot be fetched ({error}); give the file itself") from error


def _load(network: nn.Module, name: str, path: Path, head: str) -> str:
    """Weights of all but the head from a file -> the file's name and SHA-256."""
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # of a stranger's file, torch's reader lets through whatever its parser ran into
        raise SystemExit(f"--weights {path}: neither none, imagenet, nor a file of weights: {error!r}") from error
    try:
        network.load_state_dict({key: value for key, value in tensors.items() if not key.startswith(f"{head}.")})
        return f"{path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    except (AttributeError, TypeError, RuntimeError) as error:
        raise SystemExit(f"--weights {path}: no state dict of {name}: {str(error)[:500]}") from error


@torch.no_grad()
def _settle_norms(network: nn.Module, side_px: int) -> None:
    """Statistics of smooth noise for the norms of a random start: without any, deep networks let all pictures fade away."""
    norms = [part for part in network.eval().modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # what it sees now is all that it goes by
        norm.train()
    if norms:
        network(F.interpolate(torch.randn(16, 3, 8, 8), size=(side_px, side_px)))


@torch.no_grad()
def _place_of_last_map(network: nn.Module, name: str, side_px: int) -> str:
    """Which part gives the last square map of more than one place, or tokens of one. SystemExit where the side does not fit."""
    found: list[str] = []

    def note(part: str, output: object) -> None:
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        is_map = len(shape) == 4 and shape[2] == shape[3] > 1
        if is_map or (len(shape) == 3 and shape[1] > 1 and math.isqrt(shape[1] - 1) ** 2 == shape[1] - 1):
            found.append(part)

    hooks = [
        module.register_forward_hook(lambda _module, _given, output, part=part: note(part, output))
        for part, module in network.named_modules()
    ]
    try:
        network(torch.zeros(1, 3, side_px, side_px))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise SystemExit(f"--side-px {side_px}: {name} cannot take pictures of this side: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return found[-1]

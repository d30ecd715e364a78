"""torch -> ONNX for serving, with the preprocessing inside, and the outputs of both compared.

    python -m training export --run runs/embedding --models models
    python -m training export --torchvision NAME --weights none|imagenet|FILE --models mine

Writes `embedding.onnx` and, beside that of a run, `embedding.safetensors`: the weights in fp16, from which training goes on. The
ONNX file stores its weights in fp16 too and computes in fp32: half the size for a rounding that the comparison below measures.
What else a model set needs, `calibrate` or `fit` adds.
"""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training import run, torchvision_backbone
from training.backbone import averaged_weights, from_weights, hash_of
from training.discriminant import Discriminant, Embedding

OPSET = 17
WORST_COSINE_DISTANCE = 1e-3  # between torch and ONNX Runtime, over pictures
RUN_SIDE_PX, TORCHVISION_SIDE_PX = 96, torchvision_backbone.SIDE_PX
LEAST_SIDE_PX = 8  # that a manifest may name
SMALL = 256  # elements; smaller constants stay fp32: they weigh nothing, and some are exponents and epsilons


@dataclass(frozen=True)
class Config:
    run: Path = field(default=Path("runs/embedding"), metadata={"help": "run folder to export the averaged weights of"})
    models: Path = field(default=Path("models"), metadata={"help": "folder to write to"})
    torchvision: str = field(default="", metadata={"help": "export this classification network of torchvision instead of a run"})
    weights: str = field(
        default="imagenet",
        metadata={"help": "of the torchvision network: none (random), imagenet (downloads torchvision's) or a file (state dict)"},
    )
    side_px: int = field(default=0, metadata={"help": f"side of the input; 0: {RUN_SIDE_PX}, torchvision {TORCHVISION_SIDE_PX}"})


class Served(nn.Module):
    """The embedding as the service calls it: uint8 (n, side, side, 3) RGB in, the dense map (n, rows, columns, channels).

    `embedding` takes the same values as (n, 3, side, side) and gives unit vectors, features and the map (n, c, rows, columns).
    """

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embedding, features, dense = self.embedding(pictures.permute(0, 3, 1, 2).float())
        return embedding, features, dense.permute(0, 2, 3, 1)


def to_onnx(embedding: nn.Module, side_px: int) -> onnx.ModelProto:
    """The whole as ONNX, batch free, weights stored in fp16."""
    buffer = io.BytesIO()
    torch.onnx.export(
        Served(embedding).eval(), (torch.zeros(1, side_px, side_px, 3, dtype=torch.uint8),), buffer, dynamo=False,
        opset_version=OPSET, input_names=["pictures"], output_names=["embedding", "features", "dense"],
        dynamic_axes={name: {0: "n"} for name in ("pictures", "embedding", "features", "dense")},
    )  # fmt: skip
    return with_half_weights(onnx.load_from_string(buffer.getvalue()))


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Large fp32 constants stored as fp16, each behind a Cast that the runtime folds when it loads the file."""
    casts = []
    for initializer in model.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < SMALL:
            continue
        name, half = initializer.name, numpy_helper.to_array(initializer).astype(np.float16)
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    return model


def cosine_distance(embedding: nn.Module, model: onnx.ModelProto, pictures: np.ndarray) -> float:
    """The largest 1 - cosine between torch's and ONNX Runtime's embeddings of uint8 pictures (n, side, side, 3)."""
    with torch.no_grad():
        expected = Served(embedding).eval()(torch.from_numpy(pictures))[0].numpy()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["embedding"], {"pictures": pictures})[0]
    return float(1 - (expected * found).sum(1).min())


def probe_pictures(side_px: int, *, count: int = 16, seed: int = 0) -> np.ndarray:
    """Smooth random pictures: noise of single pixels would average away to one grey."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    times = -(-side_px // 8)
    return coarse.repeat(times, 1).repeat(times, 2)[:, :side_px, :side_px]


def shipped_weights(run_folder: Path) -> dict[str, Tensor]:
    """The network's weights under their names and the discriminant's under `discriminant.`, in fp16."""
    weights, fitted = averaged_weights(run_folder), run_folder / "discriminant.safetensors"
    if run.read_metadata(fitted)["network"] != hash_of(weights):
        sys.exit(f"{fitted} was fitted to other weights than the run's last; run `python -m training discriminant` again")
    return weights | {name: value.half() for name, value in run.prefixed("discriminant", load_file(fitted)).items()}


def embedding_of(weights: dict[str, Tensor]) -> Embedding:
    """What ships, from its fp16 weights."""
    discriminant = run.without_prefix("discriminant", weights)
    return Embedding(from_weights(weights), Discriminant(discriminant["mean"].float(), discriminant["matrix"].float())).eval()


def write_checked(embedding: nn.Module, side_px: int, models: Path, origin: Mapping[str, str]) -> None:
    """embedding.onnx, with `origin` in its metadata. SystemExit, and nothing written, where it computes something else."""
    try:
        model = to_onnx(embedding, side_px)
    except torch.onnx.OnnxExporterError as error:
        sys.exit(f"--side-px {side_px}: the network cannot be written as ONNX for this side: {str(error).splitlines()[0]}")
    distance = cosine_distance(embedding, model, probe_pictures(side_px))
    print(f"largest cosine distance between torch and ONNX Runtime: {distance:.2e} (limit {WORST_COSINE_DISTANCE:.0e})")
    if not distance <= WORST_COSINE_DISTANCE:  # not a number is no agreement either
        sys.exit("the exported network does not compute what the trained one does; nothing was written")
    helper.set_model_props(model, dict(origin))
    models.mkdir(parents=True, exist_ok=True)
    onnx.save(model, models / "embedding.onnx")


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Export the embedding network.")
    side_px = config.side_px or (TORCHVISION_SIDE_PX if config.torchvision else RUN_SIDE_PX)
    if side_px < LEAST_SIDE_PX:
        sys.exit(f"--side-px {side_px}: the service takes networks of {LEAST_SIDE_PX} pixels a side or more")
    if config.torchvision:
        torch.manual_seed(0)  # of a random start
        network, origin = torchvision_backbone.embedding_of(config.torchvision, config.weights, side_px)
        command = (
            f"python -m training export --torchvision {config.torchvision} --weights {shlex.quote(Path(config.weights).name)}"
        )
        write_checked(network, side_px, config.models, {"command": command, "weights": origin})
        print(f"{config.torchvision}, weights: {origin}")
        return
    weights = shipped_weights(config.run)
    write_checked(embedding_of(weights), side_px, config.models, {})
    save_file(weights, config.models / "embedding.safetensors")

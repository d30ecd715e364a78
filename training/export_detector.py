"""A trained detector -> ONNX for serving, with the preprocessing inside, and the outputs of both compared.

    python -m training export-detector --run runs/detector --models models

Writes `detector.onnx`, whose `side` is left open: who opens it fixes that, and has fixed shapes, for which a runtime plans its
memory once. In: uint8 (1, side, side, 3). Out, for all cells of all levels: `objectness` (1, m) in [0, 1], `boxes` (1, m, 4) in
pixels, `embeddings` (1, m, e) of unit length. What depends on the data, the most likely ones, overlaps and classes, is the
domain's (`app/domain/posterior.py`). Weights stand in it by name, unfolded and in fp16, so that training goes on from the file
(`training detector --start-from models/detector.onnx`). `training regions` then puts it into the manifest.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from safetensors.torch import load_file
from torch import Tensor, nn

from app.adapters.networks import OPEN_SIDE
from training import detector, run
from training.export import OPSET, probe_pictures, with_half_weights

OUTPUTS = ["objectness", "boxes", "embeddings"]
TRACED_PX = 64
# Between torch and ONNX Runtime, over all cells of probe pictures; weights are stored in fp16.
WORST_OBJECTNESS = 2e-2
WORST_BOX_SHARE = 5e-2  # of a box's longer side, or a pixel
WORST_COSINE_DISTANCE = 1e-3


@dataclass(frozen=True)
class Config:
    run: Path = field(default=Path("runs/detector"), metadata={"help": "run folder to export the averaged weights of"})
    models: Path = field(default=Path("models"), metadata={"help": "folder to write to"})
    sides_px: str = field(default="320,512", metadata={"help": "sides of the input at which both are compared"})


class Served(nn.Module):
    """The detector as the service calls it: uint8 (n, side, side, 3) RGB -> objectness, boxes and embeddings of all cells."""

    def __init__(self, network: detector.Detector) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.network(pictures.permute(0, 3, 1, 2).float())
        points, _ = detector.cells_of(pictures.shape[1])
        boxes = detector.boxes_from(points, found.distances)
        return detector.objectness_of(found), boxes, self.network.embed(found.features)


def to_onnx(network: detector.Detector) -> onnx.ModelProto:
    """The whole as ONNX for any side that is a multiple of 32, weights stored in fp16."""
    buffer = io.BytesIO()
    torch.onnx.export(
        Served(network).eval(), (torch.zeros(1, TRACED_PX, TRACED_PX, 3, dtype=torch.uint8),), buffer, dynamo=False,
        opset_version=OPSET, input_names=["pictures"], output_names=OUTPUTS,
        dynamic_axes={"pictures": {1: OPEN_SIDE, 2: OPEN_SIDE}, **{name: {1: "cells"} for name in OUTPUTS}},
        # The runtime folds; here every weight has its name, and those that are equal one each.
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, keep_initializers_as_inputs=True,
    )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    del model.graph.input[1:]  # weights are constants nonetheless
    return with_half_weights(model)


@dataclass(frozen=True)
class Difference:
    """The largest between torch and ONNX Runtime."""

    objectness: float
    box_share: float
    cosine_distance: float

    @property
    def is_small(self) -> bool:
        return (  # not a number is not small
            self.objectness <= WORST_OBJECTNESS
            and self.box_share <= WORST_BOX_SHARE
            and self.cosine_distance <= WORST_COSINE_DISTANCE
        )


def difference(network: detector.Detector, model: onnx.ModelProto, pictures: np.ndarray) -> Difference:
    """Over uint8 pictures (n, side, side, 3), each asked alone."""
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name(OPEN_SIDE, pictures.shape[1])
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    served, found = Served(network).eval(), []
    for picture in pictures:
        with torch.no_grad():
            expected = [output.numpy() for output in served(torch.from_numpy(picture[None]))]
        objectness, boxes, embeddings = session.run(OUTPUTS, {"pictures": picture[None]})
        sides = np.maximum((expected[1][..., 2:] - expected[1][..., :2]).max(2), 1.0)
        found.append(
            (
                np.abs(objectness - expected[0]).max(),
                (np.abs(boxes - expected[1]).max(2) / sides).max(),
                1 - (embeddings * expected[2]).sum(2).min(),
            )
        )
    return Difference(*(float(value) for value in np.max(found, 0)))


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Export the detector.")
    weights = {name: value.half() for name, value in detector.averaged_weights(config.run).items()}
    network = detector.from_weights(weights)
    learner = run.without_prefix("learner.representatives", load_file(config.run / "checkpoint.safetensors"))
    width = float(torch.nn.functional.softplus(learner["raw_width"]))
    config.models.mkdir(parents=True, exist_ok=True)
    model = to_onnx(network)
    for side_px in map(int, config.sides_px.split(",")):
        differing = difference(network, model, probe_pictures(side_px, count=4))
        print(f"{side_px} px: largest difference between torch and ONNX Runtime: {differing}")
        if not differing.is_small:
            sys.exit("the exported network does not compute what the trained one does; it was not written")
    helper.set_model_props(model, {"width": f"{width:.6f}"})
    onnx.save(model, config.models / "detector.onnx")

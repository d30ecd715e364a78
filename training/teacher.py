"""Features of an ImageNet network for a set of pictures: what the student is taught, and a baseline.

Computed once per picture, not per view: each rendering of a mark is taught the features of the clean mark, so that what the
renderer varies is unlearnt, and a batch costs nothing more. The teacher's weights are never part of what ships.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

TEACHER = Path("imagenet-mobilenetv2") / "mobilenet_v2_1.0_224_fp16.onnx"  # in the data folder
LESSON_PX = 160  # half the price of 224, and what is taught is 84 to 128 px anyway


class Teacher:
    """RGB in [0, 1] (n, 3, s, s), any s -> features before the classifier (n, 1280)."""

    def __init__(self, path: Path, *, side_px: int = 224) -> None:
        self.side_px = side_px
        network = onnx.load(str(path))
        for axis in network.graph.input[0].type.tensor_type.shape.dim[2:]:
            axis.dim_value = side_px  # fully convolutional: any even side will do
        self.session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])

    def __call__(self, pictures: Tensor) -> Tensor:
        sized = F.interpolate(pictures, size=(self.side_px,) * 2, mode="bilinear", align_corners=False, antialias=True)
        return torch.from_numpy(self.session.run(["features"], {"image": (sized * 2 - 1).numpy()})[0])


def features_of(pixels: Tensor, teacher: Teacher, cache: Path) -> Tensor:
    """Features of uint8 RGB or RGBA pictures (on white), fp16 (n, 1280); read from `cache` when it is there."""
    if cache.exists():
        return torch.from_numpy(np.load(cache))
    parts = []
    for part in tqdm(pixels.split(64), desc=f"teacher {cache.stem}", mininterval=10):
        pictures = part.float() / 255
        if pictures.shape[1] == 4:
            pictures = pictures[:, :3] * pictures[:, 3:] + 1 - pictures[:, 3:]
        parts.append(teacher(pictures).half())
    found = torch.cat(parts)
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_name(f"{os.getpid()}-{cache.name}")  # ranks that train together make it at the same time
    np.save(partial, found.numpy())
    os.replace(partial, cache)
    return found

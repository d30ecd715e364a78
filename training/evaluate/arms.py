"""What is compared: functions from a square picture to a vector. The baselines are those that a person would try first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from app.adapters.images import resize
from app.adapters.model_set import read_model_set
from app.adapters.networks import OnnxEmbedder
from training.backbone import Backbone
from training.discriminant import untrained
from training.export import Served
from training.teacher import TEACHER, Teacher

Arm = Callable[[Sequence[Image.Image]], np.ndarray]  # RGB pictures of any size -> (n, d) unit length


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def squares(pictures: Sequence[Image.Image], side_px: int) -> np.ndarray:
    """uint8 (n, side, side, 3), stretched as the service does."""
    return np.stack([resize(np.asarray(picture), side_px) for picture in pictures])


def histogram(pictures: Sequence[Image.Image]) -> np.ndarray:
    """HSV histogram, 12 x 4 x 4 bins, square-rooted (Hellinger)."""
    found = []
    for picture in pictures:
        hsv = np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC).convert("HSV")).reshape(-1, 3).astype(int)
        bins = (hsv[:, 0] * 12 // 256) * 16 + (hsv[:, 1] // 64) * 4 + hsv[:, 2] // 64
        found.append(np.sqrt(np.bincount(bins, minlength=192)))
    return unit(np.stack(found))


def hog(pictures: Sequence[Image.Image]) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs 2005): 64 px grey, 8 px cells, 9 unsigned bins, 2 x 2 blocks, L2-Hys."""
    found = []
    for picture in pictures:
        grey = np.asarray(picture.convert("L").resize((64, 64), Image.Resampling.BICUBIC), np.float64)
        gx, gy = np.zeros_like(grey), np.zeros_like(grey)
        gx[:, 1:-1], gy[1:-1] = grey[:, 2:] - grey[:, :-2], grey[2:] - grey[:-2]
        position = (np.arctan2(gy, gx) % np.pi) / np.pi * 9 - 0.5
        lower, share = np.floor(position).astype(int), position - np.floor(position)
        cells = np.zeros((8, 8, 9))
        rows, columns = np.indices(grey.shape) // 8
        length = np.hypot(gx, gy)
        np.add.at(cells, (rows, columns, lower % 9), length * (1 - share))
        np.add.at(cells, (rows, columns, (lower + 1) % 9), length * share)
        blocks = np.concatenate([cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]], -1).reshape(49, 36)
        blocks /= np.sqrt(np.square(blocks).sum(1, keepdims=True) + 1e-4)
        blocks = np.minimum(blocks, 0.2)
        found.append((blocks / np.sqrt(np.square(blocks).sum(1, keepdims=True) + 1e-4)).ravel())
    return unit(np.stack(found))


def shipped(models: Path) -> Arm:
    """The embedding of a model set, through the adapter that serves it."""
    embedder = OnnxEmbedder(read_model_set(models).embedding_network, threads=2)
    return lambda pictures: embedder(squares(pictures, embedder.side_px)).embedding.astype(np.float64)


def random_weights(pictures: Sequence[Image.Image]) -> np.ndarray:
    """What ships before it was trained, its norms fitted to the pictures: what architecture and colour give alone."""
    torch.manual_seed(0)
    network, squared = Served(untrained(Backbone())), torch.from_numpy(squares(pictures, 96))
    with torch.no_grad():
        for norm in (module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)):
            norm.momentum = None  # plain averages over what follows
        for part in squared[torch.randperm(len(squared))[:512]].split(128):
            network(part)
        network.eval()
        return unit(torch.cat([network(part)[0] for part in squared.split(128)]).numpy())


def teacher(folder: Path) -> Arm:
    """Pooled features of the ImageNet network, 224 px."""
    network = Teacher(folder / TEACHER)

    def embed(pictures: Sequence[Image.Image]) -> np.ndarray:
        parts = np.array_split(squares(pictures, 224), max(1, len(pictures) // 64))
        return unit(torch.cat([network(torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255) for part in parts]).numpy())

    return embed


def arm(name: str, *, models: Path, folder: Path) -> Arm:
    """An arm by name; ValueError for another."""
    match name:
        case "shipped":
            return shipped(models)
        case "teacher":
            return teacher(folder)
        case "histogram":
            return histogram
        case "hog":
            return hog
        case "random":
            return random_weights
    raise ValueError(f"no arm is called {name!r}")

"""What is compared: functions from pictures to vectors. The baselines are those that a person would try first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

from app.adapters.images import resize
from app.adapters.model_set import read_model_set
from app.adapters.networks import OnnxEmbedder, open_synthesizer
from training import export, mini_imagenet, run
from training.backbone import Backbone
from training.benchmark import BACKBONE_FILE, DELTA_FILE, read_delta_encoder
from training.discriminant import untrained
from training.evaluate.rules import Moved, Rule, Served, unit
from training.teacher import TEACHER, Teacher

NAMED = ("histogram", "hog", "random", "teacher")  # and any path of a model set or a network
THREADS = 2
NORMS_FITTED_TO = 512  # pictures, of the arm `random`

Arm = Callable[[Sequence[Image.Image]], np.ndarray]  # RGB pictures of any size -> (n, d) unit length


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
    embedder = OnnxEmbedder(read_model_set(models).embedding_network, threads=THREADS)
    return lambda pictures: embedder(squares(pictures, embedder.side_px)).embedding.astype(np.float64)


def random_weights(pictures: Sequence[Image.Image]) -> Arm:
    """What ships before it was trained, its norms fitted to 512 of the pictures: what architecture and colour give alone."""
    torch.manual_seed(0)
    network = export.Served(untrained(Backbone()))
    chosen = torch.randperm(len(pictures))[:NORMS_FITTED_TO].tolist()
    with torch.no_grad():
        for norm in (module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)):
            norm.momentum = None  # plain averages over what follows
        for part in torch.from_numpy(squares([pictures[position] for position in chosen], 96)).split(128):
            network(part)
        network.eval()

    @torch.no_grad()
    def embed(pictures: Sequence[Image.Image]) -> np.ndarray:
        return unit(torch.cat([network(part)[0] for part in torch.from_numpy(squares(pictures, 96)).split(128)]).numpy())

    return embed


def bare_network(path: Path) -> Arm:
    """An ONNX file: uint8 (n, side, side, 3) in, its first output made unit length. ValueError for another input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoding wants the cores too
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given, *others), output = session.get_inputs(), session.get_outputs()[0].name
    match others, given.type, given.shape:
        case [], "tensor(uint8)", [_, int(height), int(width), 3] if height == width:
            side_px = height
        case _:
            raise ValueError(f"it takes {given.type} {given.shape}, not uint8 (n, side, side, 3)")

    def embed(pictures: Sequence[Image.Image]) -> np.ndarray:
        # One by one, as the service does: the batch axis may be fixed to 1.
        found = [session.run([output], {given.name: square[np.newaxis]})[0] for square in squares(pictures, side_px)]
        return unit(np.concatenate(found).reshape(len(pictures), -1))

    return embed


def benchmark(path: Path) -> Arm:
    """The network of `training mini-imagenet`: weights or a checkpoint, and the `centre` (f,) of features, if there is one.

    The side is the last of a default run, or what the file's metadata has as `side_px`. ValueError for other weights.
    """
    network, centre = mini_imagenet.read_network(path)
    side_px = int(run.read_metadata(path).get("side_px", mini_imagenet.Config.sides_px.split(",")[-1]))

    def embed(pictures: Sequence[Image.Image]) -> np.ndarray:
        pixels = torch.from_numpy(squares(pictures, mini_imagenet.STORED_PX)).permute(0, 3, 1, 2)
        return unit((mini_imagenet.features_of(network, pixels, side_px) - centre).numpy())

    return embed


def teacher(path: Path) -> Arm:
    """Pooled features of the ImageNet network, 224 px. ValueError where the file is not."""
    if not path.is_file():
        raise ValueError(f"there is no {path}; --teacher says where it lies")
    network = Teacher(path)

    def embed(pictures: Sequence[Image.Image]) -> np.ndarray:
        parts = np.array_split(squares(pictures, 224), max(1, len(pictures) // 64))
        return unit(torch.cat([network(torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255) for part in parts]).numpy())

    return embed


def arm(name: str, *, models: Path, folder: Path, pictures: Sequence[Image.Image]) -> Arm:
    """An arm by name; ValueError for another. `random` fits its norms to `pictures`."""
    match name:
        case "shipped" | "served":  # they differ in how classes are made of embeddings
            return shipped(models)
        case "teacher":
            return teacher(folder / TEACHER)
        case "histogram":
            return histogram
        case "hog":
            return hog
        case "random":
            return random_weights(pictures)
    raise ValueError(f"no arm is called {name!r}")


def network_file(path: Path) -> Path:
    """The file that an arm is made of: what `path` is, or what lies in that folder. ValueError for anything else."""
    if not path.exists():
        raise ValueError(f"no arm has that name, and there is no such path; the names are {', '.join(NAMED)}")
    inside = [path / name for name in ("manifest.json", BACKBONE_FILE) if (path / name).is_file()]
    if path.is_dir() and not inside:
        raise ValueError(f"the folder holds neither manifest.json nor {BACKBONE_FILE}")
    found = inside[0] if path.is_dir() else path
    if found.suffix not in (".onnx", ".safetensors") and found.name != "manifest.json":
        raise ValueError("a file ends in .onnx or .safetensors")
    return found


@dataclass(frozen=True)
class Opened:
    """An arm, and the rule that it decides by itself, if it has one; `calibrated`: its scores are log-odds."""

    embed: Arm
    own_rule: Rule | None = None
    calibrated: bool = False


def arm_at(path: Path) -> Opened:
    """The arm of a model set, of an ONNX file or of weights of the benchmark network, with the delta-encoder beside them.

    ValueError for what is none of these or cannot be opened.
    """
    file = network_file(path)
    try:
        if file.name == "manifest.json":
            loaded = read_model_set(file.parent)
            return Opened(shipped(file.parent), Served(loaded.model_set, open_synthesizer(loaded)), calibrated=True)
        if file.suffix == ".onnx":
            return Opened(bare_network(file))
        beside = file.parent / DELTA_FILE
        if file.name != BACKBONE_FILE or not beside.is_file():
            return Opened(benchmark(file))
        synthesis = read_delta_encoder(beside)
        return Opened(benchmark(file), Moved(synthesis.synthesize, synthesis.real_share))
    except ValueError:
        raise
    except Exception as error:  # those of ONNX Runtime, of safetensors and of model sets have no common base but this
        raise ValueError(f"it cannot be opened: {error}") from error

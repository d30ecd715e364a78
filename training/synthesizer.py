"""The synthesizer that ships: a residual delta-encoder, then taught to make of one picture what tells its class from others.

    python -m training synthesizer --features DIR --models models

Two stages on cached features of base classes (`python -m training features`), which are compared as the service compares them:
of length 1, not centred. First the auto-encoder of `delta_encoder.py`, residual. Then episodes: one picture of each of some two
hundred classes is moved towards the mean of what is made of it, and another picture of each must find its own among them (the
loss of Prototypical Networks, Snell et al., NeurIPS 2017, through the decoder). An auto-encoder is asked for one picture at a
time, and nothing in its loss asks what it makes to be unlike other classes.

Writes encoder and decoder as ONNX, a bank of codes, and the fp16 weights of both; `calibrate` puts them into the manifest. What
it gains, and against what: docs/experiments.md, "a synthesizer that earns its place".
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from app.adapters.model_set import SynthesisParts
from app.adapters.networks import DeltaDecoder
from app.domain.representatives import Synthesize, no_synthesis
from training import delta_encoder, features, run
from training.delta_encoder import Base, DeltaEncoder
from training.export import OPSET, with_half_weights

TEMPERATURE = 20.0  # of the cosines in the loss; 10 was worse, 30 the same
PER_SHELF = 64  # classes of an episode from each file
MADE_PER_SHOT = 8  # in a step of the second stage
WORST_DIFFERENCE = 1e-3  # between torch and ONNX Runtime
ENCODER_FILE, DECODER_FILE = "delta-encoder.onnx", "delta-decoder.onnx"
BANK_FILE, WEIGHTS_FILE = "deltas.npy", "delta-encoder.safetensors"
MADE = 32  # pictures of a class, where it has so few examples; one of each does nearly as well: docs/experiments.md


@dataclass(frozen=True)
class Config:
    features: Path = field(
        default=Path("runs/features/base"), metadata={"help": "folder of cached features of base classes, a file a pack"}
    )
    models: Path = field(default=Path("models"), metadata={"help": "folder of the model set to write to"})
    hidden: int = field(default=512, metadata={"help": "units of the hidden layers"})
    code: int = field(default=16, metadata={"help": "numbers in a code"})
    dropout: float = field(default=0.5, metadata={"help": "of hidden units"})
    steps: int = field(default=600, metadata={"help": "of the auto-encoder"})
    episodes: int = field(default=2000, metadata={"help": "of the second stage; 0 leaves it out"})
    rate: float = field(default=1e-3, metadata={"help": "of AdamW, in both; it ends at 0"})
    weight_decay: float = field(default=0.1, metadata={"help": "decoupled"})
    taught_share: float = field(
        default=0.5, metadata={"help": "weight of the real picture in an episode, beside what is made of it"}
    )
    real_share: float = field(default=0.7, metadata={"help": "and at enrolment, where pictures are of other kinds than here"})
    bank: int = field(default=512, metadata={"help": "codes that ship"})
    seed: int = 0


@dataclass(frozen=True)
class Shelf:
    """Base classes of one file: unit vectors (n, d), and of each class the rows that may be shown and asked, -1 beyond."""

    vectors: Tensor
    shown: Tensor  # (classes, most)
    asked: Tensor  # (classes, most)
    in_circle: bool

    @classmethod
    def of(cls, found: features.FeatureSet) -> Shelf:
        labels = torch.from_numpy(found.labels)
        vectors = F.normalize(torch.from_numpy(found.features), dim=-1)
        # Whatever may be asked may be shown as well: people enrol bad pictures too, and one that was learnt from clean pictures
        # alone made photographs as examples worse.
        may_show = found.may_show | found.may_ask
        shown, asked = (_rows_by_class(labels, torch.from_numpy(may)) for may in (may_show, found.may_ask))
        return cls(vectors, shown, asked, found.in_circle)

    def pairs(self, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One picture to show and another to ask of each of `classes` random classes: two (m, d).

        Where the two came out as one picture or as neighbours in a circle, the class is left out: m may be less.
        """
        chosen = torch.randperm(len(self.shown), generator=generator)[:classes]
        shown, asked = (_one_of_each(rows[chosen], generator) for rows in (self.shown, self.asked))
        apart = (shown - asked).abs()
        if self.in_circle:
            size = (self.shown[chosen] >= 0).sum(1)
            kept = torch.minimum(apart, size - apart) > 1
        else:
            kept = apart > 0
        return self.vectors[shown[kept]], self.vectors[asked[kept]]


def _rows_by_class(labels: Tensor, may: Tensor) -> Tensor:
    rows = [torch.nonzero(may & (labels == label)).flatten() for label in labels.unique()]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def _one_of_each(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows (c, most) filled up with -1 -> one of each that is not (c,)."""
    place = (torch.rand(len(rows), generator=generator) * (rows >= 0).sum(1)).long()
    return rows.gather(1, place[:, None]).flatten()


def moved(shots: Tensor, made: Tensor, real_share: float) -> Tensor:
    """Shots (n, d) towards the mean of what is made of each (n, m, d), of unit length: as `app.domain.representatives` does."""
    return F.normalize(real_share * shots + (1 - real_share) * made.mean(1), dim=-1)


def auto_encode(network: DeltaEncoder, base: Base, config: Config) -> None:
    optimizer, pairs = _optimizer(network.parameters(), config), _pairs_for_ever(base, config.seed)
    for step in tqdm(range(config.steps), desc="auto-encoder", mininterval=10):
        x, y = next(pairs)
        loss = delta_encoder.loss_of(network, base.vectors[x], base.vectors[y], detached=False)
        _take_step(optimizer, step / config.steps, config, loss)


def teach(network: DeltaEncoder, shelves: Sequence[Shelf], codes: Tensor, config: Config) -> None:
    """The decoder alone: codes keep their meaning, so that a bank of other pairs still fits."""
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = _optimizer(network.decoder.parameters(), config)
    for step in tqdm(range(config.episodes), desc="episodes", mininterval=10):
        drawn = [shelf.pairs(PER_SHELF, generator) for shelf in shelves]
        shots, asked = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        lent = codes[torch.randint(len(codes), (MADE_PER_SHOT,), generator=generator)]
        made = network.decode(shots[:, None], lent[None])
        similarity = asked @ moved(shots, made, config.taught_share).T
        loss = F.cross_entropy(TEMPERATURE * similarity, torch.arange(len(shots)))
        _take_step(optimizer, step / config.episodes, config, loss)


def _pairs_for_ever(base: Base, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from delta_encoder.epoch_of(base, 512, generator)


def _optimizer(parameters: Iterator[nn.Parameter], config: Config) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=config.rate, weight_decay=config.weight_decay)


def _take_step(optimizer: torch.optim.Optimizer, progress: float, config: Config, loss: Tensor) -> None:
    optimizer.param_groups[0]["lr"] = config.rate * (1 + math.cos(math.pi * progress)) / 2
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def read_sets(folder: Path) -> list[features.FeatureSet]:
    """SystemExit without any feature file."""
    sets = [features.read(path) for path in sorted(folder.glob("*.npz"))]
    if not sets:
        raise SystemExit(f"--features {folder}: no .npz is there; `python -m training features` makes them")
    return sets


def train(config: Config, sets: Sequence[features.FeatureSet]) -> tuple[DeltaEncoder, Tensor]:
    """The network, and a bank of codes (bank, code) of pairs of pictures; both of numbers that half precision has."""
    shelves, base = [Shelf.of(found) for found in sets], union(sets)
    torch.manual_seed(config.seed)
    network = DeltaEncoder(base.vectors.shape[1], hidden=config.hidden, code=config.code, dropout=config.dropout, residual=True)
    network.train()
    auto_encode(network, base, config)
    codes = delta_encoder.codes_of(network, base, base.pairs(config.bank, torch.Generator().manual_seed(config.seed)))
    network.train()
    teach(network, shelves, codes, config)
    return network.eval().half().float(), codes.half().float()  # what is stored is what is exported and compared


def union(sets: Sequence[features.FeatureSet]) -> Base:
    firsts = np.cumsum([0, *(len(found.class_names) for found in sets)])
    labels = [found.labels + first for found, first in zip(sets, firsts, strict=False)]
    vectors = F.normalize(torch.from_numpy(np.concatenate([found.features for found in sets])), dim=-1)
    return Base(vectors, torch.from_numpy(np.concatenate(labels)))


# ------------------------------------------------------------------------------------------------------------------- export


class Encode(nn.Module):
    """x and y (n, d), unit length -> codes (n, code)."""

    def __init__(self, network: DeltaEncoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.network.encode(x, y)


class Decode(nn.Module):
    """shots (n, d), unit length, and codes (m, code) -> each code done to each shot (n, m, d), unit length."""

    def __init__(self, network: DeltaEncoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, shots: Tensor, codes: Tensor) -> Tensor:
        return self.network.decode(shots[:, None], codes[None])


def to_onnx(module: nn.Module, inputs: dict[str, Tensor], output: str) -> onnx.ModelProto:
    """First axes free, weights stored in fp16."""
    axes = {name: {0: name} for name in inputs} | {output: {0: next(iter(inputs)), 1: list(inputs)[-1]}}
    buffer = io.BytesIO()
    torch.onnx.export(
        module.eval(), tuple(inputs.values()), buffer, dynamo=False, opset_version=OPSET,
        input_names=list(inputs), output_names=[output], dynamic_axes=axes,
    )  # fmt: skip
    return with_half_weights(onnx.load_from_string(buffer.getvalue()))


def worst_difference(module: nn.Module, model: onnx.ModelProto, inputs: dict[str, Tensor]) -> float:
    """The largest between torch's and ONNX Runtime's output, relative to the largest number of it."""
    with torch.no_grad():
        expected = module(*inputs.values()).numpy()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return float(np.abs(expected - found).max() / np.abs(expected).max())


def write(network: DeltaEncoder, codes: Tensor, config: Config) -> None:
    """Files of the model set; nothing where ONNX Runtime computes something else."""
    vectors = F.normalize(torch.randn(6, network.encoder[0].in_features // 2), dim=-1)
    parts = {
        ENCODER_FILE: (Encode(network), {"x": vectors[:3], "y": vectors[3:]}, "codes"),
        DECODER_FILE: (Decode(network), {"shots": vectors[:3], "codes": codes[:5]}, "made"),
    }
    models = {name: to_onnx(*part) for name, part in parts.items()}
    worst = max(worst_difference(parts[name][0], model, parts[name][1]) for name, model in models.items())
    print(f"largest relative difference between torch and ONNX Runtime: {worst:.1e} (limit {WORST_DIFFERENCE:.0e})")
    if worst > WORST_DIFFERENCE:
        sys.exit("the exported networks do not compute what the trained one does; nothing was written")
    config.models.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        onnx.save(model, config.models / name)
    np.save(config.models / BANK_FILE, codes.numpy())
    weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, config.models / WEIGHTS_FILE, metadata={"real_share": str(config.real_share)})


# ---------------------------------------------------------------------------------------------------- as a model set has it


@dataclass(frozen=True)
class Synthesis:
    """What calibration enrols with."""

    synthesize: Synthesize
    real_share: float


NO_SYNTHESIS = Synthesis(no_synthesis, 1.0)


def synthesis_of(folder: Path) -> Synthesis:
    """That of a folder which may have no manifest yet; none where it has no decoder."""
    if not (folder / DECODER_FILE).exists():
        return NO_SYNTHESIS
    parts = SynthesisParts((folder / DECODER_FILE).read_bytes(), np.load(folder / BANK_FILE), MADE)
    return Synthesis(DeltaDecoder(parts), _real_share_of(folder))


def manifest_entry(folder: Path, described: Callable[[str], dict[str, str]]) -> dict[str, Any] | None:
    """`described` gives a file's name and hash. None where the folder has no decoder."""
    if not (folder / DECODER_FILE).exists():
        return None
    files = {"encoder": ENCODER_FILE, "decoder": DECODER_FILE, "deltas": BANK_FILE}
    return {part: described(file) for part, file in files.items()} | {"real_share": _real_share_of(folder), "made": MADE}


def removed(folder: Path) -> bool:
    """Whether there was one to take out of a folder."""
    there = [folder / name for name in (ENCODER_FILE, DECODER_FILE, BANK_FILE, WEIGHTS_FILE) if (folder / name).exists()]
    for path in there:
        path.unlink()
    return bool(there)


def _real_share_of(folder: Path) -> float:
    return float(run.read_metadata(folder / WEIGHTS_FILE)["real_share"])


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Train the synthesizer that ships.")
    write(*train(config, read_sets(config.features)), config)

"""Delta-encoder (Schwartz et al., NeurIPS 2018): how pictures of known classes differ, put onto one picture of a new class.

An auto-encoder in feature space (section 3). The encoder sees a picture's features x and those of another picture y of its class,
and leaves a code of a few numbers; the decoder makes x again of y and the code. So small a code cannot hold x: it holds what must
be done to y. Codes of pairs of known classes, decoded on the one picture of a new class, give as many made-up pictures of it
as one likes, and an ordinary linear classifier is trained on them (section 3.2).

    python -m training delta-encoder --features FILE --run DIR                 # the paper's
    python -m training delta-encoder --features FILE --run DIR --residual --rate 3e-4 --batch 512 --weight-decay 1e-4

`--features` is what `python -m training features` wrote. Departures of the first command: 2,048 hidden units for 8,192, and so
four times the rate, which moves a layer of Adam's as far; features centred, of length 1 (CL2N) and then scaled to about 1 a
number, because ours have no scale of their own; a reference is never the picture itself; nothing is selected on what is reported
(the released code keeps the best of 6 epochs and of 25 classifiers by looking at the test). The second command is ours: the
decoder says what to add to y, and what comes out has length 1 again.

Three minutes on one core, with 60 pictures of each of mini-ImageNet's base classes. What it gains, and against what:
docs/experiments.md, "synthesis in feature space".
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from training import data, features, run

HELD_OUT_SHARE = 0.25  # of base classes, by name: what anything about synthesis is chosen on
SLOPE = 0.2  # of the leaky rectifier below 0
INITIAL_SD = 0.01  # of all weights
CHECKPOINT_S = 60.0
STORED_CODES = 512  # in a bank that could ship: 16 kB in half precision
META_SHOTS, META_CODES, META_RATE = 64, 16, 3e-4  # of a step that teaches mean and spread
SPREAD_WEIGHT = 10.0  # a spread is about 0.5 and off by 0.1; the term beside it is about 0.3


@dataclass(frozen=True)
class Config:
    features: Path = field(default=Path("runs/features/train.npz"), metadata={"help": "cached features of the base classes"})
    run: Path = field(default=Path("runs/delta-encoder"), metadata={"help": "run folder; an unfinished run goes on"})
    start_from: str = field(default="", metadata={"help": "checkpoint (.safetensors) of another run to start from"})
    hidden: int = field(default=2048, metadata={"help": "units of the hidden layers"})
    code: int = field(default=16, metadata={"help": "numbers in a code"})
    dropout: float = field(default=0.5, metadata={"help": "of hidden units, in both networks"})
    residual: bool = field(default=False, metadata={"help": "the decoder adds to the reference, on the unit sphere"})
    detached: bool = field(default=False, metadata={"help": "no gradient through the loss's weights, as the paper's text has it"})
    steps: int = field(default=1800, metadata={"help": "6 epochs of 300 batches, as on mini-ImageNet"})
    batch: int = field(default=128, metadata={"help": "pairs a step"})
    rate: float = field(default=4e-5, metadata={"help": "of Adam; a tenth less after each epoch that is worse than the best"})
    weight_decay: float = field(default=0.0, metadata={"help": "decoupled"})
    meta_steps: int = field(default=0, metadata={"help": "then teach the decoder a class's mean and spread"})
    seed: int = 0


# ----------------------------------------------------------------------------------------------------------------- features


@dataclass(frozen=True)
class Space:
    """Where the networks work: centred on base pictures and of length 1 (SimpleShot's CL2N)."""

    mean: Tensor  # (d,)

    def __call__(self, found: Tensor) -> Tensor:
        """Features (..., d) -> unit length (..., d)."""
        return F.normalize(found - self.mean, dim=-1)


@dataclass(frozen=True)
class Base:
    """Base classes that are learnt from: unit vectors (n, d), sorted by class, and labels (n,)."""

    vectors: Tensor
    labels: Tensor

    @property
    def counts(self) -> Tensor:
        return torch.bincount(self.labels)

    def pairs(self, count: int, generator: torch.Generator, *, share: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Positions of `count` pictures x and of other pictures y of their classes; `share` (n,) says how often each is a y."""
        weights = torch.ones(len(self.labels)) if share is None else share
        y = torch.multinomial(weights * (self.counts > 1)[self.labels], count, replacement=True, generator=generator)
        counts = self.counts[self.labels[y]]
        starts = (torch.cumsum(self.counts, 0) - self.counts)[self.labels[y]]
        ahead = 1 + (torch.rand(count, generator=generator) * (counts - 1)).long()  # around the class, never back to itself
        return starts + (y - starts + ahead) % counts, y


def held_out(class_name: str) -> bool:
    """Whether a base class is for choosing and not learnt from. Not the share that holds objects back from the embedding."""
    return data.share_of(f"synthesis/{class_name}") < HELD_OUT_SHARE


def learnt_from(found: features.FeatureSet) -> tuple[Space, Base]:
    keep = np.array([not held_out(name) for name in found.class_names])
    kept = found.of_classes(keep)
    space = Space(torch.from_numpy(kept.features.mean(0)))
    return space, Base(space(torch.from_numpy(kept.features)), torch.from_numpy(kept.labels))


# ----------------------------------------------------------------------------------------------------------------- networks


class DeltaEncoder(nn.Module):
    """Unit vectors x, y (n, d) -> x made again of y and a code (n, d). Section 3.1; sizes as released."""

    def __init__(self, size: int, *, hidden: int, code: int, dropout: float, residual: bool) -> None:
        super().__init__()
        self.scale, self.residual, self.code = size**0.5, residual, code
        self.encoder = nn.Sequential(
            nn.Linear(2 * size, hidden), nn.LeakyReLU(SLOPE), nn.Dropout(dropout), nn.Linear(hidden, code)
        )
        self.decoder = nn.Sequential(
            nn.Linear(size + code, hidden), nn.LeakyReLU(SLOPE), nn.Dropout(dropout), nn.Linear(hidden, size)
        )
        for layer in (*self.encoder, *self.decoder):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=INITIAL_SD)
                nn.init.zeros_(layer.bias)

    def encode(self, x: Tensor, y: Tensor) -> Tensor:
        """What must be done to y (n, d) to come to x (n, d): codes (n, code)."""
        return self.encoder(torch.cat([x, y], -1) * self.scale)

    def decode(self, y: Tensor, codes: Tensor) -> Tensor:
        """Codes (..., code) done to y (..., d), of which each may be one for many: (..., d), of length 1 where residual."""
        first, act, drop, last = self.decoder
        size = y.shape[-1]
        # The first layer in two parts: of many codes on one picture, the picture's part is computed once.
        hidden = F.linear(y * self.scale, first.weight[:, :size], first.bias) + F.linear(codes, first.weight[:, size:])
        made = last(drop(act(hidden))) / self.scale
        return F.normalize(y + made, dim=-1) if self.residual else made

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.decode(y, self.encode(x, y))


# --------------------------------------------------------------------------------------------------------------------- loss


def weighted_l1(found: Tensor, wanted: Tensor, *, detached: bool) -> Tensor:
    """The paper's loss: absolute differences, each weighing by its own square. (n, d), (n, d) -> ().

    In the released code the gradient goes through the weights as well, of which the paper says nothing; `detached` stops it.
    """
    apart = (wanted - found).abs()
    weights = apart.square() / (apart.square().sum(1, keepdim=True) + 1e-7)
    return ((weights.detach() if detached else weights) * apart).sum(1).mean()


def loss_of(network: DeltaEncoder, x: Tensor, y: Tensor, *, detached: bool) -> Tensor:
    made = network(x, y)
    worst = weighted_l1(made * network.scale, x * network.scale, detached=detached)
    # On the sphere the angle is what is asked of a made-up picture; the paper's loss beside it keeps the worst numbers in check.
    return (1 - F.cosine_similarity(made, x)).mean() + 0.1 * worst if network.residual else worst


# ---------------------------------------------------------------------------------------------------------------- synthesis


@torch.no_grad()
def codes_of(network: DeltaEncoder, base: Base, positions: tuple[Tensor, Tensor]) -> Tensor:
    """Codes (m, code) of pairs of base pictures, as `Base.pairs` draws them."""
    x, y = positions
    return network.eval().encode(base.vectors[x], base.vectors[y])


@torch.no_grad()
def synthesise(network: DeltaEncoder, shots: Tensor, codes: Tensor) -> Tensor:
    """Codes (m, code), or (n, m, code) of each shot's own, decoded on shots (n, d) -> unit length (n, m, d)."""
    network.eval()
    own = codes if codes.ndim == 3 else codes.expand(len(shots), -1, -1)
    return torch.stack([F.normalize(network.decode(shot, its), dim=-1) for shot, its in zip(shots, own, strict=True)])


def linear_classifier(
    vectors: Tensor, labels: Tensor, ways: int, *, steps: int, batch: int = 100, rate: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """The paper's classifier (section 3.2), of many episodes at once: softmax regression by Adam, of which the last step is kept.

    vectors (e, n, d), labels (n,) the same in all episodes -> weights (e, ways, d), biases (e, ways). The released code takes 25
    epochs of batches of 100: with 1,024 pictures of five classes, 1,280 steps.
    """
    episodes, count, size = vectors.shape
    generator = torch.Generator().manual_seed(0)
    scale = size**0.5  # the rate was set for features of about 1 a number
    matrix = (INITIAL_SD * torch.randn(1, ways, size, generator=generator)).repeat(episodes, 1, 1)
    values = (matrix, torch.zeros(episodes, ways))
    means, squares = ([torch.zeros_like(value) for value in values] for _ in range(2))
    wanted, order = F.one_hot(labels, ways).float(), torch.empty(0, dtype=torch.int64)
    for step in range(1, steps + 1):
        if len(order) == 0:
            order = torch.randperm(count, generator=generator)
        rows, order = order[:batch], order[batch:]
        inputs = vectors[:, rows].float() * scale
        share = torch.baddbmm(values[1][:, None], inputs, matrix.transpose(1, 2)).softmax(-1)
        error = (share - wanted[rows]) / len(rows)  # (e, batch, ways)
        slopes = (error.transpose(1, 2) @ inputs, error.sum(1))
        for value, slope, mean, square in zip(values, slopes, means, squares, strict=True):  # Adam, of many models at once
            mean.lerp_(slope, 0.1)
            square.lerp_(slope.square(), 0.001)
            length = (square / (1 - 0.999**step)).sqrt_().add_(1e-8)
            value.addcdiv_(mean / (1 - 0.9**step), length, value=-rate)
    return matrix * scale, values[1]


# --------------------------------------------------------------------------------------------------------------------- loop


def epoch_of(base: Base, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Each picture once as x, with another of its class as y: a random circle through each class."""
    shuffled = torch.randperm(len(base.labels), generator=generator)
    x = shuffled[torch.argsort(base.labels[shuffled], stable=True)]  # classes together, in random order within
    counts = base.counts
    starts = (torch.cumsum(counts, 0) - counts)[base.labels[x]]
    y = x[starts + (torch.arange(len(x)) - starts + 1) % counts[base.labels[x]]]
    order = torch.randperm(len(x), generator=generator)
    order = order[(counts > 1)[base.labels[x[order]]]]  # a class of one picture has no pairs
    for part in order.split(batch):
        yield x[part], y[part]


def network_of(config: Config, size: int) -> DeltaEncoder:
    return DeltaEncoder(size, hidden=config.hidden, code=config.code, dropout=config.dropout, residual=config.residual)


def train(config: Config) -> DeltaEncoder:
    """The network of a run: trained, gone on with, or read where it is finished. ValueError for another run's folder."""
    found = features.read(config.features)
    torch.manual_seed(config.seed)
    space, base = learnt_from(found)
    judged = judged_pairs(found, space)
    network = network_of(config, base.vectors.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=config.weight_decay)
    state: dict[str, Any] = {"step": 0, "epoch": 0, "rate": config.rate, "reference": None}
    if config.start_from:
        network.load_state_dict(run.without_prefix("network", load_file(config.start_from)))
    check_folder(config)
    folder = run.RunFolder(config.run, config)
    if saved := folder.load(torch.device("cpu")):
        tensors, state = saved
        network.load_state_dict(run.without_prefix("network", tensors))
        run.unpack_optimizer(optimizer, tensors)
    last_save = time.monotonic()

    with tqdm(total=config.steps, initial=state["step"], desc=config.run.name, mininterval=10) as bar:
        while state["step"] < config.steps:
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state["epoch"])  # whether or not interrupted
            torch.manual_seed(config.seed * 1_000_003 + state["epoch"])  # dropout's
            optimizer.param_groups[0]["lr"] = state["rate"]
            network.train()
            values = []
            for x, y in epoch_of(base, config.batch, generator):
                loss = loss_of(network, base.vectors[x], base.vectors[y], detached=config.detached)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                values.append(float(loss.detach()))
            mean = float(np.mean(values))
            state["step"] += len(values)
            state["epoch"] += 1
            if state["reference"] is None:
                state["reference"] = mean
            elif mean > state["reference"]:  # as released: what it is compared with stays what it was
                state["rate"] *= 0.9
            else:
                state["reference"] = mean
            bar.update(len(values))
            folder.log(step=state["step"], loss=mean, rate=state["rate"], **judge(network, judged, config))
            if state["step"] >= config.steps or time.monotonic() - last_save > CHECKPOINT_S:
                folder.save(run.prefixed("network", network.state_dict()) | run.pack_optimizer(optimizer), state)
                last_save = time.monotonic()
    if config.meta_steps and not state.get("taught"):
        folder.log(step=state["step"] + config.meta_steps, **teach_mean_and_spread(network, base, config))
        folder.save(run.prefixed("network", network.state_dict()), state | {"taught": True})
    return network.eval()


def teach_mean_and_spread(network: DeltaEncoder, base: Base, config: Config) -> dict[str, float]:
    """Ours, after training: what is made of one shot should have the mean and the spread of its class.

    An auto-encoder is asked for one picture at a time, so nothing asks what is made of many codes to lie where a class does. The
    codes stay as they are learnt; only the decoder is taught. -> the last terms of the loss
    """
    generator = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)
    codes = codes_of(network, base, base.pairs(STORED_CODES, generator))
    optimizer = torch.optim.AdamW(network.decoder.parameters(), lr=META_RATE, weight_decay=config.weight_decay)
    means, spreads = statistics_of(base)
    terms: dict[str, float] = {}
    network.train()
    for _ in tqdm(range(config.meta_steps), desc=f"{config.run.name} mean and spread", mininterval=10):
        rows = torch.randint(len(base.labels), (META_SHOTS,), generator=generator)
        rows = rows[(base.counts > 1)[base.labels[rows]]]
        drawn = codes[torch.randint(len(codes), (META_CODES,), generator=generator)]
        made = F.normalize(network.decode(base.vectors[rows, None], drawn[None]), dim=-1)  # (shots, codes, d)
        centre = F.normalize(made.mean(1), dim=-1)
        apart = (1 - (made * centre[:, None]).sum(-1)).mean(1)
        mean = (1 - (centre * means[rows]).sum(-1)).mean()
        spread = (apart - spreads[base.labels[rows]]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        (mean + SPREAD_WEIGHT * spread).backward()
        optimizer.step()
        terms = {"mean": float(mean.detach()), "spread": float(spread.detach())}
    network.eval()
    return terms


def statistics_of(base: Base) -> tuple[Tensor, Tensor]:
    """Of each picture the others' mean in its class, unit length (n, d); of each class 1 - similarity to its mean (classes,)."""
    sums = torch.zeros(len(base.counts), base.vectors.shape[1]).index_add_(0, base.labels, base.vectors)
    others = F.normalize(sums[base.labels] - base.vectors, dim=-1)
    to_mean = (base.vectors * F.normalize(sums, dim=-1)[base.labels]).sum(1)
    spreads = torch.zeros(len(base.counts)).index_add_(0, base.labels, 1 - to_mean) / base.counts.clamp(min=1)
    return others, spreads


def check_folder(config: Config) -> None:
    """A folder is of one config: gone on with under another it would be a network that no command makes."""
    path = config.run / "config.json"
    if path.exists():
        stored = json.loads(path.read_text())
        wanted = {name: plain(value) for name, value in vars(config).items() if name != "run"}
        others = {name: stored.get(name) for name, value in wanted.items() if stored.get(name) != value}
        if others:
            raise ValueError(f"{config.run} holds a run of another config: {others}")


def plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def judged_pairs(found: features.FeatureSet, space: Space) -> tuple[Tensor, Tensor]:
    """Pairs of classes that are held out: x and y (m, d)."""
    kept = found.of_classes(np.array([held_out(name) for name in found.class_names]))
    base = Base(space(torch.from_numpy(kept.features)), torch.from_numpy(kept.labels))
    x, y = base.pairs(512, torch.Generator().manual_seed(0))
    return base.vectors[x], base.vectors[y]


@torch.no_grad()
def judge(network: DeltaEncoder, judged: tuple[Tensor, Tensor], config: Config) -> dict[str, float]:
    """On classes that are held out: the loss, how alike x is to what is made of y and its code, and how alike to y itself."""
    x, y = judged
    network.eval()
    return {
        "held_out_loss": float(loss_of(network, x, y, detached=config.detached)),
        "made": float(F.cosine_similarity(network(x, y), x).mean()),
        "reference": float(F.cosine_similarity(y, x).mean()),
    }


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Train a delta-encoder on cached features.")
    train(config)
    print((config.run / "log.jsonl").read_text().splitlines()[-1])

"""Every picture through every arm, once: the arms that a command asked for, and their embeddings of items."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from training.evaluate import arms, sources
from training.evaluate.arms import Arm
from training.evaluate.items import AskedItem
from training.evaluate.rules import Rule, unit

DECODED_AT_ONCE = 64
VIEW_SHARES = (0.5, 1.0)  # of the area of a picture, where a support has several views
VIEW_ASPECTS = (3 / 4, 4 / 3)  # of a view's sides, relative to the picture's

View = Callable[[AskedItem, Image.Image], Image.Image]


@dataclass(frozen=True)
class Measured:
    """An arm as it was asked for."""

    name: str
    embed: Arm
    own_rule: Rule | None = None  # as it decides itself, beside the nearest mean
    calibrated: bool = False  # whether the scores of that rule are log-odds
    sha256: str | None = None  # of the file that it is


def measured_arms(wanted: str, items: Sequence[AskedItem], teacher: Path) -> list[Measured]:
    """The arms of `--model`, by commas; `teacher` is the file of that arm. SystemExit for one that there is not, or two of one
    name."""
    found = [_measured(one.strip(), items, teacher) for one in wanted.split(",")]
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SystemExit(f"--model: two are called {twice[0]}; NAME=PATH gives one another name")
    return found


def _measured(wanted: str, items: Sequence[AskedItem], teacher: Path) -> Measured:
    name, _, place = wanted.rpartition("=")
    path = Path(place)
    try:
        match wanted:
            case "":
                raise ValueError("it is empty")
            case "teacher":
                return Measured(wanted, arms.teacher(teacher))
            case "random":
                return Measured(wanted, arms.random_weights(_some_of(items)))
            case "histogram" | "hog":
                return Measured(wanted, arms.histogram if wanted == "histogram" else arms.hog)
        opened = arms.arm_at(path)
    except ValueError as error:
        raise SystemExit(f"--model {wanted}: {error}") from error
    sha256 = hashlib.sha256(arms.network_file(path).read_bytes()).hexdigest()
    return Measured(name or path.resolve().name, opened.embed, opened.own_rule, opened.calibrated, sha256)


def _some_of(items: Sequence[AskedItem]) -> list[Image.Image]:
    chosen = np.random.default_rng(0).permutation(len(items))[: arms.NORMS_FITTED_TO]
    return list(sources.decoded([items[position] for position in np.sort(chosen)]))


def embed_all(measured: Sequence[Measured], items: Sequence[AskedItem], positions: np.ndarray, view: View) -> list[np.ndarray]:
    """A view of the items at `positions`, by each arm: (n, d) of unit length for n items, of which the others stay 0."""
    found: list[np.ndarray] = []
    pictures = sources.decoded([items[position] for position in positions])
    for part in tqdm(np.array_split(positions, -(-len(positions) // DECODED_AT_ONCE)), desc="embedding", mininterval=5):
        seen = [view(items[position], next(pictures)) for position in part]
        vectors = [one.embed(seen) for one in measured]
        # Rows that are never asked cost nothing: the system hands out memory as it is written to.
        found = found or [np.zeros((len(items), vector.shape[1]), np.float32) for vector in vectors]
        for rows, vector in zip(found, vectors, strict=True):
            rows[part] = vector
    return found


def whole(item: AskedItem, picture: Image.Image) -> Image.Image:
    return picture


def random_crop(number: int) -> View:
    """A crop that is another for each number and picture, and the same in every run."""

    def crop(item: AskedItem, picture: Image.Image) -> Image.Image:
        seed = hashlib.sha256(f"{number} {item.id}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
        share, aspect = rng.uniform(*VIEW_SHARES), np.exp(rng.uniform(*np.log(VIEW_ASPECTS)))
        width = max(1, round(picture.width * min(1.0, np.sqrt(share * aspect))))
        height = max(1, round(picture.height * min(1.0, np.sqrt(share / aspect))))
        left, top = rng.integers(picture.width - width + 1), rng.integers(picture.height - height + 1)
        return picture.crop((int(left), int(top), int(left) + width, int(top) + height))

    return crop


def support_vectors(
    measured: Sequence[Measured], items: Sequence[AskedItem], shown: np.ndarray, wholes: Sequence[np.ndarray], views: int
) -> list[np.ndarray]:
    """By arm, the mean of `views` views of the items that are shown, unit length (n, d): the whole picture, and crops of it."""
    totals = [vectors.copy() for vectors in wholes]
    for number in range(1, views):
        for total, vectors in zip(totals, embed_all(measured, items, shown, random_crop(number)), strict=True):
            total[shown] += vectors[shown]
    return [unit(total).astype(np.float32) for total in totals]

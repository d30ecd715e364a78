"""Episodes drawn at random over any pictures: the same list for every arm, and a file that says which it was.

An episode has a few classes, some pictures of each to show, others to ask, and pictures of unknown classes. A group of pictures,
whatever counts as one photograph, is shown or asked in it, never both. The file is a line of JSON that says what it was drawn
from, and a line for each episode, so that the first so many of a list are a list too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.evaluate.episodes import hash_of
from training.evaluate.items import AskedItem

SEED = 2026


@dataclass(frozen=True)
class Plan:
    """What an episode is made of."""

    way: int
    shot: int
    queries: int  # of a class, known or unknown, or all that remain


@dataclass(frozen=True)
class Population:
    """All pictures, and which of them count as one photograph."""

    items: tuple[AskedItem, ...]
    groups: np.ndarray  # (n,) numbers from 0
    class_names: tuple[str, ...]
    labels: np.ndarray  # (n,) positions in class_names
    shown_of: tuple[np.ndarray, ...]  # by class: positions of the items that may be shown
    asked_of: tuple[np.ndarray, ...]  # likewise asked


@dataclass(frozen=True)
class Episode:
    classes: np.ndarray  # (ways,) class numbers
    shown: np.ndarray  # (ways, shots) positions of items
    asked: np.ndarray  # (q,) positions of items of these classes
    unknown: np.ndarray  # (u,) positions of items of other classes; empty where there are too few


@dataclass(frozen=True)
class EpisodeList:
    lines: tuple[str, ...]  # as the file has them: what it was drawn from, then the episodes
    episodes: tuple[Episode, ...]

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256("".join(self.lines).encode()).hexdigest()


def population_of(items: Sequence[AskedItem], groups: np.ndarray) -> Population:
    """Items and the group of each (n,)."""
    names = sorted({item.class_name for item in items})
    number_of = {name: number for number, name in enumerate(names)}
    labels = np.array([number_of[item.class_name] for item in items])

    def by_class(may: Sequence[bool]) -> tuple[np.ndarray, ...]:
        positions = np.flatnonzero(may)
        ordered = positions[np.argsort(labels[positions], kind="stable")]
        return tuple(np.split(ordered, np.searchsorted(labels[ordered], np.arange(1, len(names)))))

    shown_of, asked_of = by_class([item.may_support for item in items]), by_class([item.may_ask for item in items])
    return Population(tuple(items), groups, tuple(names), labels, shown_of, asked_of)


def can_be_shown(population: Population, shot: int) -> np.ndarray:
    """Of each class (classes,): whether there are `shot` photographs to show, and then still another one to ask."""
    found = []
    for label, asked in enumerate(population.asked_of):
        shown, in_all = photographs_of(population, label)
        found.append(shown >= shot and len(asked) > 0 and in_all > shot)
    return np.array(found)


def photographs_of(population: Population, label: int) -> tuple[int, int]:
    """How many of a class may be shown, and how many it has; what counts as one is counted once."""
    shown, asked = population.groups[population.shown_of[label]], population.groups[population.asked_of[label]]
    return len(np.unique(shown)), len(np.union1d(shown, asked))


def draw(population: Population, plan: Plan, *, usable: np.ndarray, count: int, seed: int) -> EpisodeList:
    """`count` episodes over the classes that are `usable` (classes,); the others may still be unknown ones.

    ValueError where the classes share so many photographs that an episode has nothing to ask.
    """
    rng = np.random.default_rng(seed)
    header = _header(population, plan) | {"seed": seed, "class_names": population.class_names}
    choosable = np.flatnonzero(usable)
    drawn = [_episode(population, plan, choosable, rng) for _ in range(count)]
    lines = [_line(header), *(_line({k: v.tolist() for k, v in vars(episode).items()}) for episode in drawn)]
    return EpisodeList(tuple(lines), tuple(drawn))


def unknown_classes(population: Population, way: int) -> int:
    """How many classes an episode can have as unknown ones: `way`, or 0 where so many are not left."""
    return way if sum(len(asked) > 0 for asked in population.asked_of) >= 2 * way else 0


def _episode(population: Population, plan: Plan, choosable: np.ndarray, rng: np.random.Generator) -> Episode:
    classes = np.sort(rng.permutation(choosable)[: plan.way])
    shown = np.stack([_shown(population, population.shown_of[label], plan.shot, rng) for label in classes])
    is_used = np.zeros(population.groups.max() + 1, dtype=bool)
    is_used[population.groups[shown]] = True

    def some_of(label: int) -> np.ndarray:
        positions = population.asked_of[label]
        return rng.permutation(positions[~is_used[population.groups[positions]]])[: plan.queries]

    asked = np.concatenate([some_of(label) for label in classes])
    if not len(asked):
        raise ValueError("the classes share photographs: with some of them shown, none is left to ask")
    unknown: list[np.ndarray] = []
    if wanted := unknown_classes(population, plan.way):
        for label in rng.permutation(np.setdiff1d(np.arange(len(population.class_names)), classes)):
            unknown += [found] if len(found := some_of(label)) else []
            if len(unknown) == wanted:
                break
    return Episode(classes, shown, asked, np.concatenate(unknown) if unknown else np.array([], dtype=np.int64))


def _shown(population: Population, positions: np.ndarray, shot: int, rng: np.random.Generator) -> np.ndarray:
    """One picture of each of `shot` groups, groups alike: a burst of one thing is no likelier than a lone picture."""
    shuffled = rng.permutation(positions)
    first = np.unique(population.groups[shuffled], return_index=True)[1]
    return shuffled[rng.permutation(first)[:shot]]


def write(listed: EpisodeList, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(listed.lines))


def read(file: Path, population: Population, plan: Plan, *, count: int) -> EpisodeList:
    """The first `count` episodes of a file. ValueError for other pictures, another plan, fewer episodes, or a group that is
    shown and asked in one episode."""
    with file.open() as stream:
        lines = [line for line, _ in zip(stream, range(count + 1), strict=False)]
    try:
        header, *found = [json.loads(line) for line in lines]
        drawn = tuple(Episode(**{name: np.array(value, dtype=np.int64) for name, value in one.items()}) for one in found)
        differing = [name for name, value in _header(population, plan).items() if header[name] != value]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is not an episode list") from error
    if differing:
        raise ValueError(f"it was drawn with other {', '.join(differing)} than these")
    if len(drawn) < count:
        raise ValueError(f"it has {len(drawn)} episodes, not {count}")
    for number, episode in enumerate(drawn):
        asked = np.concatenate([episode.asked, episode.unknown])
        if np.isin(population.groups[asked], population.groups[episode.shown]).any():
            raise ValueError(f"episode {number} asks what counts as a photograph that it shows")
    return EpisodeList(tuple(lines), drawn)


def _header(population: Population, plan: Plan) -> dict[str, object]:
    return {"pictures": hash_of(population.items), **asdict(plan)}


def _line(value: dict[str, object]) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


def positions_in(episodes: Sequence[Episode]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of all items that are shown, and of all that are asked or unknown, each once and sorted."""

    def all_of(parts: Iterator[np.ndarray]) -> np.ndarray:
        return np.unique(np.concatenate([part.ravel() for part in parts]))

    return all_of(e.shown for e in episodes), all_of(part for e in episodes for part in (e.asked, e.unknown))

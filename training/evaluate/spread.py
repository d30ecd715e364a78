"""Does synthesis set a class's threshold better than one number for all, or than a cohort of other things?

A class of few shots accepts by its own threshold. Here that is a line, fitted on held-out base classes for each number of shots:
the log-odds of a match by the similarity, how near the class is to a cohort (`Calibration.threshold_of` of the service) and how
alike to its shots its pictures are expected to be, which is what synthesis is asked for. An episode asks as many pictures of
other classes; a picture is accepted when any class accepts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.evaluate.feature_episodes import FeatureEpisodes
from training.evaluate.heads import Knowledge
from training.evaluate.intervals import Interval, crossed_matrices, interval_around

EPISODES, RESAMPLES = 600, 400  # each resample of each rule takes a millisecond
COHORT, COMPETING_SHARE = 2000, 0.05  # as the service's calibration has them
NEAR_TEMPERATURE = 0.1
KNOWN_ACCEPTED, FOREIGN_ACCEPTED = 0.95, 0.01
GLOBAL, SERVED, FITTED = "one global threshold", "cohort, as served", "cohort, fitted"  # what other rules are compared with


class World(Protocol):
    """What of `synthesis.World` is read."""

    @property
    def asked(self) -> dict[str, Tensor]: ...
    @property
    def shots(self) -> dict[str, Tensor]: ...
    @property
    def alike(self) -> dict[str, Tensor]: ...
    @property
    def episodes(self) -> FeatureEpisodes: ...


@dataclass(frozen=True)
class Asked:
    """Similarities of pictures to the class models of their episode, and what is known of those models."""

    known: Tensor  # (e, ways, ways, q): of each class's asked pictures (second axis of ways) to each class model (first)
    foreign: Tensor  # (e, ways, ways, q)
    known_there: Tensor  # bool (e, ways, q): whether there is such a picture
    foreign_there: Tensor
    classes: Tensor  # (e, ways)
    foreign_classes: Tensor
    class_count: int
    hints: dict[str, Tensor]  # (e, ways) by name


def asked_of(world: World, knowledge: Knowledge, shots: int) -> Asked:
    episodes = world.episodes.of_shots(shots).first(EPISODES)
    table, shown = world.asked["cl2n"], world.shots["cl2n"][episodes.shown]  # (e, ways, k, d)
    means = shown.mean(2)
    models = F.normalize(means, dim=-1)

    def similarities(asked: Tensor) -> Tensor:
        return torch.stack([
            (own @ table[rows.clamp(min=0)].flatten(0, 1).T).view(len(own), *rows.shape)
            for own, rows in zip(models, asked, strict=True)
        ])  # fmt: skip

    return Asked(
        similarities(episodes.asked), similarities(episodes.foreign_asked), episodes.asked >= 0, episodes.foreign_asked >= 0,
        episodes.classes, episodes.foreign, episodes.class_count, hints_of(world, knowledge, models, shown, episodes),
    )  # fmt: skip


def hints_of(world: World, knowledge: Knowledge, models: Tensor, shown: Tensor, episodes: FeatureEpisodes) -> dict[str, Tensor]:
    """What each class model has to say about its threshold: `cohort`, and how alike pictures of it are expected to be."""
    vectors = knowledge.base.vectors
    cohort = vectors[:: -(-len(vectors) // COHORT)]
    nearest = round(COMPETING_SHARE * len(cohort))
    centres = F.normalize(knowledge.class_means, dim=-1)
    gain, _ = knowledge.conditional(shown.shape[2], within=0.5, between=0.5)
    hints = {
        "cohort": torch.stack([(own @ cohort.T).topk(nearest).values.mean(-1) for own in models]),
        "spread of near base classes": (models @ centres.T / NEAR_TEMPERATURE).softmax(-1) @ knowledge.spreads,
        "conditional mean, closed form": ((shown.mean(2) @ gain) * models).sum(-1),
    }
    if shown.shape[2] > 1:
        others = F.normalize(shown.sum(2, keepdim=True) - shown, dim=-1)
        hints["the shots' own spread"] = (shown * others).sum(-1).mean(-1)
    return hints | {name: alike[episodes.shown].mean(2) for name, alike in world.alike.items()}


@dataclass(frozen=True)
class Rule:
    """Log-odds of a match, but for a constant: similarity and hints, each times its weight."""

    name: str
    hints: tuple[str, ...]
    weights: Tensor | None  # (1 + hints,); none: where the similarity lies between the cohort's nearest and 1

    def scores(self, similarities: Tensor, hints: dict[str, Tensor]) -> Tensor:
        """(e, ways, ...) -> (e, ways, ...)"""
        shape = (*similarities.shape[:2], *[1] * (similarities.ndim - 2))
        if self.weights is None:
            near = hints["cohort"].view(shape)
            return (similarities - near) / (1 - near)
        total = self.weights[0] * similarities
        for weight, name in zip(self.weights[1:], self.hints, strict=True):
            total = total + weight * hints[name].view(shape)
        return total


def fit_rule(name: str, hints: tuple[str, ...], asked: Asked) -> Rule:
    """Logistic regression of "of this class", own pictures and foreign ones weighing the same."""
    ways = range(asked.known.shape[1])
    own = asked.known[:, ways, ways][asked.known_there]  # (pictures,)
    there = asked.foreign_there[:, None].expand(asked.foreign.shape)
    of_own = [asked.hints[hint][:, :, None].expand(asked.known_there.shape)[asked.known_there] for hint in hints]
    of_foreign = [asked.hints[hint][:, :, None, None].expand(asked.foreign.shape)[there] for hint in hints]
    positive, negative = torch.stack([own, *of_own], 1), torch.stack([asked.foreign[there], *of_foreign], 1)
    inputs = torch.cat([positive, negative]).double()
    mean, scale = inputs.mean(0), inputs.std(0).clamp(min=1e-9)
    inputs = torch.cat([(inputs - mean) / scale, torch.ones(len(inputs), 1)], 1)
    wanted = (torch.arange(len(inputs)) < len(positive)).double()
    each = torch.where(wanted > 0, 0.5 / len(positive), 0.5 / len(negative))
    weights = torch.zeros(inputs.shape[1], dtype=torch.float64)
    for _ in range(12):  # Newton's method on a convex loss of few weights
        share = torch.sigmoid(inputs @ weights)
        slope = inputs.T @ (each * (share - wanted)) + 1e-6 * weights
        bend = (inputs * (each * share * (1 - share))[:, None]).T @ inputs + 1e-6 * torch.eye(len(weights))
        weights = weights - torch.linalg.solve(bend, slope)
    return Rule(name, hints, (weights[:-1] / scale).float())


@dataclass(frozen=True)
class Sorted:
    """Best scores of pictures by falling score, with the episode and the class of each."""

    scores: np.ndarray
    episodes: np.ndarray
    classes: np.ndarray

    @cached_property
    def rising(self) -> np.ndarray:
        return -self.scores

    def above(self, limit: float) -> int:
        """How many score so much or more."""
        return int(np.searchsorted(self.rising, -limit, side="right"))


def best_scores(rule: Rule, similarities: Tensor, there: Tensor, classes: Tensor, asked: Asked) -> Sorted:
    best = rule.scores(similarities, asked.hints).amax(1)[there].numpy()
    episodes = torch.arange(len(there))[:, None, None].expand(there.shape)[there].numpy()
    of_class = classes[:, :, None].expand(there.shape)[there].numpy()
    order = np.argsort(-best, kind="stable")
    return Sorted(best[order], episodes[order], of_class[order])


def both_sorted(rule: Rule, asked: Asked) -> tuple[Sorted, Sorted]:
    known = best_scores(rule, asked.known, asked.known_there, asked.classes, asked)
    return known, best_scores(rule, asked.foreign, asked.foreign_there, asked.foreign_classes, asked)


def line_of(known: Sorted, foreign: Sorted) -> float:
    """The score that accepts most of the known and fewest of the foreign, each share counting half."""
    lines = np.quantile(np.concatenate([known.scores, foreign.scores]), np.linspace(0.01, 0.99, 99))
    return float(max(lines, key=lambda line: (known.scores >= line).mean() - (foreign.scores >= line).mean()))


def figures(known: Sorted, foreign: Sorted, line: float, rows: np.ndarray, columns: np.ndarray) -> tuple[float, float, float]:
    """Weighted by draws of episodes (e,) and classes (c,): foreign accepted where 95 % of the known are, known accepted where
    1 % of the foreign are, and balanced accuracy at `line`."""
    of_known = np.cumsum(rows[known.episodes] * columns[known.classes])
    of_foreign = np.cumsum(rows[foreign.episodes] * columns[foreign.classes])
    if of_known[-1] == 0 or of_foreign[-1] == 0:
        return (np.nan,) * 3

    def share_above(sums: np.ndarray, pictures: Sorted, limit: float) -> float:
        count = pictures.above(limit)
        return float(sums[count - 1] / sums[-1]) if count else 0.0

    accepting = known.scores[min(int(np.searchsorted(of_known, KNOWN_ACCEPTED * of_known[-1])), len(known.scores) - 1)]
    refusing = foreign.scores[min(int(np.searchsorted(of_foreign, FOREIGN_ACCEPTED * of_foreign[-1])), len(foreign.scores) - 1)]
    balanced = (share_above(of_known, known, line) + 1 - share_above(of_foreign, foreign, line)) / 2
    return share_above(of_foreign, foreign, accepting), share_above(of_known, known, refusing), balanced


FIGURES = ("fpr95", "tpr_at_1pct", "balanced")
COMPARED = ("over_global", "over_served", "over_fitted")  # the first rules, in their order


def rules_of(asked: Asked) -> list[Rule]:
    """The two that need no synthesis, the cohort fitted, and each hint alone and beside the cohort."""
    found = [Rule(GLOBAL, (), torch.ones(1)), Rule(SERVED, ("cohort",), None), fit_rule(FITTED, ("cohort",), asked)]
    for name in asked.hints:
        if name != "cohort":
            found.append(fit_rule(name, (name,), asked))
            found.append(fit_rule(f"cohort and {name}", ("cohort", name), asked))
    return found


def report(
    chosen_on: World, reported_on: World, knowledge: Knowledge, shots: int, *, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """By rule: each figure, and its difference from those of the first three rules. Empty where no class is foreign."""
    fitted, asked = (asked_of(world, knowledge, shots) for world in (chosen_on, reported_on))
    if not asked.foreign.numel() or not fitted.foreign.numel():
        return {}
    rules = rules_of(fitted)
    lines = [line_of(*both_sorted(rule, fitted)) for rule in rules]
    judged = list(zip([both_sorted(rule, asked) for rule in rules], lines, strict=True))
    once = np.array([figures(*both, line, *ones(asked)) for both, line in judged])  # (rules, 3)
    again = np.array([[figures(*both, line, *drawn) for both, line in judged] for drawn in draws(asked, resamples)])
    found = {rule.name: entry_of(number, once, again) for number, rule in enumerate(rules)}
    for name, entry in found.items():
        print(f"{shots} shots: {row_of(name, entry)}", flush=True)
    return found


def ones(asked: Asked) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(len(asked.classes)), np.ones(asked.class_count)


def draws(asked: Asked, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rows, columns = crossed_matrices(len(asked.classes), asked.class_count)
    yield from zip(rows[:count], columns[:count], strict=True)


def entry_of(number: int, once: np.ndarray, again: np.ndarray) -> dict[str, Any]:
    """`once` (rules, figures), `again` (resamples, rules, figures); the rules as `rules_of` has them."""
    entry: dict[str, Any] = {}
    for column, figure in enumerate(FIGURES):
        own, drawn = once[:, column], again[:, :, column]
        entry[figure] = interval_around(own[number], iter(drawn[:, number])).numbers()
        for other, name in enumerate(COMPARED):
            entry[f"{figure}_{name}"] = interval_around(
                own[number] - own[other], iter(drawn[:, number] - drawn[:, other])
            ).numbers()
    return entry


def row_of(name: str, entry: dict[str, Any]) -> str:
    shown = [figure + suffix for figure in FIGURES for suffix in ("", *(f"_{name}" for name in COMPARED))]
    cells = [f"{100 * entry[key]['mean']:.1f}" if key in FIGURES else str(Interval(**entry[key])) for key in shown]
    return f"| {name} | " + " | ".join(cells) + " |"

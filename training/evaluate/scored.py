"""What arms made of the episodes of one list, and its figures: accuracy, unknown classes, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluate import open_set
from training.evaluate.draws import EpisodeList, Population
from training.evaluate.intervals import Interval, over_episodes
from training.evaluate.rules import Rule, probabilities_of

SCORED_AT_ONCE = 4096  # queries; bounds the memory where there are thousands of classes


@dataclass(frozen=True)
class Scored:
    """What one arm made of the episodes by one rule; a list has an entry for each episode."""

    right: list[np.ndarray]  # (q,) 1 where the highest score is that of the true class
    below: list[np.ndarray]  # (q,) share of the unknown pictures that score lower; empty lists without unknown classes
    accepted: list[np.ndarray]  # (u,) 1 where an unknown picture is accepted on the line that accepts 95 % of the known
    roc: list[np.ndarray]  # (ROC_POINTS,)
    best: list[np.ndarray]  # (q + u,) highest scores


def score(rule: Rule, population: Population, listed: EpisodeList, queries: np.ndarray, supports: np.ndarray) -> Scored:
    """Every episode by one rule, of embeddings (n, d) of all items, as queries and as supports."""
    scored = Scored([], [], [], [], [])
    for episode in listed.episodes:
        scores = rule.enrol(supports, episode.shown)
        asked = np.concatenate([episode.asked, episode.unknown])
        starts = range(0, len(asked), SCORED_AT_ONCE)
        parts = [scores(queries[asked[start : start + SCORED_AT_ONCE]]) for start in starts]
        answers = np.concatenate([part.argmax(1) for part in parts])
        best = np.concatenate([part.max(1) for part in parts])
        known, unknown = np.split(best, [len(episode.asked)])
        scored.right.append(episode.classes[answers[: len(known)]] == population.labels[episode.asked])
        scored.best.append(best.astype(np.float32))
        if len(unknown):
            scored.below.append(open_set.shares_below(known, unknown).astype(np.float32))
            scored.accepted.append(open_set.accepted_unknown(known, unknown))
            scored.roc.append(open_set.roc(known, unknown))
    return scored


class Figures:
    """Intervals over the episodes of one list."""

    def __init__(self, population: Population, listed: EpisodeList) -> None:
        self._classes = len(population.class_names)
        with_unknown = [episode for episode in listed.episodes if len(episode.unknown)]
        self._asked = [population.labels[episode.asked] for episode in listed.episodes]
        self._known = [population.labels[episode.asked] for episode in with_unknown]
        self._unknown = [population.labels[episode.unknown] for episode in with_unknown]

    def accuracy(self, right: list[np.ndarray]) -> Interval:
        return over_episodes(right, self._asked, self._classes)

    def auroc(self, below: list[np.ndarray]) -> Interval | None:
        return over_episodes(below, self._known, self._classes) if below else None

    def false_accepts(self, accepted: list[np.ndarray]) -> Interval | None:
        return over_episodes(accepted, self._unknown, self._classes) if accepted else None

    def of(self, scored: Scored) -> dict[str, Any]:
        return {
            "accuracy": self.accuracy(scored.right).numbers(),
            "auroc": _numbers(self.auroc(scored.below)),
            "fpr_at_95_tpr": _numbers(self.false_accepts(scored.accepted)),
            "roc": np.mean(scored.roc, 0).round(4).tolist() if scored.roc else None,
        }

    def difference(self, one: Scored, other: Scored) -> dict[str, Any]:
        """Paired: of the same pictures in the same episodes."""
        right = [a.astype(np.float32) - b for a, b in zip(one.right, other.right, strict=True)]
        below = [a - b for a, b in zip(one.below, other.below, strict=True)]
        return {"accuracy": self.accuracy(right).numbers(), "auroc": _numbers(self.auroc(below))}


def _numbers(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval.numbers()


def calibration_of(scored: Scored) -> dict[str, Any]:
    """Of the rule of a model set, whose scores are log-odds: unknown pictures count, and are never right."""
    right = [np.append(r, np.zeros(len(best) - len(r))) for r, best in zip(scored.right, scored.best, strict=True)]
    bins = open_set.reliability(probabilities_of(np.concatenate(scored.best)), np.concatenate(right))
    rounded = [{name: round(value, 4) for name, value in part.items()} for part in bins]
    return {"ece": round(open_set.calibration_error(bins), 4), "reliability": rounded}

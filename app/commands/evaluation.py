"""What an evaluation has seen, and what follows from it. No service and no file is touched here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from app.client import Answer
from app.domain.scoring import CurvePoint, Interval, interval_of, precision_at, precision_recall, threshold_for

WANTED_RECALL = 0.9
FALSE_ACCEPTS = 0.01  # of the pictures of other things, that a suggested threshold lets through
FEWEST_PICTURES = 3  # of a class, before a threshold is suggested for it
PICTURES_OF_A_PAIR = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture, what it shows, and what was answered."""

    file: Path
    truth: str | None  # None: nothing that is enrolled
    answer: Answer

    @property
    def first(self) -> str | None:
        return self.answer.candidates[0].class_name if self.answer.candidates else None

    @property
    def probability(self) -> float:
        return self.answer.candidates[0].probability if self.answer.candidates else 0.0


@dataclass(frozen=True, slots=True)
class ClassRow:
    """How the pictures of one class were answered, and how many others were taken for it."""

    class_name: str
    pictures: int
    right: int
    wrong: int
    doubtful: int
    unknown: int
    taken_for_it: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pictures of one class, or of nothing enrolled, that were matched as another."""

    truth: str | None
    said: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A threshold that at most FALSE_ACCEPTS of the other pictures reach, and the share of its own that does.

    There is one where that is higher than the one that holds, or lower and more of its own would be accepted.
    """

    class_name: str
    threshold: float
    now: float
    own_accepted: float
    own_accepted_now: float


@dataclass(frozen=True, slots=True)
class Shots:
    """With so many examples a class: the share of pictures matched right."""

    examples: int
    right: Interval


@dataclass(frozen=True)
class Evaluation:
    asked: Sequence[Asked]
    shots: Sequence[Shots] = ()
    failed: Mapping[str, str] | None = None  # file -> why it could not be asked

    @cached_property
    def known(self) -> list[Asked]:
        return [one for one in self.asked if one.truth is not None]

    @cached_property
    def foreign(self) -> list[Asked]:
        return [one for one in self.asked if one.truth is None]

    @property
    def recall(self) -> Interval | None:
        """Pictures of classes that were matched right."""
        return interval_of(sum(one.answer.decision == one.truth for one in self.known), len(self.known))

    @property
    def precision(self) -> Interval | None:
        """Matches that are right, of all matches."""
        matched = [one for one in self.asked if one.answer.decision is not None]
        return interval_of(sum(one.answer.decision == one.truth for one in matched), len(matched))

    @property
    def first_right(self) -> Interval | None:
        """Pictures of classes whose first candidate is right, accepted or not."""
        return interval_of(sum(one.first == one.truth for one in self.known), len(self.known))

    @property
    def false_accepts(self) -> Interval | None:
        """Foreign pictures that were matched."""
        return interval_of(sum(one.answer.decision is not None for one in self.foreign), len(self.foreign))

    @cached_property
    def curve(self) -> list[CurvePoint]:
        answers = [(one.probability, one.truth is not None and one.first == one.truth) for one in self.asked if one.first]
        return precision_recall(answers, known=len(self.known))

    @property
    def at_wanted_recall(self) -> CurvePoint | None:
        return precision_at(self.curve, recall=WANTED_RECALL)

    @cached_property
    def rows(self) -> list[ClassRow]:
        by_class: dict[str, Counter[str]] = defaultdict(Counter)
        taken = Counter(one.answer.decision for one in self.asked if one.answer.decision not in (None, one.truth))
        for one in self.known:
            by_class[one.truth or ""][_verdict(one)] += 1
        return [
            ClassRow(name, counts.total(), counts["right"], counts["wrong"], counts["doubtful"], counts["unknown"], taken[name])
            for name, counts in sorted(by_class.items())
        ]

    @cached_property
    def confusions(self) -> list[Confusion]:
        """The most frequent first."""
        files: dict[tuple[str | None, str], list[Path]] = defaultdict(list)
        for one in self.asked:
            if one.answer.decision is not None and one.answer.decision != one.truth:
                files[one.truth, one.answer.decision].append(one.file)
        found = [Confusion(truth, said, tuple(of_pair)) for (truth, said), of_pair in files.items()]
        return sorted(found, key=lambda pair: (-len(pair.files), pair.truth or "", pair.said))

    @cached_property
    def suggestions(self) -> list[Suggestion]:
        """For classes with enough pictures, where another threshold than the one that holds follows."""
        found = [self._suggestion(name) for name in sorted({one.truth for one in self.known if one.truth})]
        return [one for one in found if one is not None]

    def _suggestion(self, name: str) -> Suggestion | None:
        own = [_similarity(one.answer, name) for one in self.asked if one.truth == name]
        others = [_similarity(one.answer, name) for one in self.asked if one.truth != name]
        now = next((c.threshold for one in self.asked for c in one.answer.candidates if c.class_name == name), None)
        threshold = threshold_for(others, false_accepts=FALSE_ACCEPTS)
        if threshold is None or now is None or len(own) < FEWEST_PICTURES or round(threshold, 2) == round(now, 2):
            return None
        accepted, accepted_now = (sum(similarity >= line for similarity in own) / len(own) for line in (threshold, now))
        if threshold < now and accepted == accepted_now:  # it would let more in, and nothing here says that it is worth that
            return None
        return Suggestion(name, round(threshold, 3), now, accepted, accepted_now)

    def as_json(self) -> dict[str, Any]:
        """Everything but the answers themselves; shares with their intervals."""
        return {
            "pictures": len(self.known),
            "foreign": len(self.foreign),
            "failed": dict(self.failed or {}),
            "recall": _shown(self.recall),
            "precision": _shown(self.precision),
            "first_right": _shown(self.first_right),
            "false_accepts": _shown(self.false_accepts),
            "precision_at_recall": {"recall": WANTED_RECALL, "reached": _shown(self.at_wanted_recall)},
            "curve": [asdict(point) for point in self.curve],
            "classes": [asdict(row) for row in self.rows],
            "confusions": [
                {"truth": pair.truth, "said": pair.said, "files": [str(file) for file in pair.files]} for pair in self.confusions
            ],
            "shots": [{"examples": one.examples, "right": asdict(one.right)} for one in self.shots],
            "suggestions": [asdict(one) for one in self.suggestions],
        }


def _verdict(one: Asked) -> str:
    if one.answer.decision is None:
        return one.answer.outcome
    return "right" if one.answer.decision == one.truth else "wrong"


def _similarity(answer: Answer, class_name: str) -> float:
    """To a class. An answer has its best hundred; what is not among them is taken for as alike as the least alike that is."""
    similarities = {candidate.class_name: candidate.similarity for candidate in answer.candidates}
    return similarities.get(class_name, min(similarities.values(), default=-1.0))


def _shown(value: Interval | CurvePoint | None) -> dict[str, float] | None:
    return None if value is None else asdict(value)

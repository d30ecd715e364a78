"""Result files: every figure of a run, and how often its set has now been scored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from app.domain.values import Answer, Outcome

ANSWERS = ("right", "wrong", "doubtful", "unknown")


def write_counted(out: Path, result: Mapping[str, object]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(out.read_text())["times_scored"] if out.exists() else 0
    out.write_text(json.dumps(dict(result) | {"times_scored": before + 1}, indent=2) + "\n")


def kind_of(answer: Answer, truth: str | None) -> str:
    """`right`, `wrong`, `doubtful` or `unknown`; every match of a foreign picture (truth None) is wrong."""
    if answer.outcome is Outcome.MATCH:
        return "right" if answer.decision == truth else "wrong"
    return str(answer.outcome)


def shares(kinds: Iterable[str]) -> dict[str, float]:
    counts = Counter(kinds)
    return {name: round(counts[name] / max(1, counts.total()), 4) for name in ANSWERS}

"""Answers are counted as what they are, and runs are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.domain.values import Answer, Outcome
from training.evaluate.results import kind_of, shares, write_counted


def answer(outcome: Outcome, decision: str | None) -> Answer:
    return Answer(outcome, decision, None, (), version=1, model="m")


@pytest.mark.parametrize(
    ("given", "truth", "counted"),
    [
        (answer(Outcome.MATCH, "acme"), "acme", "right"),
        (answer(Outcome.MATCH, "acme"), "other", "wrong"),
        (answer(Outcome.MATCH, "acme"), None, "wrong"),
        (answer(Outcome.DOUBTFUL, None), "acme", "doubtful"),
        (answer(Outcome.UNKNOWN, None), None, "unknown"),
    ],
)
def test_a_match_is_right_only_for_the_true_class(given: Answer, truth: str | None, counted: str) -> None:
    assert kind_of(given, truth) == counted


def test_shares_add_up_and_name_every_answer() -> None:
    assert shares(["right", "right", "unknown", "right"]) == {"right": 0.75, "wrong": 0.0, "doubtful": 0.0, "unknown": 0.25}
    assert sum(shares([]).values()) == 0


def test_each_writing_of_a_result_counts_as_a_scoring(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        write_counted(tmp_path / "new" / "r.json", {"figure": expected})
        assert json.loads((tmp_path / "new" / "r.json").read_text()) == {"figure": expected, "times_scored": expected}

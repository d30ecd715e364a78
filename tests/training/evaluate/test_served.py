"""Answers of the service are counted as what they are."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from training.evaluate.served import foreign_packs, outcome_of, shares


@pytest.mark.parametrize(
    ("outcome", "decision", "truth", "counted"),
    [
        ("match", "acme", "acme", "right"),
        ("match", "acme", "other", "wrong"),
        ("match", "acme", None, "wrong"),
        ("doubtful", None, "acme", "doubtful"),
        ("unknown", None, None, "unknown"),
    ],
)
def test_a_match_is_right_only_for_the_true_class(outcome: str, decision: str | None, truth: str | None, counted: str) -> None:
    assert outcome_of({"outcome": outcome, "decision": decision}, truth) == counted


@pytest.mark.parametrize("pack", ["flickrlogos27-dev", "grocery-store", "grozi120-dev"])
def test_foreign_pictures_show_no_class_of_the_task_and_are_none_of_the_calibration(pack: str) -> None:
    assert "caltech101-dev" not in foreign_packs(pack)
    assert ("grocery-store" in foreign_packs(pack)) == (pack != "grocery-store")
    assert "flickrlogos27-dev" in foreign_packs(pack)  # its photographs without a brand


def test_shares_add_up_and_name_every_answer() -> None:
    found = shares(Counter({"right": 3, "unknown": 1}))
    assert found == {"right": 0.75, "wrong": 0.0, "doubtful": 0.0, "unknown": 0.25}

"""Drawings hold every arm and stay small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the extra `training` is not installed")

from training.evaluate import plots

INTERVAL = {"mean": 0.6, "low": 0.5, "high": 0.7}
CURVE = [step / 100 for step in range(101)]
PLAIN = {"accuracy": INTERVAL, "auroc": INTERVAL, "roc": CURVE, "ece": None, "own_rule": None}
BINS = [{"probability": n / 15, "right": n / 20, "answers": 9} for n in range(15)]

NOTHING = {"pooled_ap50_repeats_ignored": {"mean": 0.0, "low": 0.0, "high": 0.0}, "curve": {"recall": [], "precision": []}}
FOUND = {"pooled_ap50_repeats_ignored": INTERVAL, "curve": {"recall": [0.1, 0.6], "precision": [1.0, 0.5]}}
OLDER = {"pooled_ap50_repeats_ignored": INTERVAL}
DETECTED = {"detect": {"repmet": FOUND, "quads": OLDER, "blind": NOTHING}}


def result(shots: int, **changes: Any) -> dict[str, Any]:
    served = {"accuracy": INTERVAL, "auroc": INTERVAL, "roc": CURVE, "ece": 0.03, "reliability": BINS}
    return {
        "data": "d", "split": None, "support": None, "support_split": None, "way": 5, "views": 1, "shots": shots,
        "no_unknown_classes_because": "none are left",
        "classify": {"models": PLAIN | {"own_rule": served}, "hog": PLAIN},
    } | changes  # fmt: skip


def test_every_drawing_appears_names_the_arms_and_is_small(tmp_path: Path) -> None:
    plots.shot_curve([result(5), result(1), result(10)], tmp_path / "new" / "shots.svg")
    plots.roc(result(1), tmp_path / "roc.svg")
    plots.reliability(result(1), tmp_path / "reliability.svg")
    plots.roc(result(1), tmp_path / "roc.png")
    plots.precision_recall(DETECTED, tmp_path / "curves.svg")
    for name, words in (
        ("new/shots.svg", ("models", "hog", "accuracy in percent, 5-way")),
        ("roc.svg", ("models, own rule, area 60.0", "hog, area 60.0")),
        ("reliability.svg", ("models, calibration error 3.0",)),
        ("curves.svg", ("repmet, AP50 60.0", "blind, AP50 0.0")),
    ):
        drawn = (tmp_path / name).read_text()
        assert all(word in drawn for word in words)
    assert all(file.stat().st_size < 60_000 for file in tmp_path.rglob("*.*"))


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.svg", "other.svg"):
        plots.roc(result(1), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_what_a_result_does_not_have_is_not_drawn(tmp_path: Path) -> None:
    plain = {"classify": {"hog": PLAIN | {"roc": None}}}
    with pytest.raises(ValueError, match="no unknown classes: none are left"):
        plots.roc(result(1, **plain), tmp_path / "x.svg")
    with pytest.raises(ValueError, match="no model set"):
        plots.reliability(result(1, **plain), tmp_path / "x.svg")
    with pytest.raises(ValueError, match="of one task, these are 2"):
        plots.shot_curve([result(1), result(5, way=20)], tmp_path / "x.svg")
    with pytest.raises(ValueError, match="no precision-recall curves"):
        plots.precision_recall({"detect": {"quads": OLDER}}, tmp_path / "x.svg")
    assert not list(tmp_path.iterdir())

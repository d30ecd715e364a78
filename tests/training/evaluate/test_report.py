"""The accuracy page says what the evaluations found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from training.evaluate import report

NUMBERS = {"mean": 0.5, "low": 0.4, "high": 0.6}
PLAIN = {
    "pack": "p", "way": 12, "shots": 1, "episodes": 500, "times_scored": 2,
    "arms": {"shipped": NUMBERS, "hog": {"mean": 0.458, "low": 0.451, "high": 0.465}},
    "differences": {"shipped - hog": {"mean": 0.042, "low": 0.01, "high": 0.07}},
}  # fmt: skip
ANSWERS = {"right": 0.6, "wrong": 0.1, "doubtful": 0.2, "unknown": 0.1}
SERVED = {
    "pack": "p",
    "way": 12,
    "shots": 1,
    "episodes": 10,
    "times_scored": 3,
    "top_1": NUMBERS,
    "answers": ANSWERS,
    "foreign": {"packs": ["f"]} | ANSWERS,
}


def test_the_page_holds_each_figure_its_interval_and_how_often_it_was_scored(tmp_path: Path) -> None:
    for name, result in {"a": PLAIN, "b": SERVED}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    report.main(["--results", str(tmp_path), "--out", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert "| p, 12-way 1-shot | 50.0 [40.0, 60.0] | 45.8 [45.1, 46.5] | 500 | 2 times |" in page
    assert "| p, 12-way 1-shot | 4.2 [1.0, 7.0] |" in page
    assert "| p, 12-way 1-shot | 50.0 [40.0, 60.0] | 60.0 | 10.0 | 20.0 | 10.0 | 10.0 | 20.0 | 10 | 3 times |" in page


def test_the_committed_page_is_the_one_that_the_committed_results_make() -> None:
    docs = Path(__file__).parents[3] / "docs"
    results = [json.loads(path.read_text()) for path in sorted((docs / "accuracy").glob("*.json"))]
    assert (docs / "accuracy.md").read_text() == report.page(results)

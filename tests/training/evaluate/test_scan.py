"""The line is drawn at the stated share of foreign pictures, and what is accepted can be looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.domain.values import Answer, Candidate, Evidence, Outcome, Verified
from tests.model_sets import write_model_set
from tests.training.packs import draw_scan_packs, print_of
from training.evaluate import episodes, scan
from training.evaluate.quad_sheet import RIGHT, WRONG, Seen, write_sheet

QUAD = ((1.0, 2.0), (30.0, 2.0), (30.0, 40.0), (1.0, 40.0))


def found(*, top_1: list[float], probabilities: list[float], foreign: list[float]) -> scan.Scored:
    count = len(top_1)
    return scan.Scored(
        top_1=np.array(top_1),
        kinds=np.array(["right"] * count),
        probabilities=np.array(probabilities),
        foreign=np.array(foreign),
        foreign_kinds=np.array(["unknown"] * len(foreign)),
        objects=np.arange(count),
        sources=np.array(["beer"] * count),
    )


def test_a_share_of_foreign_pictures_lies_above_the_line() -> None:
    foreign = np.random.default_rng(0).permutation(np.arange(200) / 200)
    for rate, above in ((0.0, 0), (0.01, 2), (0.1, 20)):
        assert (foreign > scan.line_at(foreign, rate)).sum() == above
    assert (np.ones(200) > scan.line_at(np.ones(200), 0.1)).sum() == 0  # of equals none, rather than all


def test_accepted_and_right_by_hand() -> None:
    scored = found(top_1=[1, 1, 0, 1], probabilities=[0.9, 0.4, 0.8, 0.6], foreign=[0.7] + [0.5] * 99)
    assert scan.accepted_at(scored, 0.0) == {"foreign": 0.0, "right": 0.25, "wrong": 0.25}
    assert scan.accepted_at(scored, 0.01) == {"foreign": 0.01, "right": 0.5, "wrong": 0.25}
    interval = scan.right_at_rate(scored, 0.01)
    assert interval.mean == 0.5
    assert interval.low < 0.5 < interval.high


def candidate(name: str, *verified: Verified | None) -> Candidate:
    evidence = tuple(Evidence(str(n), 0.5, proof) for n, proof in enumerate(verified))
    return Candidate(name, 0.5, 0.5, accepted=True, threshold=0.4, evidence=evidence)


def test_the_quad_is_that_of_the_decision() -> None:
    proof, other = Verified(9, 0.5, QUAD), Verified(5, 0.1, ((0.0, 0.0),) * 4)
    candidates = (candidate("first", other), candidate("decided", None, proof))
    assert scan.quad_of(Answer(Outcome.MATCH, "decided", None, candidates, 1, "m")) == QUAD
    assert scan.quad_of(Answer(Outcome.DOUBTFUL, None, None, candidates, 1, "m")) is None
    assert scan.quad_of(Answer(Outcome.MATCH, "decided", None, (candidate("decided", None),), 1, "m")) is None


def test_a_sheet_shows_each_quad_in_its_picture(tmp_path: Path) -> None:
    seen = [Seen(f"q{n}", "pack/thing", n != 1, QUAD, print_of(n), print_of(n)) for n in range(8)]
    write_sheet(seen, tmp_path)
    listed = json.loads((tmp_path / "quads.json").read_text())
    assert [(one["number"], one["right"]) for one in listed] == [(n, n != 1) for n in range(8)]
    with Image.open(tmp_path / "quads.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(2**24) or []}
    assert {tuple(int(code[part : part + 2], 16) for part in (1, 3, 5)) for code in (RIGHT, WRONG)} <= colours


def test_a_scan_is_scored_whole_and_a_sample_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_scan_packs(tmp_path)
    monkeypatch.setattr(episodes, "FOLDER", tmp_path)
    episodes.scan_file().write_text(json.dumps(episodes.draw_scan(tmp_path)))
    models = write_model_set(tmp_path / "models")
    flags = {"--data": tmp_path, "--models": models, "--run": tmp_path / "run", "--results": tmp_path / "results"}
    arguments = [str(part) for flag in flags.items() for part in flag]

    scan.main([*arguments, "--sample", "2"])
    assert not (tmp_path / "results").exists()
    assert (tmp_path / "run" / "quads.png").exists()

    scan.main(arguments)
    result = json.loads((tmp_path / "results" / "scan.json").read_text())
    assert (result["enrolled"], result["objects"], result["asked"], result["foreign"]["pictures"]) == (5, 3, 6, 5)
    for figures in result["scan"].values():
        assert figures["top_1"]["mean"] == 1.0  # the photographs are the very scans
        assert figures["by_source"]["smvsdvd"]["pictures"] == 6
        assert [point["foreign"] for point in figures["trade_off"]] == list(scan.RATES)
    assert result["differences"]["always - off"]["mean"] == 0.0

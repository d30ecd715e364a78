"""Foreign pictures are counted one by one, and galleries have as many classes as is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.domain.values import Answer, Outcome
from tests.model_sets import write_model_set
from tests.training.packs import draw_foreign_packs, mark, print_of, write_zip
from training.evaluate import episodes, false_accepts
from training.evaluate.episodes import Episodes, EpisodeSet

PACK = "grozi120-dev"


def answer(decision: str | None) -> Answer:
    return Answer(Outcome.UNKNOWN if decision is None else Outcome.MATCH, decision, None, (), 1, "m")


def test_shares_by_hand() -> None:
    found = false_accepts.Answered(
        truths=[["a", "a", "b"], ["b", "b"]],
        answers=[[answer("a"), answer(None), answer("b")], [answer("a"), answer("b")]],
        foreign=[[answer(None), answer("a"), answer(None), answer(None)], [answer("b"), answer("b"), answer(None), answer(None)]],
    )
    figures = false_accepts.figures_of(found, ["a", "b"])
    # a: half of its pictures in the one episode that has it; b: all, and half.
    assert figures["accepted_right"]["mean"] == pytest.approx((0.5 + 1 + 0.5) / 3, abs=1e-4)
    assert figures["answers"] == {"right": 0.6, "wrong": 0.2, "doubtful": 0.0, "unknown": 0.2}
    assert figures["foreign"] == {"right": 0.0, "wrong": 0.375, "doubtful": 0.0, "unknown": 0.625}
    assert figures["foreign_matched"]["mean"] == 0.375
    assert figures["foreign_matched"]["high"] <= 0.875  # resampled are the four pictures, not the eight answers


def test_fewer_classes_than_the_pack_has_are_drawn_anew_in_each_episode() -> None:
    listed = Episodes((), np.zeros((2, 0, 1)), tuple(f"class {n}" for n in range(20)))
    first, second = (false_accepts.enrolled_names(listed, 5, episode) for episode in (0, 1))
    assert len(set(first)) == 5
    assert first != second
    assert false_accepts.enrolled_names(listed, 50, 0) == list(listed.class_names)


def test_a_pack_is_scored_with_others_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_foreign_packs(tmp_path)
    shelf = {
        f"{split}/thing-{c}/{split}{n}.webp": print_of(c) for split in ("support", "query") for c in range(3) for n in range(2)
    }
    write_zip(tmp_path / PACK / "images.zip", shelf)
    write_zip(tmp_path / "package-fronts" / "images.zip", {f"0/front-{n}/0.webp": mark(n) for n in range(6)})
    monkeypatch.setattr(episodes, "FOLDER", tmp_path)
    monkeypatch.setattr(episodes, "near_frames", lambda found: [])  # they are drawn alike
    wanted = EpisodeSet(PACK, 2)
    monkeypatch.setattr(episodes, "SETS", (wanted,))
    wanted.file.write_text(json.dumps(episodes.draw(wanted, tmp_path / PACK)))
    monkeypatch.setattr(false_accepts, "CLASSES", (2, 5))
    monkeypatch.setattr(false_accepts, "SHOTS", (1, 2))
    models = write_model_set(tmp_path / "models")
    flags = {"--data": tmp_path, "--models": models, "--task": wanted.name, "--results": tmp_path / "results"}
    arguments = [str(part) for flag in flags.items() for part in flag]

    false_accepts.main([*arguments, "--sample", "2"])
    assert not (tmp_path / "results").exists()

    false_accepts.main(arguments)
    result = json.loads((tmp_path / "results" / f"false-accepts-{PACK}.json").read_text())
    assert (result["foreign_pictures"], result["foreign_crops"], result["times_scored"]) == (6, 1, 1)
    assert [(row["classes"], row["shots"]) for row in result["false_accepts"]] == [(2, 1), (2, 2), (5, 1), (5, 2)]
    for row in result["false_accepts"]:
        assert row["accepted_right"]["mean"] == 1.0  # what is asked is what was shown
        assert sum(row["foreign"].values()) == pytest.approx(1)

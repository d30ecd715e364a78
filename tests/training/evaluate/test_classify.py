"""The command, from flags to figures: the same episodes for every arm, and a line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.model_sets import write_model_set
from tests.training.packs import photograph, print_of, write_boxes, write_folder
from training.data import Item
from training.evaluate import classify, draws, scored
from training.evaluate.items import AskedItem
from training.evaluate.rules import NearestMean


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four classes, each of a colour of its own and all shapes different: a histogram tells them, HOG cannot."""
    pictures = {}
    for label, name in enumerate("abcd"):
        for number in range(4):
            grey = np.asarray(print_of(100 * label + number).convert("L"))
            ink = np.array([label >> 1 & 1, label & 1, label == 0])
            pictures[f"{name}/{number}.webp"] = (grey[..., np.newaxis] * ink).astype(np.uint8)
    return write_folder(tmp_path / "colours", {entry: Image.fromarray(pixels) for entry, pixels in pictures.items()})


def evaluated(data: Path, model: str, place: Path, **flags: object) -> dict[str, Any]:
    given = {"data": data, "model": model, "out": place / "result.json", "episodes": 20, "way": 2} | flags
    pairs = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
    classify.main([str(part) for flag, value in pairs for part in ((flag,) if value is True else (flag, value))])
    return dict(json.loads((place / "result.json").read_text()))


def test_arms_are_measured_on_the_same_episodes_and_compared_in_pairs(folder: Path, tmp_path: Path) -> None:
    result = evaluated(folder, "histogram,hog", tmp_path)
    colours, shapes = (result["classify"][name] for name in ("histogram", "hog"))
    assert colours["accuracy"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert shapes["accuracy"]["mean"] < 0.9
    difference = result["differences"]["histogram - hog"]["accuracy"]["mean"]
    assert difference == pytest.approx(1 - shapes["accuracy"]["mean"], abs=1e-4)
    assert colours["auroc"]["mean"] > 0.9 > shapes["auroc"]["mean"]
    assert colours["ece"] is None
    assert colours["own_rule"] is None
    about = {name: result[name] for name in ("data", "classes", "pictures", "photographs", "way", "shots", "episodes")}
    assert about == {"data": "colours", "classes": 4, "pictures": 16, "photographs": 16, "way": 2, "shots": 1, "episodes": 20}
    assert result["unknown_classes"] == 2


def test_a_model_set_is_scored_by_its_own_rule_too(folder: Path, tmp_path: Path) -> None:
    models = write_model_set(tmp_path / "models")
    result = evaluated(folder, f"{models},bare={models / 'embedding.onnx'}", tmp_path)
    whole, bare = result["classify"]["models"], result["classify"]["bare"]
    assert {name: whole[name] for name in ("accuracy", "auroc", "roc")} == {
        name: bare[name] for name in ("accuracy", "auroc", "roc")
    }
    assert bare["ece"] is None
    assert 0 <= whole["ece"] == whole["own_rule"]["ece"] <= 1
    # All 20 episodes of 2 known and 2 unknown classes: 3 left of each known one, 4 of each unknown one.
    assert sum(part["answers"] for part in whole["own_rule"]["reliability"]) == 20 * (2 * 3 + 2 * 4)
    assert list(result["differences"]) == ["models, own rule - models", "models - bare"]
    assert result["differences"]["models - bare"]["accuracy"] == {"mean": 0, "low": 0, "high": 0}


def test_all_ways_leave_nothing_unknown_and_say_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluated(folder, "histogram", tmp_path, way="all")
    assert (result["way"], result["classify"]["histogram"]["auroc"], result["classify"]["histogram"]["roc"]) == (4, None, None)
    assert result["no_unknown_classes_because"] == "4 of 4 classes are known in each episode, so that 0 are left and not 4"
    assert "no unknown classes: 4 of 4" in capsys.readouterr().out


def test_a_list_is_written_and_then_read(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    first = evaluated(folder, "hog", tmp_path, episode_list=file)
    kept = file.read_bytes()
    again = evaluated(folder, "hog", tmp_path, episode_list=file, seed=7)  # the list decides
    assert again["episode_list_sha256"] == first["episode_list_sha256"]
    assert again["classify"] == first["classify"]
    assert file.read_bytes() == kept
    assert (first["times_scored"], again["times_scored"]) == (1, 2)


def test_supports_may_come_from_elsewhere(tmp_path: Path) -> None:
    asked = {f"{name}/{n}.webp": photograph(10 * label + n) for label, name in enumerate("abc") for n in range(3)}
    other = {f"{name}/{n}.webp": photograph(50 + 10 * label + n) for label, name in enumerate("ab") for n in range(2)}
    write_folder(tmp_path / "asked", asked)
    # Near duplicates of what is asked: nobody may be asked what was shown.
    write_folder(tmp_path / "shown", other | {"a/twin.webp": photograph(0).resize((50, 50))})
    file = tmp_path / "list.jsonl"
    result = evaluated(tmp_path / "asked", "hog", tmp_path, support=tmp_path / "shown", episode_list=file)
    config = classify.Config(tmp_path / "asked", "hog", tmp_path, support=tmp_path / "shown")
    items = classify.gathered(config)
    for line in file.read_text().splitlines()[1:]:
        episode = json.loads(line)
        shown = {items[position].id for positions in episode["shown"] for position in positions}
        assert all(name.startswith("support/") for name in shown)
        asked_ids = {items[position].id for position in (*episode["asked"], *episode["unknown"])}
        assert not any(name.startswith("support/") for name in asked_ids)
        assert ("a/0.webp" in asked_ids) is ("support/a/twin.webp" not in shown)
    assert (result["support"], result["never_known"], result["unknown_classes"]) == ("shown", ["c"], None)


def test_boxes_in_photographs_are_evaluated(tmp_path: Path) -> None:
    boxes = [(f"{n}.webp", "ab"[n % 2], [0, 0, 40, 40]) for n in range(8)]
    write_boxes(tmp_path / "boxes", {f"{n}.webp": photograph(n) for n in range(8)}, boxes)
    result = evaluated(tmp_path / "boxes", "histogram", tmp_path, views=2)
    assert (result["classes"], result["pictures"], result["views"]) == (2, 8, 2)


def refused(data: Path, tmp_path: Path, **flags: object) -> str:
    with pytest.raises(SystemExit) as refusal:
        evaluated(data, str(flags.pop("model", "hog")), tmp_path, **flags)
    assert not (tmp_path / "result.json").exists()
    return str(refusal.value)


def test_what_is_wrong_is_said_in_a_line(folder: Path, tmp_path: Path) -> None:
    assert refused(folder, tmp_path, way=5) == "--way 5: 4 classes have enough photographs, 5 are needed"
    assert refused(folder, tmp_path, way=1) == refused(folder, tmp_path, way="many").replace("many", "1")
    assert refused(folder, tmp_path, way=1) == "--way 1: it is 2 or more, or all"
    for flag in ("shot", "queries", "episodes", "views"):
        assert refused(folder, tmp_path, **{flag: 0}) == f"--{flag} 0: it is 1 or more"
    assert refused(folder, tmp_path, out=tmp_path).startswith(f"--out {tmp_path}: it is a folder")
    assert refused(folder, tmp_path, model="none").startswith("--model none: no arm has that name")
    assert refused(tmp_path / "none", tmp_path).startswith(f"--data {tmp_path / 'none'}: there is no such file")
    assert refused(folder, tmp_path, support=tmp_path / "none").startswith("--support ")
    other = write_folder(tmp_path / "other", {"z/0.webp": photograph(0)})
    assert refused(folder, tmp_path, support=other) == f"--support {other}: it has no class of --data"
    (tmp_path / "list").write_text("not a list")
    assert (
        refused(folder, tmp_path, episode_list=tmp_path / "list")
        == f"--episode-list {tmp_path / 'list'}: it is not an episode list"
    )


def test_a_class_with_too_few_photographs_ends_it_unless_it_is_skipped(folder: Path, tmp_path: Path) -> None:
    write_folder(folder, {f"e/{n}.webp": photograph(7).resize((60 + n, 60)) for n in range(3)})  # near duplicates
    assert refused(folder, tmp_path) == (
        "--shot 1: class 'e' has photographs: 1 to show, 1 in all (near duplicates are one); needed are 1 to show and another to "
        "ask. So it is with 1 of 5 classes; --skip-small leaves them out"
    )
    result = evaluated(folder, "histogram", tmp_path, skip_small=True)
    assert result["never_known"] == ["e"]


def test_flags_that_must_be_given_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        classify.main(["--data", "x"])
    assert "required: --model, --out" in capsys.readouterr().err


def test_figures_by_hand() -> None:
    items = [AskedItem(f"{name}{n}", name, f"{name}{n}", Item(Path("none"), "", name)) for name in "abcd" for n in range(2)]
    population = draws.population_of(items, np.arange(8))
    one = draws.Episode(np.array([0, 1]), np.array([[0], [2]]), np.array([1, 3]), np.array([4, 6]))
    other = draws.Episode(np.array([0, 2]), np.array([[0], [4]]), np.array([1, 5]), np.array([2, 6]))
    listed = draws.EpisodeList((), (one, other))
    degrees = {"a0": 0, "a1": 10, "b0": 90, "b1": 30, "c0": 45, "c1": 50, "d0": 5, "d1": 0}
    angles = np.radians([degrees[item.id] for item in items])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = scored.score(NearestMean(), population, listed, vectors, vectors)
    # First episode, a at 0 and b at 90 degrees: a1 is right, b1 (30) is taken for a. Second, c at 45: a1 and c1 are right.
    assert [right.tolist() for right in found.right] == [[True, False], [True, True]]
    # Nearest angles of the first: a1 10, b1 30; unknown c0 45, d0 5. a1 beats c0 only, as does b1.
    # Of the second: a1 10, c1 5; unknown b0 45, d0 5. a1 beats b0 only; c1 beats b0 and ties with d0.
    assert found.below[0].tolist() == [0.5, 0.5]
    assert found.below[1][0] == 0.5
    assert found.below[1][1] in (0.5, 0.75, 1)  # the cosines of 5 degrees may differ in the last bit
    # At 95 % of two both known are accepted: the line is at 30 and at 10 degrees; d0 is accepted in both episodes, else none.
    assert [accepted.tolist() for accepted in found.accepted] == [[False, True], [False, True]]
    figures = scored.Figures(population, listed).of(found)
    assert figures["accuracy"]["mean"] == 0.75
    assert figures["fpr_at_95_tpr"]["mean"] == 0.5
    worse = scored.Scored([np.array([False, False])] * 2, *(vars(found)[name] for name in ("below", "accepted", "roc", "best")))
    paired = scored.Figures(population, listed).difference(found, worse)
    assert (paired["accuracy"]["mean"], paired["auroc"]["mean"]) == (0.75, 0)

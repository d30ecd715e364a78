"""What a service finds in photographs is judged by the boxes in them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from PIL import Image

from app.domain.posterior import Regions
from app.domain.values import Box, Upload
from tests.tiny_network import tiny_detector
from tests.training.packs import photograph, write_boxes
from training.data import Item
from training.evaluate import detection, episodes, finders, in_process, intervals, items
from training.evaluate.average_precision import Ranking
from training.evaluate.episodes import DetectEpisode
from training.evaluate.finders import Spotted
from training.evaluate.items import Photograph

NAMES = ("a", "b", "c")
EPISODE = DetectEpisode({"a": (), "b": ()}, ())


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests look at means."""
    monkeypatch.setattr(intervals, "RESAMPLES", 20)


def looked(boxes: Sequence[tuple[str, tuple[float, float, float, float]]], *found: Spotted) -> detection.Looked:
    return detection.Looked(0, Photograph("p", Item(Path("none"), "p", ""), tuple(boxes)), found)


def test_only_things_of_the_episode_are_to_be_found() -> None:
    one = looked([("a", (0, 0, 10, 10)), ("c", (20, 20, 30, 30))], Spotted("a", (0, 0, 10, 10), 0.9))
    ranking = detection.ranking_of([one], [EPISODE], NAMES, least_overlap=0.5)
    assert ranking.truths.tolist() == [[1, 0, 0]]
    figures = detection.figures_of([one], [EPISODE], NAMES)
    assert figures["pooled_ap50"]["mean"] == figures["mean_ap50"]["mean"] == figures["recall_at_0.5"]["mean"] == 1.0


def test_figures_by_hand() -> None:
    photographs = [
        looked(
            [("a", (0, 0, 10, 10)), ("b", (40, 40, 60, 60))],
            Spotted("a", (0, 0, 10, 10), 0.9),
            Spotted("a", (1, 0, 11, 10), 0.8),  # again
            Spotted("b", (46, 46, 66, 66), 0.7),  # overlaps by 196 of 604: right at 0.3 only
            Spotted("b", (40, 40, 60, 60), 0.6, accepted=False),
        )
    ]
    figures = detection.figures_of(photographs, [EPISODE], NAMES)
    means = {name: numbers["mean"] for name, numbers in figures.items()}
    # Right, again, wrong, right: precision 1 up to recall 1/2, then 2/4; without the repeat 2/3.
    assert means["pooled_ap50"] == pytest.approx(0.75)
    assert means["pooled_ap50_repeats_ignored"] == pytest.approx(1 / 2 + 1 / 3, abs=1e-4)
    assert means["mean_ap50"] == pytest.approx((1 + 1 / 2) / 2)
    assert (means["precision_at_0.5"], means["recall_at_0.5"]) == pytest.approx((1 / 3, 1 / 2), abs=1e-4)
    assert (means["precision_at_0.3"], means["recall_at_0.3"]) == pytest.approx((2 / 3, 1), abs=1e-4)


def test_a_service_that_finds_nothing_has_an_area_of_nothing() -> None:
    figures = detection.figures_of([looked([("a", (0, 0, 10, 10))])], [EPISODE], NAMES)
    assert figures["pooled_ap50"]["mean"] == figures["recall_at_0.5"]["mean"] == 0.0
    assert "precision_at_0.5" not in figures


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five classes, three photographs of each; and their committed list."""
    photographs = {f"{name}{number}.jpg": photograph(number) for name in "abcde" for number in range(3)}
    write_boxes(tmp_path / "scenes", photographs, [(file, file[0], [2, 2, 30, 30]) for file in photographs])
    wanted = episodes.DetectSet("scenes", 1, episodes=3)
    monkeypatch.setattr(episodes, "FOLDER", tmp_path)
    wanted.file.write_text(json.dumps(episodes.draw_detect(wanted, tmp_path / "scenes")))
    return tmp_path


class FakeUseCases:
    """Finds the last class it was shown, where that was shown, in every picture."""

    def __init__(self) -> None:
        self.shown: dict[str, Box] = {}

    async def enrol(self, class_name: str, uploads: Sequence[Upload], **_: object) -> None:
        (upload,) = uploads
        assert upload.box is not None
        self.shown[class_name] = upload.box

    async def detect(self, upload: Upload, **asked: object) -> SimpleNamespace:
        assert upload.box is None
        assert asked.keys() == {"max_detections", "classes", "tiles", "deadline"}
        name, box = list(self.shown.items())[-1]
        return SimpleNamespace(detections=(SimpleNamespace(class_name=name, box=box, probability=0.9, accepted=True),))


def test_each_episode_starts_with_nothing_enrolled(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[FakeUseCases] = []

    @asynccontextmanager
    async def serving(adapters: object, verify: str) -> AsyncIterator[FakeUseCases]:
        served.append(FakeUseCases())
        yield served[-1]

    monkeypatch.setattr(in_process, "open_cached", lambda models, **_: None)
    monkeypatch.setattr(in_process, "emptied", lambda adapters: adapters)
    monkeypatch.setattr(in_process, "serving", serving)
    file = scenes / "scenes-detect-1shot.json"
    result = evaluated(scenes, "--episode-list", str(file), "--episodes", "2")
    assert [len(one.shown) for one in served] == [5, 5]
    # Ten photographs an episode, one thing in each; one class is found in all of them, so that one box in five is right.
    assert {key: result[key] for key in ("way", "classes", "episodes", "photographs", "things")} == {
        "way": 5, "classes": 5, "episodes": 2, "photographs": 20, "things": 20,
    }  # fmt: skip
    quads = result["detect"]["quads"]
    assert quads["boxes"] == 20
    assert quads["precision_at_0.5"]["mean"] == quads["recall_at_0.5"]["mean"] == 0.2
    assert result["proposals"] == result["differences"] == {}


def test_the_service_is_asked_with_the_detector_and_quads_are_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bool] = []
    monkeypatch.setattr(in_process, "open_cached", lambda models, *, detector, **_: opened.append(detector))
    config = detection.Config(data=tmp_path, out=tmp_path / "result.json", model="service,quads")
    assert list(detection.named_finders(config, {})) == ["service", "quads"]
    assert opened == [True, False]


def evaluated(scenes: Path, *flags: str) -> dict[str, Any]:
    detection.main(["--data", str(scenes / "scenes"), "--out", str(scenes / "result.json"), *flags])
    return dict(json.loads((scenes / "result.json").read_text()))


class Oracle:
    """Finds everything that was shown, a little beside where it is."""

    def __init__(self, shift: float) -> None:
        self.shift = shift
        self.asked: list[str] = []

    def find(self, episode: DetectEpisode) -> list[Sequence[Spotted]]:
        self.asked += [photograph.id for photograph in episode.asked]
        return [
            [Spotted(name, self._moved(box), 0.8) for name, box in photograph.boxes if name in episode.shown]
            for photograph in episode.asked
        ]

    def _moved(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        left, top, right, bottom = box
        return left + self.shift, top, right + self.shift, bottom


def test_arms_are_asked_the_same_and_compared_in_pairs(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"ncc": Oracle(0.0), "quads": Oracle(12.0)}  # 28 px wide: moved by 12 they share 16 / 40
    monkeypatch.setattr(detection, "finder_of", lambda wanted, config, networks: found[wanted])
    list_file = scenes / "drawn" / "list.json"
    flags = ("--model", "exact=ncc,quads", "--way", "3", "--episodes", "4", "--without", "2", "--episode-list", str(list_file))
    result = evaluated(scenes, *flags)
    assert found["ncc"].asked == found["quads"].asked
    assert result["photographs"] == 4 * (3 * 2 + 2)
    exact, moved = result["detect"]["exact"], result["detect"]["quads"]
    assert exact["precision_at_90_recall"]["mean"] == exact["largest_recall"]["mean"] == 1.0
    assert (moved["pooled_ap50"]["mean"], moved["largest_recall"]["mean"]) == (0.0, 0.0)
    assert "precision_at_90_recall" not in moved
    assert result["differences"]["exact - quads"]["pooled_ap50_repeats_ignored"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert result["differences"]["exact - quads"]["pooled_ap30_repeats_ignored"]["mean"] == 0.0
    # The same list again; and none of another plan.
    assert evaluated(scenes, *flags)["episode_list_sha256"] == result["episode_list_sha256"]
    with pytest.raises(SystemExit, match="not 4 episodes of 2 classes"):
        evaluated(scenes, *flags, "--way", "2")


def test_a_curve_by_hand() -> None:
    verdicts = np.array([1, 0, 1, 0])  # right, wrong, right, wrong; three things there are
    ranking = Ranking(np.array([0.9, 0.8, 0.7, 0.6]), np.zeros(4, int), np.zeros(4, int), verdicts, np.array([[3]]))
    assert detection.curve_of(ranking) == {"recall": [0.3333, 0.6667], "precision": [1.0, 0.6667]}
    # F1 is 2/4, 2/5, 4/6, 4/7: best at the third.
    assert detection.lowest_drawn(ranking) == 0.7
    nothing = Ranking(np.zeros(0), np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), np.array([[3]]))
    assert detection.curve_of(nothing) == {"recall": [], "precision": []}
    assert detection.lowest_drawn(nothing) == np.inf


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    n = 5000
    ranking = Ranking(np.linspace(1, 0, n), np.zeros(n, int), np.zeros(n, int), np.ones(n, int), np.array([[2 * n]]))
    kept = detection.curve_of(ranking)
    assert len(kept["recall"]) == len(kept["precision"]) == 51
    assert kept["recall"][-1] == 0.5


def test_what_is_accepted_from_the_best_score_on_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finders, "decoded", lambda source: Image.new("RGB", (100, 100)))
    one = looked(
        [("a", (0, 0, 10, 10)), ("c", (40, 40, 60, 60))],
        Spotted("a", (0, 0, 10, 10), 0.9),
        Spotted("b", (0, 50, 10, 60), 0.8),
        Spotted("a", (1, 0, 11, 10), 0.7),  # again
        Spotted("a", (5, 5, 9, 9), 0.6, accepted=False),
        Spotted("a", (5, 5, 9, 9), 0.1),
    )
    judged = detection.judged(one, EPISODE, 0.5)
    assert judged.things == [(0, 0, 10, 10)]  # of the episode's classes
    assert [(found.score, is_right) for found, is_right in judged.found] == [(0.9, True), (0.8, False), (0.7, False)]


def test_a_sheet_is_drawn_of_the_first_arm(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "finder_of", lambda wanted, config, networks: Oracle(0.0))
    drawn: list[detection.scene_sheet.Judged] = []
    monkeypatch.setattr(detection.scene_sheet, "write_sheet", lambda judged, path: drawn.extend(judged))
    evaluated(scenes, "--episodes", "2", "--sheet", str(scenes / "sheet.webp"))
    assert len(drawn) == detection.PICTURES_OF_SHEET
    assert all(len(one.things) == 1 and one.found[0][1] for one in drawn)
    with pytest.raises(SystemExit, match=r"--sheet sheet.png: its name ends in .webp"):
        evaluated(scenes, "--sheet", "sheet.png")


def test_photographs_without_the_classes_are_asked_too(scenes: Path) -> None:
    photographs = items.photographs_of(scenes / "scenes")
    plain = [Photograph("plain", Item(Path("none"), "plain", ""), ())]
    plan = episodes.DetectPlan(way=3, shots=1, asked=1, without=50)
    (episode,) = episodes.drawn_detect(photographs, plain, plan, count=1, seed=0, pack="scenes")["episodes"]
    shown = {name.split("/")[1] for name in episode["shown"]}
    others = [file for file in episode["asked"] if file[0] not in shown]
    assert sorted(others) == sorted(["plain", *(f"{name}{n}.jpg" for name in set("abcde") - shown for n in range(3))])
    with pytest.raises(ValueError, match="3 photographs"):
        episodes.drawn_detect(photographs, plain, episodes.DetectPlan(3, 4), count=1, seed=0, pack="scenes")


def test_a_list_that_asks_what_it_shows_is_refused(scenes: Path) -> None:
    file = scenes / "scenes-detect-1shot.json"
    stored = json.loads(file.read_text())
    stored["episodes"][1]["asked"].append(next(iter(stored["episodes"][1]["shown"].values()))[0][0])
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="episode 1"):
        episodes.read_detect(file, scenes / "scenes")


@pytest.mark.parametrize("model", ["nothing", "crops:nothing.onnx", "ncc,ncc"])
def test_arms_that_there_are_not_end_the_command(scenes: Path, model: str) -> None:
    with pytest.raises(SystemExit, match="--model"):
        evaluated(scenes, "--model", model)


def test_a_detector_that_cannot_look_at_the_side_that_is_asked_ends_the_command(tmp_path: Path) -> None:
    file = tmp_path / "detector.onnx"
    file.write_bytes(tiny_detector(64))
    config = detection.Config(data=Path(), out=Path(), model=str(file), side_px=64)
    assert list(detection.named_finders(config, {})) == ["detector"]
    with pytest.raises(SystemExit, match="for 64 pixels a side, not 96"):
        detection.named_finders(replace(config, side_px=96), {})


def test_arms_are_called_by_their_files_and_not_by_where_these_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "finder_of", lambda wanted, config, networks: wanted)
    config = detection.Config(data=Path(), out=Path(), model="/a/b/one.onnx, crops:/a/b/one.onnx,mine=in-place:/c/two.onnx,quads")
    assert detection.named_finders(config, {}) == {
        "one": "/a/b/one.onnx", "crops:one": "crops:/a/b/one.onnx", "mine": "in-place:/c/two.onnx", "quads": "quads",
    }  # fmt: skip


def test_recall_of_proposals_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 6], [90, 90, 99, 99]], np.float32)
    regions = Regions(boxes, np.array([0.9, 0.8, 0.1], np.float32), np.ones((3, 1), np.float32))
    there = Photograph("p", Item(Path("none"), "p", ""), (("a", (0, 0, 10, 10)), ("b", (20, 0, 30, 10))))
    found = detection.proposals_of(lambda photograph: regions, [there], NAMES)  # type: ignore[arg-type]
    # Overlaps of 1 and 0.6: both at 0.5, one at 0.7; of ten lines the second passes 0.5, 0.55 and 0.6.
    means = {name: numbers["mean"] for name, numbers in found.items()}
    assert means == pytest.approx({"recall_50": 1.0, "recall_70": 0.5, "average_recall": 0.65}, abs=0.051)

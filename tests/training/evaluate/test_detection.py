"""What a service finds in photographs is judged by the boxes in them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.domain.values import Box, Upload
from tests.training.packs import photograph, write_boxes
from training.data import Item
from training.evaluate import detection, episodes, in_process, intervals
from training.evaluate.episodes import DetectEpisode
from training.evaluate.items import Photograph

NAMES = ("a", "b", "c")
EPISODE = DetectEpisode({"a": (), "b": ()}, ())


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests look at means."""
    monkeypatch.setattr(intervals, "RESAMPLES", 20)


@dataclass(frozen=True)
class Found:
    class_name: str
    box: Box
    probability: float = 0.9
    accepted: bool = True


def looked(boxes: Sequence[tuple[str, tuple[float, float, float, float]]], *found: Found) -> detection.Looked:
    return detection.Looked(0, Photograph("p", Item(Path("none"), "p", ""), tuple(boxes)), found)


def test_only_things_of_the_episode_are_to_be_found() -> None:
    one = looked([("a", (0, 0, 10, 10)), ("c", (20, 20, 30, 30))], Found("a", Box(0, 0, 10, 10)))
    ranking = detection.ranking_of([one], [EPISODE], NAMES, least_overlap=0.5)
    assert ranking.truths.tolist() == [[1, 0, 0]]
    figures = detection.figures_of([one], [EPISODE], NAMES)
    assert figures["pooled_ap50"]["mean"] == figures["mean_ap50"]["mean"] == figures["recall_at_0.5"]["mean"] == 1.0


def test_figures_by_hand() -> None:
    photographs = [
        looked(
            [("a", (0, 0, 10, 10)), ("b", (40, 40, 60, 60))],
            Found("a", Box(0, 0, 10, 10), 0.9),
            Found("a", Box(1, 0, 10, 10), 0.8),  # again
            Found("b", Box(46, 46, 20, 20), 0.7),  # overlaps by 196 of 604: right at 0.3 only
            Found("b", Box(40, 40, 20, 20), 0.6, accepted=False),
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
        return SimpleNamespace(detections=(Found(name, box),))


def test_each_episode_starts_with_nothing_enrolled(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[FakeUseCases] = []

    @asynccontextmanager
    async def serving(adapters: object, verify: str) -> AsyncIterator[FakeUseCases]:
        served.append(FakeUseCases())
        yield served[-1]

    monkeypatch.setattr(in_process, "open_cached", lambda models, **_: None)
    monkeypatch.setattr(in_process, "emptied", lambda adapters: adapters)
    monkeypatch.setattr(in_process, "serving", serving)
    flags = ["--data", str(scenes), "--pack", "scenes", "--episodes", "2", "--results", str(scenes / "results")]
    detection.main(flags)
    assert [len(one.shown) for one in served] == [5, 5]
    result = json.loads((scenes / "results" / "scenes-detect-1shot.json").read_text())
    # Ten photographs an episode, one thing in each; one class is found in all of them, so that one box in five is right.
    assert {key: result[key] for key in ("way", "classes", "episodes", "photographs", "things", "boxes")} == {
        "way": 5, "classes": 5, "episodes": 2, "photographs": 20, "things": 20, "boxes": 20,
    }  # fmt: skip
    assert result["detect"]["precision_at_0.5"]["mean"] == result["detect"]["recall_at_0.5"]["mean"] == 0.2

"""Support and query never share a photograph, and a committed list notices another pack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import photograph, write_boxes, write_zip
from training.evaluate import episodes


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """Two classes; photograph 0 has two boxes of class a."""
    photographs = {f"{number}.webp": photograph(number) for number in range(4)}
    drawn = [("0.webp", "a", [0, 0, 30, 30]), ("0.webp", "a", [30, 30, 28, 28])]
    drawn += [("1.webp", "a", [0, 0, 30, 30]), ("2.webp", "b", [0, 0, 30, 30]), ("3.webp", "b", [0, 0, 30, 30])]
    write_boxes(tmp_path / "boxes", photographs, drawn)
    return tmp_path / "boxes"


def commit(wanted: episodes.EpisodeSet, pack: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "FOLDER", folder)
    wanted.file.write_text(json.dumps(episodes.draw(wanted, pack)))


def test_a_photograph_with_two_boxes_is_support_or_query_never_both(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = episodes.EpisodeSet("boxes", 1, episodes=40)
    commit(wanted, boxes, tmp_path, monkeypatch)
    listed = episodes.read(wanted, boxes)
    supported = set()
    for episode, support in enumerate(listed.supports):
        shown = {listed.items[position].photograph for position in support.ravel()}
        assert shown.isdisjoint(listed.items[position].photograph for position in listed.asked(episode))
        supported |= shown
    assert "0.webp" in supported  # else the test would say nothing


def test_two_shots_are_of_two_photographs(boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = episodes.EpisodeSet("boxes", 2, episodes=20)
    commit(wanted, boxes, tmp_path, monkeypatch)
    listed = episodes.read(wanted, boxes)
    for support in listed.supports:
        for shots in support:
            assert len({listed.items[position].photograph for position in shots}) == 2


def test_near_frames_of_a_support_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {"support/a/0.webp": photograph(1), "query/a/0.webp": photograph(1), "query/a/1.webp": photograph(2)}
    write_zip(tmp_path / "video" / "images.zip", pictures | {"support/b/0.webp": photograph(3), "query/b/0.webp": photograph(4)})
    wanted = episodes.EpisodeSet("video", 1, episodes=1)
    commit(wanted, tmp_path / "video", tmp_path, monkeypatch)
    listed = episodes.read(wanted, tmp_path / "video")
    assert [listed.items[position].id for position in listed.asked(0)] == ["query/a/1.webp", "query/b/0.webp"]


def test_drawing_again_gives_the_same_list(boxes: Path) -> None:
    wanted = episodes.EpisodeSet("boxes", 1, episodes=5)
    assert episodes.draw(wanted, boxes) == episodes.draw(wanted, boxes)


def test_a_list_drawn_from_other_pictures_is_refused(boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = episodes.EpisodeSet("boxes", 1, episodes=2)
    commit(wanted, boxes, tmp_path, monkeypatch)
    write_boxes(boxes, {"9.webp": photograph(9)}, [("9.webp", "a", [0, 0, 30, 30])])
    with pytest.raises(ValueError, match="other pictures"):
        episodes.read(wanted, boxes)

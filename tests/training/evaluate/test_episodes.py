"""Support and query never share a photograph, and a committed list notices another pack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import draw_scan_packs, photograph, write_boxes, write_zip
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


def test_frames_are_asked_across_scenes_and_a_class_with_one_scene_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = {"train/a/0.webp": "1", "train/a/1.webp": "1", "train/a/2.webp": "2", "train/b/0.webp": "3", "train/b/1.webp": "3"}
    write_zip(tmp_path / "runway" / "images.zip", {entry: photograph(n) for n, entry in enumerate(scenes)})
    rows = "".join(f"{entry}\t0\t{scene}\t0\t0\n" for entry, scene in scenes.items())
    (tmp_path / "runway" / "frames.tsv").write_text("entry\tframe\tscene\tweather\tlight\n" + rows)
    wanted = episodes.EpisodeSet("runway", 1, episodes=30, part="scenes")
    commit(wanted, tmp_path / "runway", tmp_path, monkeypatch)
    listed = episodes.read(wanted, tmp_path / "runway")
    assert listed.class_names == ("runway/a",)
    for episode, support in enumerate(listed.supports):
        shown = {scenes[listed.items[position].id] for position in support.ravel()}
        asked = {scenes[listed.items[position].id] for position in listed.asked(episode)}
        assert shown | asked == {"1", "2"}
        assert not shown & asked


def test_iconic_pictures_are_shown_and_shop_photographs_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {
        f"{split}/{name}/{split}.webp": photograph(n) for n, split in enumerate(("iconic", "train", "val")) for name in "ab"
    }
    write_zip(tmp_path / "shop" / "images.zip", pictures | {"iconic/never-asked/0.webp": photograph(7)})
    wanted = episodes.EpisodeSet("shop", 1, episodes=1, part="iconic")
    commit(wanted, tmp_path / "shop", tmp_path, monkeypatch)
    listed = episodes.read(wanted, tmp_path / "shop")
    assert [listed.items[position].id for position in listed.supports.ravel()] == ["iconic/a/iconic.webp", "iconic/b/iconic.webp"]
    assert [listed.items[position].id for position in listed.asked(0)] == ["val/a/val.webp", "val/b/val.webp"]


def test_loose_fruit_is_all_that_is_not_in_a_carton(tmp_path: Path) -> None:
    entries = [f"{split}/{name}/0.webp" for split in ("train", "val") for name in ("Kiwi", "Oatly")]
    write_zip(tmp_path / "shop" / "images.zip", {entry: photograph(n) for n, entry in enumerate(entries)})
    (tmp_path / "shop" / "coarse.json").write_text(json.dumps({"Kiwi": "Kiwi", "Oatly": "Oat-Milk"}))
    assert episodes.draw(episodes.EpisodeSet("shop", 1, part="fresh"), tmp_path / "shop")["classes"] == ["shop/Kiwi"]


def test_every_set_has_a_name_and_a_file_of_its_own() -> None:
    files = [wanted.file for wanted in (*episodes.SETS, *episodes.DETECT_SETS)]
    assert len(set(files)) == len(files)
    assert [episodes.set_called(wanted.name) for wanted in episodes.SETS] == list(episodes.SETS)
    with pytest.raises(ValueError, match="no task is called 'none'"):
        episodes.set_called("none")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Six classes, three photographs of each; one box of each first photograph is too small to be enrolled."""
    photographs = {f"{name}{number}.jpg": photograph(number) for name in "abcdef" for number in range(3)}
    boxes = [(file, file[0], [2, 2, 30, 30]) for file in photographs]
    write_boxes(tmp_path / "scenes", photographs, boxes + [(f"{name}0.jpg", name, [40, 40, 10, 10]) for name in "abcdef"])
    return tmp_path / "scenes"


@pytest.mark.parametrize("shots", [1, 2])
def test_boxes_to_enrol_and_photographs_to_ask_are_apart(
    scenes: Path, shots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = episodes.DetectSet("scenes", shots, episodes=20)
    monkeypatch.setattr(episodes, "FOLDER", tmp_path)
    wanted.file.write_text(json.dumps(episodes.draw_detect(wanted, scenes)))
    listed, class_names = episodes.read_detect(wanted.file, scenes)
    assert len(class_names) == 6
    for episode in listed:
        shown = [item for boxes in episode.shown.values() for item in boxes]
        assert len(episode.shown) == 5
        assert len({item.photograph for item in shown}) == 5 * shots  # of different photographs
        assert all(item.source.box == (2, 2, 32, 32) for item in shown)
        asked = {photograph.id for photograph in episode.asked}
        assert len(asked) == len(episode.asked) == 5 * (3 - shots)
        assert asked.isdisjoint(item.photograph for item in shown)
        assert {photograph.boxes[0][0] for photograph in episode.asked} == set(episode.shown)


def test_small_boxes_are_to_be_found_all_the_same(scenes: Path) -> None:
    first = episodes.items.photographs_of(scenes)[0]
    assert first.id == "a0.jpg"
    assert first.boxes == (("scenes/a", (2, 2, 32, 32)), ("scenes/a", (40, 40, 50, 50)))


def test_a_scan_is_shown_and_the_photographs_of_it_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_scan_packs(tmp_path)
    monkeypatch.setattr(episodes, "FOLDER", tmp_path)
    episodes.scan_file().write_text(json.dumps(episodes.draw_scan(tmp_path)))
    scan = episodes.read_scan(tmp_path)
    assert [Path(item.source.entry).stem for item in scan.scans] == ["01"] * 3
    assert [Path(item.source.entry).stem for item in scan.asked] == ["02", "03"] * 3
    assert {item.class_name for item in scan.scans} == {item.class_name for item in scan.asked}
    assert len(scan.beside) == 2
    assert [item.id for item in scan.foreign] == [
        "flickrlogos27-dev/1.jpg", "flickrlogos27-dev/2.jpg", "freiburg-groceries-dev/9.jpg",
        "grocery-store/val/milk/0.webp", "grocery-store/val/milk/1.webp",
    ]  # fmt: skip
    draw_scan_packs(tmp_path, objects=4)
    with pytest.raises(ValueError, match=r"scan\.json was drawn from other pictures"):
        episodes.read_scan(tmp_path)

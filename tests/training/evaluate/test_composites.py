"""Rendered scenes have their marks where their boxes are, and come out the same again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from tests.training.packs import mark, photograph, write_boxes, write_zip  # noqa: E402
from training import data, render  # noqa: E402
from training.evaluate import composites, detection, episodes, intervals, items  # noqa: E402

FREE, OWNED = "simple-icons", "landscape-cncf"
FEW = ("--brands", "3", "--scenes", "3", "--distractors", "2")


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures: what is tested does not depend on how fine they are."""
    monkeypatch.setattr(composites, "FACE_PX", 64)
    monkeypatch.setattr(composites, "FINE_PX", 96)
    monkeypatch.setattr(composites, "SIDES_PX", (192,))
    monkeypatch.setattr(composites, "SHOWN_PX", 96)


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """Four brands to ask about, of which one is not free, one with two marks, and one to learn from; and eight photographs."""
    entries = {f"8/asked-{n}/0.webp": mark(n) for n in range(4)} | {"0/learnt/0.webp": mark(7)}
    write_zip(tmp_path / "brand-marks" / "images.zip", entries | {"8/asked-1/1.webp": mark(9)})
    listed = [{"slug": name.split("/")[1], "marks": [{"src": OWNED if "asked-3" in name else FREE}]} for name in entries]
    (tmp_path / "brand-marks" / "brands.json").write_text(json.dumps(listed))
    streets = {f"{n}.jpg": photograph(n) for n in range(9)}
    shown = [("0.jpg", "acme", [4, 4, 40, 30])]
    write_boxes(tmp_path / composites.PHOTOGRAPHS, streets, shown, distractors=[f"{n}.jpg" for n in range(1, 9)])
    return tmp_path


def drawn(packs: Path, *flags: str, into: str = "scenes") -> Path:
    out = packs / into / "composites"
    composites.main(["--data", str(packs), "--out", str(out), *FEW, *flags])
    return out


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}


def test_the_same_seed_gives_the_same_bytes(packs: Path) -> None:
    before = torch.random.get_rng_state()
    one, again = (files_of(drawn(packs, into=name)) for name in ("one", "again"))
    assert one == again
    assert torch.equal(before, torch.random.get_rng_state())
    other = files_of(drawn(packs, "--seed", "1", into="other"))
    assert one["annotations.json"] != other["annotations.json"]
    assert one["images/distractors/0000.jpg"] != other["images/distractors/0000.jpg"]


def test_every_brand_is_shown_twice_and_all_scenes_are_asked(packs: Path) -> None:
    folder = drawn(packs)
    (episode,), names = episodes.read_detect(folder / "episodes.json", folder)
    assert len(names) == 3
    assert all(name.startswith("composites/asked-") for name in names)
    for name, shown in episode.shown.items():
        stem = name.split("/")[1]
        assert [one.photograph for one in shown] == [f"examples/{stem}-{number}.jpg" for number in (0, 1)]
    assert [one.id for one in episode.asked] == [
        *(f"scenes/000{number}.jpg" for number in range(3)), *(f"distractors/000{number}.jpg" for number in range(2))
    ]  # fmt: skip
    assert [bool(one.boxes) for one in episode.asked] == [True] * 3 + [False] * 2
    for one in episode.asked:
        for _, (left, top, right, bottom) in one.boxes:
            assert 0 < left < right < 192
            assert 0 < top < bottom < 192
            assert min(right - left, bottom - top) >= composites.LEAST_SIDE_PX


def test_boxes_are_the_pixels_that_marks_cover() -> None:
    pixels = torch.zeros(1, 4, 64, 64, dtype=torch.uint8)
    pixels[:, (0, 3)] = 255  # red, and all of its rectangle
    marks = data.PictureSet(pixels, torch.zeros(1, dtype=torch.int64), torch.tensor([2.0]), ("red",))
    still = replace(render.HARD, **composites.PLACED, p_invert=0, p_grey=0, p_tint=0, p_occluder=0)
    torch.manual_seed(0)
    laid = composites.laid_on(torch.zeros(3, 192, 192), marks, [0, 0, 0], still, 3)
    assert len(laid.boxes) == 3
    red = (laid.pixels[0] > 0.5) & (laid.pixels[1] < 0.25)
    for _, edges in laid.boxes:
        left, top, right, bottom = (round(edge) for edge in edges)
        inside = red[top:bottom, left:right].clone()
        assert all(bool(edge.any()) for edge in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]))
        red[top - 1 : bottom + 1, left - 1 : right + 1] = False
    assert not bool(red.any())


def test_a_word_that_would_be_too_small_to_read_is_not_laid() -> None:
    pixels = torch.full((1, 4, 64, 64), 255, dtype=torch.uint8)
    marks = data.PictureSet(pixels, torch.zeros(1, dtype=torch.int64), torch.tensor([12.0]), ("word",))
    straight = replace(render.PLAIN, **composites.PLACED, rotation_sd=0, shear_sd=0, perspective_sd=0)
    assert composites.laid_on(torch.zeros(3, 96, 96), marks, [0], straight, 1).boxes == []


def test_examples_scenes_and_distractors_share_no_photograph(packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composites, "photographed_ground", lambda sources: [source.entry for source in sources])
    config = composites.Config(data=packs, out=packs)
    parts = [entry for part in composites.grounds_of(config).values() for entry in part]  # type: ignore[attr-defined]
    assert sorted(parts) == [f"{n}.jpg" for n in range(1, 9)]


def test_what_may_be_published_is_free_and_has_no_photograph_in_it(packs: Path) -> None:
    (packs / composites.PHOTOGRAPHS / "images.zip").unlink()
    folder = drawn(packs, "--plain-grounds")
    assert episodes.class_names_of(items.photographs_of(folder)) == [f"composites/asked-{n}" for n in range(3)]
    with pytest.raises(SystemExit, match="there are 3 in the public domain"):
        drawn(packs, "--plain-grounds", "--brands", "4")


def test_a_plain_ground_turns_from_one_colour_into_another() -> None:
    torch.manual_seed(0)
    ground = composites.plain_ground(64)
    assert ground.shape == (3, 64, 64)
    steps = ground.diff(dim=1).abs().amax()
    assert 0 < float(steps) < 0.02


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--brands", "5"), "--brands 5: there are 4 in split 8"),
        (("--brands", "0"), "--brands 0"),
        (("--renders", "soft"), "--renders soft: it is plain or hard"),
        (("--scenes", "0"), "--scenes 0"),
        (("--distractors", "-1"), "--distractors -1"),
    ],
)
def test_what_there_is_not_ends_the_command(packs: Path, flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        drawn(packs, *flags)


def test_too_few_photographs_end_the_command(packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "plain_photographs", lambda _: [])
    with pytest.raises(SystemExit, match=r"--data .* has 0 photographs without a brand"):
        drawn(packs)


def test_detectors_are_measured_on_the_folder_as_it_is(packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 20)
    folder, out = drawn(packs), packs / "result.json"
    flags = ["--way", "all", "--shot", "2", "--episodes", "1", "--episode-list", str(folder / "episodes.json")]
    detection.main(["--data", str(folder), "--model", "ncc", "--out", str(out), *flags])
    result = json.loads(out.read_text())
    assert (result["way"], result["shots"], result["photographs"], result["pack"]) == (3, 2, 5, "composites")
    assert result["things"] == sum(len(one.boxes) for one in items.photographs_of(folder) if one.id.startswith("scenes/"))
    assert len(result["detect"]["ncc"]["curve"]["recall"]) > 0
    assert np.diff(result["detect"]["ncc"]["curve"]["precision"]).max(initial=0) <= 0

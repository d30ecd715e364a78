"""Boxes of scenes lie on what was drawn, and what may not be learnt from is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from PIL import Image  # noqa: E402

from tests.training.packs import draw_detector_packs, photograph, write_boxes  # noqa: E402
from training import data, render, scenes  # noqa: E402

SIDE_PX = 128
STILL = render.RenderSpec(
    scale=(0.3, 0.9), rotation_sd=10, shear_sd=0.1, perspective_sd=0.1, p_cylinder=0.5, shift=0.3, stretch=(0, 0), p_invert=0,
    p_grey=0, p_tint=0, p_occluder=0,
)  # fmt: skip


def red_things(n: int = 4) -> scenes.Things:
    """Red squares that fill their rectangles."""
    pixels = torch.zeros(n, 3, 64, 64, dtype=torch.uint8)
    pixels[:, 0] = 255
    pictures = data.PictureSet(pixels, torch.arange(n), torch.ones(n), tuple(f"red/{k}" for k in range(n)))
    return scenes.Things(pictures, data.ClassSampler(pictures, flatness=0.0), 0, 1.0, STILL)


def photographs(n: int = 2, **other: torch.Tensor) -> scenes.Photographs:
    return scenes.Photographs(
        **{
            "pixels": torch.zeros(n, 3, 64, 64, dtype=torch.uint8), "aspects": torch.ones(n), "boxes": torch.zeros(n, 0, 4),
            "labels": torch.zeros(n, 0, dtype=torch.int64), "is_complete": torch.ones(n, dtype=torch.bool),
            "weights": torch.ones(n), **other,
        }
    )  # fmt: skip


def is_red(picture: torch.Tensor) -> torch.Tensor:
    return (picture[0] > 0.5) & (picture[1] < 0.25)


@pytest.mark.parametrize("along", scenes.CELLS)
def test_boxes_of_things_are_the_pixels_that_they_cover(along: int) -> None:
    torch.manual_seed(along)
    stock = scenes.Stock((red_things(),), photographs(), photographs(), ("red",))
    grounds = torch.zeros(3, 3, SIDE_PX, SIDE_PX)
    found = scenes.layer(stock, grounds, along, torch.full((3,), 0.7))
    pictures = grounds * (1 - found.cover) + found.colours
    assert int((found.labels >= 0).sum()) > 0
    for picture, boxes, labels in zip(pictures, found.boxes, found.labels, strict=True):
        red = is_red(picture)
        for box, label in zip(boxes, labels, strict=True):
            if label < 0:
                continue
            left, top, right, bottom = box.round().int().tolist()
            inside = red[top:bottom, left:right]
            # Tight: each edge has a pixel of the thing on it, give or take the half transparent ones along its border.
            for edge in (inside[:3], inside[-3:], inside[:, :3], inside[:, -3:]):
                assert bool(edge.any())
        outside = red.clone()
        for left, top, right, bottom in boxes[labels != scenes.ABSENT].round().int().tolist():
            outside[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = False
        assert not bool(outside.any())


def test_boxes_of_masks() -> None:
    masks = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    masks[0, 0, 3:7, 5:12] = True
    boxes, seen = scenes.boxes_of(masks)
    assert boxes[0].tolist() == [5, 3, 12, 7]
    assert seen.tolist() == [True, False]


def test_a_view_of_a_photograph_takes_its_boxes_along() -> None:
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    pixels[:, 0, 16:48, 32:64] = 255  # the right half of the middle, of a photograph twice as wide as high
    stored = photographs(
        1, pixels=pixels, aspects=torch.tensor([2.0]), boxes=torch.tensor([[[0.0, -0.5, 1.0, 0.5]]]), labels=torch.tensor([[5]])
    )
    for seed in range(5):
        torch.manual_seed(seed)
        pictures, boxes, labels = scenes.view(stored, torch.tensor([0]), SIDE_PX, (0.6, 0.9))
        assert labels.tolist() == [[5]]
        left, top, right, bottom = boxes[0, 0].tolist()
        assert (right - left) / (bottom - top) == pytest.approx(2.0, abs=0.01)  # its aspect ratio is restored
        expected, _ = scenes.boxes_of(is_red(pictures[0])[None, None])
        assert boxes[0, 0].tolist() == pytest.approx(expected[0].tolist(), abs=2.5)


def test_what_is_cut_off_or_too_small_is_neither_thing_nor_background() -> None:
    boxes = torch.tensor([[[10.0, 10, 50, 50], [-30, 0, 10, 40], [-50, 0, -10, 40], [0, 0, 30, 4]]])
    inside, labels = scenes.clipped(boxes, torch.tensor([[1, 2, 3, 4]]), 64)
    assert labels.tolist() == [[1, scenes.IGNORED, scenes.ABSENT, scenes.IGNORED]]
    assert inside[0, 1].tolist() == [0, 0, 10, 40]


def test_a_box_that_is_mostly_covered_is_ignored() -> None:
    things = scenes.Layer(torch.empty(0), torch.empty(0), torch.tensor([[[0.0, 0, 20, 20]]]), torch.tensor([[7]]))
    shares = scenes.covered(torch.tensor([[[0.0, 0, 40, 20], [30, 30, 40, 40]]]), things)
    assert shares.tolist() == [[0.5, 0.0]]


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    draw_detector_packs(tmp_path)
    return tmp_path


def test_the_same_seed_draws_the_same_scenes(packs: Path) -> None:
    stock = scenes.read_stock(packs)

    def drawn() -> scenes.Scenes:
        torch.manual_seed(3)
        return scenes.draw_scenes(stock, scenes.SceneSpec(side_px=SIDE_PX, count=4))

    one, other = drawn(), drawn()
    assert one.pictures.shape == (4, 3, SIDE_PX, SIDE_PX)
    assert 0 <= float(one.pictures.min()) <= float(one.pictures.max()) <= 1
    assert torch.equal(one.pictures, other.pictures)
    assert torch.equal(one.boxes, other.boxes)
    known = one.labels[one.labels >= 0]
    assert len(known) > 0
    assert int(known.max()) < len(stock.class_names)


@pytest.mark.parametrize("few", [False, True])
def test_names_of_learnt_classes_are_known_without_a_picture(packs: Path, monkeypatch: pytest.MonkeyPatch, few: bool) -> None:
    expected = scenes.read_stock(packs, few=few).class_names
    monkeypatch.setattr(data, "decode_item", None)
    assert scenes.learnt_class_names(packs, few=few) == expected


def test_held_out_sources_are_for_choosing_alone(packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "held_out", lambda name: name.startswith("toplogo10-dev/"))
    training, chosen_on = scenes.read_stock(packs), scenes.read_chosen_on(packs)
    assert not any(name.startswith("toplogo10-dev/") for name in training.class_names)
    assert len(chosen_on.boxed.pixels) == 3  # the photographs of that pack
    assert {name.rsplit("-", 1)[0] for name in chosen_on.class_names} == {
        "brand-marks/brand-marks",
        "package-fronts/package-fronts",
    }


def test_some_photographs_of_classes_that_are_learnt_are_kept_back(packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "held_out", lambda _: False)
    monkeypatch.setattr(scenes, "KEPT_BACK_SHARE", 0.0)
    everything = scenes.read_stock(packs)
    kept = next(name for name in sorted(everything.class_names) if name.startswith("toplogo10-dev/"))
    monkeypatch.setattr(scenes, "kept_back", lambda name, _: name == kept)
    rest = scenes.read_stock(packs)
    assert set(everything.class_names) - set(rest.class_names) == {kept}  # its crops, too
    assert 0 < len(rest.boxed.pixels) < len(everything.boxed.pixels)


def test_what_is_kept_back_is_of_sources_that_are_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "held_out", lambda name: name.startswith("toplogo10-dev/Gucci"))
    files = [f"{number}.jpg" for number in range(1000)]
    share = sum(scenes.kept_back("toplogo10-dev/Prada", one) for one in files) / len(files)
    assert share == pytest.approx(scenes.KEPT_BACK_SHARE, abs=0.03)
    assert not any(scenes.kept_back(name, one) for name in ("toplogo10-dev/Gucci", "coco256/dog") for one in files)


def test_photographs_of_what_may_not_be_learnt_are_left_out(tmp_path: Path) -> None:
    draw_detector_packs(tmp_path)
    shown = {f"{n}.webp": photograph(n) for n in range(3)}
    boxes = [("0.webp", "Nike", [4, 4, 40, 30]), ("1.webp", "Gucci", [4, 4, 40, 30]), ("1.webp", "Nike", [4, 4, 40, 30])]
    write_boxes(tmp_path / "toplogo10-dev", shown, [*boxes, ("2.webp", "Prada", [4, 4, 40, 30])])
    before = len(scenes.read_boxed(tmp_path, (), wanted=lambda name, _: not name.startswith("toplogo"), part=slice(None)).pixels)
    stock = scenes.read_boxed(tmp_path, (), wanted=lambda *_: True, part=slice(None))
    assert len(stock.pixels) - before == 1  # Prada alone


def test_of_many_boxes_the_largest_are_kept_and_the_photograph_counts_as_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "PHOTOGRAPH_PACKS", ("shelf",))
    monkeypatch.setattr(scenes, "MOST_BOXES", 2)
    picture = Image.new("RGB", (100, 50))
    boxes = [("0.webp", "can", [0, 0, 10, 10]), ("0.webp", "can", [20, 20, 40, 20]), ("0.webp", "can", [0, 0, 20, 20])]
    write_boxes(tmp_path / "shelf", {"0.webp": picture, "1.webp": picture}, [*boxes, ("1.webp", "can", [0, 0, 20, 20])])
    stock = scenes.read_boxed(tmp_path, ("shelf/can",), wanted=lambda *_: True, part=slice(None))
    assert stock.is_complete.tolist() == [False, True]
    # 20, 20, 40, 20 of 100 x 50, in [-1, 1].
    assert stock.boxes[0, 0].tolist() == pytest.approx([-0.6, -0.2, 0.2, 0.6])
    assert stock.labels.tolist() == [[0, 0], [0, scenes.ABSENT]]


def test_cells_are_laid_row_by_row() -> None:
    cells = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    assert scenes.assembled(cells, 2)[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]

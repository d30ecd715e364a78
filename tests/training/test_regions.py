"""What is fitted to regions finds what was put in, keeps to the stated rate, and is what the service reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.adapters.model_set import read_model_set  # noqa: E402
from app.domain.calibration import RegionCalibration  # noqa: E402
from tests.model_sets import write_model_set  # noqa: E402
from tests.tiny_network import tiny_detector  # noqa: E402
from tests.training.packs import draw_detector_packs, photograph, write_boxes, write_zip  # noqa: E402
from training import regions, scenes  # noqa: E402

BLANK = np.full((64, 64, 3), 200, np.uint8)
SHOWN, STRANGE = regions.Scene(BLANK, (("a", (0, 0, 9, 9)),), "renders"), regions.Scene(BLANK, (), regions.FOREIGN)
TARGET_FAR = 0.05
CONFIG = regions.Config(target_far=TARGET_FAR, target_wrong=1.0)
LOOK, LEAD, POSTERIOR, OBJECTNESS, BIAS = 0.8, 5.0, 1.5, 0.5, 2.0


def drawn(places: int, *, classes: int = 3, seed: int = 0) -> tuple[regions.Rows, list[regions.Scene]]:
    """A place a scene and some classes at it, right as often as their log-odds say. Every other scene is foreign."""
    rng = np.random.default_rng(seed)
    count = places * classes
    features = rng.uniform((-4, -0.5, -4, -3), (4, 0.5, 0, 0), (count, 4))
    log_odds = BIAS + features @ (LOOK, LEAD, POSTERIOR, OBJECTNESS)
    place = np.arange(count) // classes
    shows = place % 2 == 0
    right = (rng.random(count) < 1 / (1 + np.exp(-log_odds))) & shows
    asked = [SHOWN if n % 2 == 0 else STRANGE for n in range(places)]
    return regions.Rows(features, right, place, place, np.where(right, 0, -1)), asked


def log_odds_of(calibration: RegionCalibration, rows: regions.Rows) -> np.ndarray:
    return np.array(
        [calibration.log_odds(look, lead=ahead, posterior=np.exp(p), objectness=np.exp(o)) for look, ahead, p, o in rows.features]
    )


def test_the_weights_that_made_the_answers_are_found() -> None:
    rows, _ = drawn(8000, classes=1)
    only = np.flatnonzero(rows.place % 2 == 0)
    kept = regions.Rows(*(getattr(rows, name)[only] for name in rows.__dataclass_fields__))
    fitted = regions.fit(kept, [*[SHOWN] * 7999, STRANGE], CONFIG)
    weights = (fitted.look, fitted.log_posterior, fitted.log_objectness)
    assert weights == pytest.approx((LOOK, POSTERIOR, OBJECTNESS), abs=0.15)
    assert fitted.lead == pytest.approx(LEAD, abs=0.5)
    assert fitted.bias == pytest.approx(BIAS, abs=0.3)


def test_of_scenes_that_show_nothing_enrolled_no_more_are_accepted_than_was_asked() -> None:
    rows, asked = drawn(2000)
    fitted = regions.fit(rows, asked, CONFIG)
    log_odds = log_odds_of(fitted, rows)
    highest = np.array([log_odds[rows.scene == n].max() for n in range(1, 2000, 2)])
    assert np.mean(highest >= fitted.line) == pytest.approx(TARGET_FAR, abs=0.005)
    assert np.mean(highest >= fitted.doubtful_line) == pytest.approx(5 * TARGET_FAR, abs=0.01)


def test_of_scenes_with_things_no_more_have_a_wrong_box_than_was_asked() -> None:
    rows, asked = drawn(8000)
    careless = replace(CONFIG, target_far=1.0)
    fitted = regions.fit(rows, asked, replace(careless, target_wrong=0.001))
    log_odds = log_odds_of(fitted, rows)
    best = regions.strongest(log_odds, rows.place)[::2]
    assert np.mean(~rows.right[best] & (log_odds[best] >= fitted.line)) == pytest.approx(0.001, abs=0.0004)
    assert fitted.line > regions.fit(rows, asked, careless).line


def test_what_is_accepted_is_more_likely_right_than_not_however_weak_strangers_are() -> None:
    rows, asked = drawn(2000)
    strangers = np.isin(rows.scene, np.arange(1, 2000, 2))
    rows.features[strangers] = (-4, -0.5, -10, -10)
    fitted = regions.fit(rows, asked, CONFIG)
    assert fitted.line == 0
    assert fitted.doubtful_line <= 0


def test_two_classes_that_are_near_to_each_other_at_a_place_are_told_apart_by_a_gap() -> None:
    """Up to a gap of 0.2 every other of the better ones is wrong: one in ten of those up to 1."""
    count = 400
    gaps = np.linspace(0, 4, count)
    log_odds = np.column_stack([np.full(count, 5.0), 5.0 - gaps]).ravel()
    first_is_right = (gaps > 0.2) | (np.arange(count) % 2 == 0)
    right = np.column_stack([first_is_right, ~first_is_right]).ravel()
    place = np.repeat(np.arange(count), 2)
    rows = regions.Rows(np.zeros((2 * count, 3)), right, place, place, np.where(right, 0, -1))
    assert regions.ambiguous_margin(rows, log_odds, 0.0) == pytest.approx(1, abs=0.05)
    assert regions.ambiguous_margin(rows, log_odds, 6.0) == 0  # none is accepted


def test_without_a_scene_of_strangers_there_is_no_rate_to_keep() -> None:
    rows, asked = drawn(20)
    with pytest.raises(SystemExit, match="false accepts"):
        regions.fit(rows, [SHOWN] * len(asked), CONFIG)


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packs"
    draw_detector_packs(folder)
    write_zip(folder / "caltech101-dev" / "images.zip", {f"train/x/{n}.webp": photograph(300 + n) for n in range(12)})
    shown = {f"{number}.webp": photograph(400 + number) for number in range(4)}
    boxes = [(f"{number}.webp", "logo", [4, 4, 40 + number, 34 + number]) for number in range(4)]
    write_boxes(folder / "toplogo10-dev", shown, boxes)
    monkeypatch.setattr(scenes, "held_out", lambda name: name.startswith("toplogo10-dev/"))
    return folder


def write_models(folder: Path, network: bytes) -> Path:
    write_model_set(folder)
    (folder / regions.FILE).write_bytes(network)
    return folder


def flags(packs: Path, models: Path) -> list[str]:
    counts = ("--scenes", "4", "--photographs", "3", "--foreign", "8", "--sides-px", "64,96")
    return ["--data", str(packs), "--models", str(models), *counts]


def test_a_model_set_gets_its_detector_with_what_was_fitted(packs: Path, tmp_path: Path) -> None:
    models = write_models(tmp_path / "models", tiny_detector())
    before = read_model_set(models)
    regions.main(flags(packs, models))
    after = read_model_set(models)
    assert after.detector is not None
    assert (after.detector.network, after.detector.sides_px) == (tiny_detector(), (64, 96))
    assert after.model_set.detector is not None
    assert after.model_set.detector.width == 0.5
    assert after.model_set.detector.calibration != regions.UNFITTED
    assert after.model_set.calibration == before.model_set.calibration
    written = json.loads((models / "manifest.json").read_text())
    regions.main(flags(packs, models))  # again, of a model set that has one: the same
    assert json.loads((models / "manifest.json").read_text()) == written


def test_photographs_that_are_shown_are_not_asked(packs: Path) -> None:
    enrolled, asked = regions.photographs(regions.Config(data=packs))
    assert [(name, pixels.shape) for name, pixels in enrolled] == [("toplogo10-dev/logo", (37, 43, 3))]  # the largest
    assert len(asked) == 3
    assert {scene.things[0] for scene in asked} == {
        ("toplogo10-dev/logo", (4, 4, 44 + number, 38 + number)) for number in range(3)
    }


def test_scenes_have_what_is_enrolled_and_no_more(packs: Path) -> None:
    torch.manual_seed(0)
    enrolled, asked = regions.renders(regions.Config(data=packs, scenes=8), scenes.read_chosen_on(packs))
    names = [name for name, _ in enrolled]
    assert len(names) == len(set(names)) == 4  # of four marks and four fronts
    shown = {name for scene in asked for name, _ in scene.things}
    assert shown
    assert shown <= set(names)


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (tiny_detector(width=None), "no width"),
        (tiny_detector(64), "takes 64 pixels a side"),
        (b"nothing", "cannot open the detector"),
    ],
)
def test_a_detector_that_cannot_serve_leaves_the_manifest_alone(
    packs: Path, tmp_path: Path, network: bytes, complaint: str
) -> None:
    models = write_models(tmp_path / "models", network)
    before = (models / "manifest.json").read_bytes()
    with pytest.raises(SystemExit, match=complaint):
        regions.main(flags(packs, models))
    assert (models / "manifest.json").read_bytes() == before


def test_a_model_set_without_a_detector_says_so(packs: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"detector\.onnx"):
        regions.main(flags(packs, write_model_set(tmp_path / "models")))


def test_photographs_are_drawn_until_each_class_was_in_so_many() -> None:
    def shows(number: int, names: Sequence[str]) -> regions.items.Photograph:
        return regions.items.Photograph(f"{number}", None, tuple((name, (0, 0, 9, 9)) for name in names))  # type: ignore[arg-type]

    found = [shows(number, ["a"]) for number in range(20)] + [shows(20, ["a", "b"])]
    chosen = regions.at_most(2, found, seed=0)
    assert "20" in {one.id for one in chosen}
    assert sum(("a", (0, 0, 9, 9)) in one.boxes for one in chosen) <= 3


@pytest.mark.parametrize(
    ("thing", "is_right"),
    [(("red", (40, 30, 90, 70)), True), (("red", (95, 2, 118, 20)), False), (("green", (40, 30, 90, 70)), False)],
)
def test_a_class_is_right_where_a_thing_of_it_has_the_place(
    tmp_path: Path, thing: tuple[str, regions.Edges], is_right: bool
) -> None:
    config = regions.Config(models=write_models(tmp_path / "models", tiny_detector()), sides_px="64,96")
    loaded, detector, _ = regions.with_detector(read_model_set(config.models), config)
    eyes = regions.Eyes(loaded, detector)
    red, green = np.array((230, 20, 20), np.uint8), np.array((20, 200, 20), np.uint8)
    served = regions.proofs.serve(
        [(name, np.full((40, 50, 3), ink)) for name, ink in (("red", red), ("green", green))], eyes, loaded
    )
    scene = np.full((96, 120, 3), 128, np.uint8)
    scene[30:70, 40:90] = red
    rows = regions.look([regions.Scene(scene, (thing,), "renders")], served, eyes, loaded.model_set)
    first = regions.strongest(rows.features[:, 2], rows.place)[0]  # nearest in the detector's space: red
    assert (bool(rows.right[first]), int(rows.thing[first])) == (is_right, 0 if is_right else -1)
    assert rows.features[first, 2] == pytest.approx(0, abs=0.1)
    if thing[0] == "red":
        assert rows.right.sum() == is_right

"""Accuracy is counted per class, on what is asked only; arms are compared on the same questions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.adapters.model_set import read_model_set
from tests.model_sets import some_deltas, write_model_set
from tests.tiny_network import DIM
from tests.training.packs import draw_foreign_packs, print_of, write_zip
from training.data import Item
from training.evaluate import arms, episodes, few_shot
from training.evaluate.episodes import AskedItem, Episodes
from training.evaluate.few_shot import by_class, difference, interval_of, plain_rights, served_rule
from training.evaluate.rules import NearestMean, unit


def item(name: str, class_name: str) -> AskedItem:
    return AskedItem(name, class_name, name, Item(Path("none"), name, class_name))


ITEMS = (item("a0", "a"), item("a1", "a"), item("b0", "b"), item("b1", "b"), item("b2", "b"))


def test_the_nearest_mean_of_supports_decides_and_classes_count_alike() -> None:
    listed = Episodes(ITEMS, np.array([[[0], [2]]]), ("a", "b"))
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [0.9, 0.1]])
    rights = plain_rights(vectors, listed, 1, NearestMean())
    # a1 is nearest to a0: right. b1 is nearest to b0: right; b2 is nearest to a0: wrong.
    assert rights[0].tolist() == [1, 1, 0]
    assert by_class(listed, rights).tolist() == [[1.0, 0.5]]
    assert interval_of(listed, rights).mean == 0.75


def test_the_served_rule_makes_classes_with_the_synthesizer(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(5, DIM)))
    plain, made = (
        served_rule(write_model_set(tmp_path / name, deltas=deltas)).enrol(vectors, np.array([[0], [2]]))(vectors)
        for name, deltas in (("plain", None), ("made", some_deltas()))
    )
    calibration = read_model_set(tmp_path / "plain").model_set.calibration
    assert np.abs(made - plain).min() > 1e-3 * calibration.slope


def test_one_episode_varies_by_its_pictures() -> None:
    listed = Episodes(ITEMS, np.array([[[0], [2]]]), ("a", "b"))
    interval = interval_of(listed, [np.array([1.0, 1.0, 0.0])])
    # Class b alone is drawn in a quarter of the resamples, and then mostly with its wrong picture.
    assert (interval.low, interval.high) == (0.25, 1)


def test_arms_are_compared_on_the_episodes_that_both_have() -> None:
    listed = Episodes(ITEMS, np.array([[[0], [2]], [[1], [3]]]), ("a", "b"))
    paired = difference([np.array([1.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0])], [np.array([0.0, 1.0, 1.0])])
    assert len(paired) == 1
    assert by_class(listed, paired).tolist() == [[1.0, -0.5]]


def test_baselines_tell_what_they_are_made_to_tell() -> None:
    red, blue = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    bars = np.zeros((40, 40, 3), np.uint8)
    bars[:, ::8] = bars[:, 1::8] = bars[:, 2::8] = bars[:, 3::8] = 255
    upright, level = Image.fromarray(bars), Image.fromarray(bars.transpose(1, 0, 2))
    colours, shapes = arms.histogram([red, blue, red]), arms.hog([upright, level, upright])
    assert colours[0] @ colours[2] == pytest.approx(1)
    assert colours[0] @ colours[1] < 0.1
    assert shapes[0] @ shapes[2] == pytest.approx(1)
    assert shapes[0] @ shapes[1] < 0.5


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags for a task of three classes whose queries are the very pictures that are shown."""
    pictures = {f"{part}/{label}/{part}.webp": print_of(label) for part in ("train", "val") for label in range(3)}
    draw_foreign_packs(tmp_path)
    write_zip(tmp_path / "shop" / "images.zip", pictures)
    wanted = episodes.EpisodeSet("shop", 1, episodes=2)
    monkeypatch.setattr(episodes, "SETS", (wanted,))
    monkeypatch.setattr(episodes, "FOLDER", tmp_path)
    monkeypatch.setattr(episodes, "NEAR_FRAME_CORRELATION", 2.0)  # or nothing would be asked
    wanted.file.write_text(json.dumps(episodes.draw(wanted, tmp_path / "shop")))
    models = write_model_set(tmp_path / "models")
    return ["--data", str(tmp_path), "--models", str(models), "--task", wanted.name, "--results", str(tmp_path / "results")]


def test_plain_arms_and_the_service_have_a_result_file_each(task: list[str], tmp_path: Path) -> None:
    few_shot.main([*task, "--arms", "shipped,hog", "--foreign", "5"])
    plain = json.loads((tmp_path / "results" / "shop-1shot.json").read_text())
    assert plain["arms"]["hog"]["mean"] == 1.0
    assert list(plain["differences"]) == ["shipped - hog"]
    assert (plain["way"], plain["episodes"], plain["times_scored"]) == (3, 2, 1)

    served = json.loads((tmp_path / "results" / "service-shop-1shot.json").read_text())
    assert list(served["service"]) == ["off", "auto", "always"]
    for figures in served["service"].values():
        assert figures["top_1"]["mean"] == 1.0  # the same bytes
        assert sum(figures["answers"].values()) == pytest.approx(1)
        assert figures["foreign"]["right"] == 0
    assert list(served["differences"]) == ["always - off", "auto - off", "always - shipped"]
    assert served["foreign"] == {"packs": ["flickrlogos27-dev", "freiburg-groceries-dev", "grocery-store"], "pictures": 5}


def test_a_run_without_plain_arms_leaves_their_result_alone(task: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        few_shot.main([*task, "--arms", "", "--service", "off,always", "--foreign", "2", "--service-episodes", "1"])
    assert not (tmp_path / "results" / "shop-1shot.json").exists()
    served = json.loads((tmp_path / "results" / "service-shop-1shot.json").read_text())
    assert list(served["differences"]) == ["always - off", "always - shipped"]
    assert (served["episodes"], served["times_scored"]) == (1, 2)

"""Photographs that were kept back are asked for classes that were learnt, and each head answers with what it has learnt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from safetensors.torch import save_file  # noqa: E402

from app.domain.posterior import Regions  # noqa: E402
from tests.training.packs import draw_detector_packs, photograph, write_boxes  # noqa: E402
from training import detector, run, scenes  # noqa: E402
from training.data import Item  # noqa: E402
from training.evaluate import base_classes, finders, intervals, items  # noqa: E402
from training.evaluate.episodes import DetectEpisode  # noqa: E402
from training.evaluate.items import AskedItem, Photograph  # noqa: E402

PACK = "multidomain-det-dev"
A, B, OTHER = f"{PACK}/one/a", f"{PACK}/one/b", f"{PACK}/two/a"
PLACES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
FIGURES = {f"{kind}{line}{ending}" for line in (30, 50, 70) for kind, ending in (
    ("mean_ap", ""), ("pooled_ap", ""), ("pooled_ap", "_repeats_ignored"),
)}  # fmt: skip


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sources; of the first, photographs 0 to 2 were learnt from and 3 was kept back, of the second 5."""
    draw_detector_packs(tmp_path / "packs")
    boxes = [(f"{n}.webp", "one/a", [4, 4, 30 + n, 30]) for n in range(4)]
    boxes += [("0.webp", "one/a", [0, 0, 50, 50]), ("2.webp", "one/b", [10, 10, 40, 40]), ("3.webp", "one/b", [4, 4, 30, 30])]
    boxes += [("4.webp", "two/a", [4, 4, 30, 30]), ("5.webp", "two/a", [4, 4, 30, 30])]
    write_boxes(tmp_path / "packs" / PACK, {f"{n}.webp": photograph(n) for n in range(6)}, boxes)
    monkeypatch.setattr(scenes, "held_out", lambda name: not name.startswith(PACK))
    monkeypatch.setattr(scenes, "kept_back", lambda name, entry: name.startswith(PACK) and entry in ("3.webp", "5.webp"))
    monkeypatch.setattr(intervals, "RESAMPLES", 5)
    return tmp_path / "packs"


def test_what_was_kept_back_is_asked_and_what_was_learnt_from_is_shown(packs: Path) -> None:
    learnt = scenes.learnt_class_names(packs)
    listed = base_classes.episodes_of(packs, learnt, shots=2, seed=0)
    # For the classes of its own source alone.
    assert [(one.asked[0].id, sorted(one.shown)) for one in listed] == [
        (f"{PACK}/3.webp", [A, B]), (f"{PACK}/5.webp", [OTHER]),
    ]  # fmt: skip
    shown = listed[0].shown
    assert [len(shown[name]) for name in (A, B)] == [2, 1]  # b was learnt from one photograph
    assert {one.photograph for several in shown.values() for one in several} < {"0.webp", "1.webp", "2.webp"}
    (every,) = {one.source.box for one in base_classes.episodes_of(packs, learnt, shots=3, seed=0)[0].shown[A]
                if one.photograph == "0.webp"}  # fmt: skip
    assert every == (0, 0, 50, 50)  # the larger one of two
    assert [item.id for item in base_classes.episodes_of(packs, learnt, shots=2, seed=0)[0].shown[A]] == [i.id for i in shown[A]]


@pytest.mark.parametrize("name", [f"{PACK}/boxes/box", f"{PACK}/candy-bars/Twix", "toplogo10-dev/thing"])
def test_a_photograph_that_shows_what_is_left_out_is_not_asked(packs: Path, name: str) -> None:
    photographs = items.photographs_of(packs / PACK)
    kept = next(one for one in photographs if one.id == "3.webp")
    assert [one.id for one in photographs if base_classes.is_asked(one)] == ["3.webp", "5.webp"]
    assert not base_classes.is_asked(replace(kept, boxes=(*kept.boxes, (name, (0, 0, 9, 9)))))


class Sees:
    """The same regions in every photograph."""

    width = 0.5

    def __init__(self, vectors: Sequence[Sequence[float]]) -> None:
        self._regions = Regions(PLACES[: len(vectors)], np.full(len(vectors), 0.81, np.float32), np.array(vectors, np.float32))

    def __call__(self, _: object) -> Regions:
        return self._regions


def kept_of(vectors: Sequence[Sequence[float]], monkeypatch: pytest.MonkeyPatch) -> finders.Kept:
    monkeypatch.setattr(finders, "decoded", lambda source: None)
    return finders.Kept(Sees(vectors))


def asked_for(*names: str) -> DetectEpisode:
    shown: dict[str, tuple[AskedItem, ...]] = dict.fromkeys(names, ())
    return DetectEpisode(shown, (Photograph("p", Item(Path("none"), "p", ""), ()),))


def test_the_nearest_trained_representative_of_each_class_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 1, 0]], [[1, 0, 0], [1, 0, 0]]])
    is_there = torch.tensor([[True, True], [True, False], [True, True]])
    trained = base_classes.Trained(detector.tiny_detector(3), vectors, is_there, 0.5, None, (A, B, OTHER))
    arm = base_classes.Representatives(kept_of([[0, 1, 0], [0, 0, 1]], monkeypatch), trained)
    (found,) = arm.find(asked_for(A, B))
    best = {(one.class_name, one.edges): one.score for one in found}
    # Each lies on a representative: a probability of 1, and the root of the objectness. B's second one is not there.
    assert best[A, (0, 0, 10, 10)] == best[B, (20, 0, 30, 10)] == pytest.approx(0.9)
    assert best[B, (0, 0, 10, 10)] == pytest.approx(0.9 * np.exp(-2 / (2 * 0.25)))
    assert {one.class_name for one in found} == {A, B}  # the third is not asked about


def test_the_linear_classifier_is_a_softmax_over_what_is_asked_and_background(monkeypatch: pytest.MonkeyPatch) -> None:
    classify = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0], [9, 9, 9]])  # background has a bias of 1
    arm = base_classes.Linear(kept_of([[2, 0], [0, 2]], monkeypatch), classify, (A, B, OTHER))
    (found,) = arm.find(asked_for(A, B))
    best = {(one.class_name, one.edges): one.score for one in found}
    whole = np.exp(1) + np.exp(2) + np.exp(0)
    assert best[A, (0, 0, 10, 10)] == best[B, (20, 0, 30, 10)] == pytest.approx(0.9 * np.exp(2) / whole)
    assert best[B, (0, 0, 10, 10)] == pytest.approx(0.9 / whole)


@pytest.fixture
def finished(packs: Path, tmp_path: Path) -> Path:
    """A run folder as training leaves it, of a network that has learnt nothing."""
    torch.manual_seed(0)
    names = scenes.learnt_class_names(packs)
    learner = detector.Learner(detector.tiny_detector(4), torch.randn(len(names), 4), modes=2)
    average = run.prefixed("average", {name: tensor.clone() for name, tensor in learner.network.state_dict().items()})
    folder = tmp_path / "finished"
    folder.mkdir()
    save_file(run.prefixed("learner", learner.state_dict()) | average, folder / "checkpoint.safetensors")
    (folder / "config.json").write_text(json.dumps({"smoke": False, "linear_weight": 0.5}))
    return folder


def test_a_run_is_read_as_it_was_trained(packs: Path, finished: Path) -> None:
    trained = base_classes.read_run(finished, packs)
    classes = len(trained.class_names)
    assert trained.width == pytest.approx(0.5)
    assert trained.representatives.shape == (classes, 2, 4)
    assert torch.allclose(trained.representatives.norm(dim=2), torch.ones(classes, 2))
    assert trained.classify is not None
    assert trained.classify.shape == (1 + classes, 16 + 1)
    # Regions are those of the exported network: in pixels of the picture, all cells, embeddings of unit length.
    regions = base_classes.Network(trained, 64, trained.network.embed)(photograph(1).resize((90, 40)))
    assert len(regions) == len(detector.cells_of(64)[0])
    assert regions.boxes.max(0).tolist() <= [90, 40, 90, 40]
    assert np.allclose(np.linalg.norm(regions.embeddings, axis=1), 1, atol=1e-5)


def test_the_command_writes_the_figures_of_each_arm_and_their_differences(packs: Path, finished: Path, tmp_path: Path) -> None:
    (finished.parent / "plain").mkdir()
    (finished.parent / "plain" / "checkpoint.safetensors").write_bytes((finished / "checkpoint.safetensors").read_bytes())
    (finished.parent / "plain" / "config.json").write_text(json.dumps({"smoke": False, "linear_weight": 0.0}))
    out = tmp_path / "out.json"
    flags = ["--run", f"mine={finished},{finished.parent / 'plain'}", "--side-px", "64", "--shot", "1"]
    base_classes.main(["--data", str(packs), "--out", str(out), *flags])
    result = json.loads(out.read_text())
    assert {key: result[key] for key in ("sources", "asked_for", "classes", "photographs", "things", "times_scored")} == {
        "sources": 2, "asked_for": 3, "classes": 3, "photographs": 2, "things": 3, "times_scored": 1,
    }  # fmt: skip
    others = ["mine, linear", "mine, shown", "plain, trained", "plain, shown"]  # whose linear classifier was not trained
    assert list(result["base_classes"]) == ["mine, trained", *others]
    assert list(result["differences"]) == [f"mine, trained - {other}" for other in others]
    assert all(numbers.keys() == FIGURES for numbers in result["base_classes"].values())
    assert set(result["differences"]["mine, trained - plain, trained"]["mean_ap30"].values()) == {0.0}  # the same weights


def test_figures_and_paired_differences_by_hand() -> None:
    found = base_classes.figures_of(
        {"one": {"mean_ap50": np.array([0.5, 0.4, 0.6])}, "other": {"mean_ap50": np.array([0.3, 0.2, 0.4])}}
    )
    assert found["base_classes"]["one"]["mean_ap50"] == {"mean": 0.5, "low": 0.405, "high": 0.595}
    assert found["differences"] == {"one - other": {"mean_ap50": {"mean": 0.2, "low": 0.2, "high": 0.2}}}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--run", "nowhere"], "--run nowhere: there is no checkpoint"),
        (["--run", "{run},{run}"], "--run: two are called finished"),
        (["--side-px", "100"], "--side-px 100: .* multiples of 32"),
        (["--shot", "0"], "--shot 0"),
        (["--data", "nowhere"], "--data nowhere: there is no multidomain-det-dev and no toplogo10-dev"),
    ],
)
def test_what_there_is_not_ends_the_command(packs: Path, finished: Path, flags: list[str], sentence: str) -> None:
    defaults = ["--data", str(packs), "--run", str(finished), "--out", str(packs / "out.json")]
    with pytest.raises(SystemExit, match=sentence):
        base_classes.main([*defaults, *(flag.format(run=finished) for flag in flags)])


def test_a_run_of_other_classes_ends_the_command(packs: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(scenes.learnt_class_names(packs))
    monkeypatch.setattr(scenes, "learnt_class_names", lambda *_, **__: ("only/one",))
    with pytest.raises(SystemExit, match=f"has learnt {count} classes, and the packs of --data have 1"):
        base_classes.read_run(finished, packs)


def test_packs_of_which_nothing_was_kept_back_end_the_command(
    packs: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "kept_back", lambda *_: False)
    names = scenes.learnt_class_names(packs)
    assert len(names) > 0
    with pytest.raises(SystemExit, match="no photograph of a class that was learnt is kept back"):
        base_classes.main(["--data", str(packs), "--run", str(finished), "--out", str(packs / "out.json")])

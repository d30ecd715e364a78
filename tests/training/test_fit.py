"""One command makes a model set of a network and a folder of pictures: what it says is measured on what nobody enrolled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

import onnx  # noqa: E402
from onnx import helper  # noqa: E402

from app.adapters.model_set import LoadedModelSet, read_model_set  # noqa: E402
from app.domain.calibration import Calibration  # noqa: E402
from app.domain.representatives import fit_class, no_synthesis  # noqa: E402
from app.domain.values import Box, Example  # noqa: E402
from tests.model_sets import write_model_set  # noqa: E402
from tests.tiny_network import DIM, tiny_network  # noqa: E402
from tests.training.packs import draw_print_packs, draw_training_packs, photograph, write_folder  # noqa: E402
from training import calibrate, fit, synthesizer  # noqa: E402
from training.calibrate import Enroller  # noqa: E402
from training.delta_encoder import DeltaEncoder  # noqa: E402
from training.fit import Photographed, right_first  # noqa: E402
from training.synthesizer import NO_SYNTHESIS, Synthesis  # noqa: E402


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return write_model_set(tmp_path / "shipped", lambda manifest: manifest["calibration"]["proof"].update(look=2.0))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A network of its own that says where it came from, and nothing else."""
    network = onnx.load_model_from_string(tiny_network(scale=1 + 1e-6))
    helper.set_model_props(network, {"command": "export", "weights": "random start"})
    (tmp_path / "mine").mkdir()
    onnx.save(network, tmp_path / "mine" / "embedding.onnx")
    return tmp_path / "mine"


def coloured(label: int, number: int) -> Image.Image:
    """Pictures of one class have a colour in common."""
    hue = Image.new("HSV", (60, 60), (label * 21, 255, 255)).convert("RGB")
    return Image.blend(photograph(100 * label + number), hue, 0.7)


def draw_folder(folder: Path, *, classes: int = 12, each: int = 5) -> Path:
    return write_folder(folder, {f"class-{c}/{n}.webp": coloured(c, n) for c in range(classes) for n in range(each)})


def run(mine: Path, data: Path, shipped: Path, **more: object) -> LoadedModelSet:
    flags = {"model": mine, "data": data, "shipped": shipped, "target-far": 0.02, **more}
    fit.main([str(part) for name, value in flags.items() for part in (f"--{name}", value)])
    return read_model_set(mine)


def test_a_network_and_a_folder_of_class_folders_make_a_model_set(mine: Path, shipped: Path, tmp_path: Path) -> None:
    loaded = run(mine, draw_folder(tmp_path / "pictures"), shipped)
    assert (loaded.name, loaded.model_set.calibration.target_far) == ("mine", 0.02)
    assert loaded.model_set.cohort.shape == (12, DIM)  # one photograph in five of each class
    assert loaded.points.words.tobytes() == read_model_set(shipped).points.words.tobytes()
    training = json.loads((mine / "manifest.json").read_text())["training"]
    assert training["command"] == "export (random start); python -m training fit --data pictures"
    assert training["packs"] == ["pictures"]


def test_a_copy_of_what_ships_keeps_its_proofs_and_says_what_it_learnt_from(shipped: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shipped, tmp_path / "copy"))
    np.save(copy / "words.npy", np.ones((3, 128), np.uint8))
    loaded = run(copy, draw_folder(tmp_path / "pictures"), shipped, name="acme")
    assert loaded.model_set.calibration.proof == read_model_set(shipped).model_set.calibration.proof
    assert (loaded.name, loaded.points.words.shape) == ("acme", (3, 128))  # its own code book is kept
    assert json.loads((copy / "manifest.json").read_text())["training"]["command"].startswith("by hand; ")


def put_synthesizer(folder: Path) -> None:
    network, codes = DeltaEncoder(DIM, hidden=4, code=2, dropout=0.0, residual=True), torch.randn(5, 2)
    synthesizer.write(network.eval(), codes, synthesizer.Config(models=folder))


def test_a_synthesizer_stays_with_the_network_that_it_was_trained_for(mine: Path, shipped: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shipped, tmp_path / "copy"))
    for folder in (mine, copy):
        put_synthesizer(folder)
    pictures = draw_folder(tmp_path / "pictures")
    assert run(copy, pictures, shipped).model_set.real_share == synthesizer.Config.real_share
    assert run(mine, pictures, shipped).synthesis is None  # too few classes to teach another
    assert not (mine / synthesizer.DECODER_FILE).exists()


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    train = synthesizer.train
    monkeypatch.setattr(synthesizer, "train", lambda config, sets: train(replace(config, steps=2, episodes=2), sets))


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("helps", [True, False])
def test_another_network_is_given_a_synthesizer_where_it_helps_classes_that_it_does_not_know(
    mine: Path, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    monkeypatch.setattr(fit, "LEAST_FOR_SYNTHESIS", 12)
    worth = {True: 0.5 + (0.1 if helps else -0.1), False: 0.5}
    asked: list[int] = []

    def right_first(classes: Sequence[Photographed], synthesis: Synthesis, seed: int) -> float:
        asked.append(len(classes))
        return worth[synthesis is not NO_SYNTHESIS]

    monkeypatch.setattr(fit, "right_first", right_first)
    fitted_on: list[int] = []
    calibrated = fit.calibration_on
    monkeypatch.setattr(
        fit, "calibration_on", lambda classes, config: fitted_on.append(len(classes)) or calibrated(classes, config)
    )
    loaded = run(mine, draw_folder(tmp_path / "pictures", classes=13), shipped)
    assert asked == [6, 6]
    assert fitted_on == [6 if helps else 13]
    assert (loaded.synthesis is not None) == helps == (mine / synthesizer.DECODER_FILE).exists()
    assert len(loaded.model_set.cohort) == 13  # what the service compares with may be of any class


def test_a_synthesizer_is_judged_by_the_pictures_that_find_their_own_class() -> None:
    """Examples all point one way; only what is made of them tells their classes apart."""
    size = 4
    unit = np.eye(size, dtype=np.float32)
    example = Example("0", Box(0, 0, 9, 9), np.full(size, 0.5, np.float32), 0.0)
    classes = [Photographed([example] * 2, unit[[n, n]], unit[[n, n]], unit[[n]]) for n in range(size)]
    order = iter(range(10**6))

    def of_the_next_class(support: np.ndarray, seed: int) -> np.ndarray:
        return unit[None, None, next(order) % size].repeat(len(support), 0)

    assert right_first(classes, NO_SYNTHESIS, 0) == 0.25  # the first of equals
    assert right_first(classes, Synthesis(of_the_next_class, 0.5), 0) == 1.0


def test_what_the_look_of_a_place_is_worth_is_not_taken_over_from_another_network(
    mine: Path, shipped: Path, tmp_path: Path
) -> None:
    proof = run(mine, draw_folder(tmp_path / "pictures"), shipped).model_set.calibration.proof
    before = read_model_set(shipped).model_set.calibration.proof
    assert proof == replace(before, look=0.0, looked_from=fit.NEVER)


@pytest.mark.usefixtures("quickly")
def test_the_packs_of_the_project_are_fitted_on_as_its_own_stages_do(mine: Path, shipped: Path, tmp_path: Path) -> None:
    packs = tmp_path / "packs"
    draw_training_packs(packs)
    draw_print_packs(packs)
    loaded = run(mine, packs, shipped, **{"target-far": 0.1})
    assert loaded.model_set.calibration.target_far == 0.1
    assert loaded.synthesis is not None
    assert loaded.model_set.calibration.proof not in (calibrate.UNFITTED, read_model_set(shipped).model_set.calibration.proof)


def test_too_few_classes_are_counted_without_their_near_duplicates_and_nothing_is_written(
    mine: Path, shipped: Path, tmp_path: Path
) -> None:
    folder = draw_folder(tmp_path / "pictures", classes=11, each=3)
    for number in (1, 2):  # one picture under three names is one photograph
        shutil.copy(folder / "class-0" / "0.webp", folder / "class-0" / f"{number}.webp")
    (folder / "class-1" / "0.webp").unlink()
    with pytest.raises(SystemExit, match=r"9 of its 11 classes have 3 pictures or more, .* it takes 10 such classes"):
        run(mine, folder, shipped)
    assert not (mine / "manifest.json").exists()
    assert not (mine / "cohort.npy").exists()


def test_ten_classes_of_three_pictures_are_enough(mine: Path, shipped: Path, tmp_path: Path) -> None:
    assert len(run(mine, draw_folder(tmp_path / "pictures", classes=10, each=3), shipped).model_set.cohort) == 10


@pytest.mark.parametrize(
    ("missing", "said"),
    [("mine/embedding.onnx", "embedding.onnx"), ("shipped/manifest.json", "manifest.json of the model set cannot be read")],
)
def test_a_file_that_is_not_there_is_named(mine: Path, shipped: Path, tmp_path: Path, missing: str, said: str) -> None:
    (tmp_path / missing).unlink()
    with pytest.raises(SystemExit, match=said):
        run(mine, draw_folder(tmp_path / "pictures"), shipped)


def test_what_is_no_network_is_said(mine: Path, shipped: Path, tmp_path: Path) -> None:
    (mine / "embedding.onnx").write_bytes(b"hello")
    with pytest.raises(SystemExit, match="cannot open the embedding network"):
        run(mine, draw_folder(tmp_path / "pictures"), shipped)


def test_a_network_that_does_not_tell_the_classes_apart_is_said(
    mine: Path, shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "fit_probability", lambda _: (-1.0, 0.0, 0.0, 0.0))  # the more alike, the less likely
    with pytest.raises(SystemExit, match="does not tell the classes of --data apart"):
        run(mine, draw_folder(tmp_path / "pictures"), shipped)


# ------------------------------------------------------------------------------------------------- what is fitted, on vectors


def drawn_classes(count: int, *, each: int = 8, seed: int = 0) -> list[fit.Photographed]:
    """Unit vectors around a direction of each class."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        rows = rng.normal(size=32) + 0.6 * rng.normal(size=(each, 32))
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        own, cohort = rows[: -max(1, each // 4)], rows[-max(1, each // 4) :]
        examples = [Example(str(n), Box(0, 0, 9, 9), row, 0.0) for n, row in enumerate(own)]
        found.append(fit.Photographed(examples, own, own, cohort))
    return found


def accepted(calibration: Calibration, cohort: np.ndarray, enrolled: list[fit.Photographed]) -> tuple[float, float]:
    """Shares of a class's own pictures and of other classes' pictures that a class of two examples accepts."""
    model_set = replace(calibrate.placeholder_model_set(cohort), calibration=calibration, cohort=cohort.astype(np.float64))
    own, foreign = [], []
    for one in enrolled:
        model = fit_class(one.examples[:2], model_set=model_set, synthesize=no_synthesis)
        own.append((one.asked[2:] @ model.representatives.T).max(1) >= model.threshold)
        others = np.concatenate([other.asked for other in enrolled if other is not one])
        foreign.append((others @ model.representatives.T).max(1) >= model.threshold)
    return float(np.concatenate(own).mean()), float(np.concatenate(foreign).mean())


CONFIG = fit.Config(Path("mine"), Path("pictures"), target_far=0.02)


def test_classes_that_were_not_in_the_folder_accept_about_the_share_of_foreign_pictures_that_was_stated() -> None:
    classes = drawn_classes(60)
    calibration = fit.calibration_on(classes, CONFIG)
    own, foreign = accepted(calibration, np.concatenate([one.cohort for one in classes]), drawn_classes(60, seed=1))
    assert 0.01 < foreign < 0.04
    assert own > 0.9


@pytest.mark.parametrize("classes", [12, 60])
def test_the_classes_of_the_folder_know_their_own_pictures_though_some_are_in_the_cohort(classes: int) -> None:
    drawn = drawn_classes(classes)
    own, _ = accepted(fit.calibration_on(drawn, CONFIG), np.concatenate([one.cohort for one in drawn]), drawn)
    assert own > 0.85


def test_no_photograph_is_in_the_cohort_and_enrolled_and_none_is_asked_of_the_class_it_was_shown_for(tmp_path: Path) -> None:
    network = fit.OnnxEmbedder(tiny_network())
    config = replace(CONFIG, data=draw_folder(tmp_path / "pictures", classes=10, each=9))
    for one in fit.read_classes(config, Enroller(network)):
        assert (len(one.examples), len(one.cohort)) == (7, 2)
        assert not any(np.allclose(row, kept) for row in one.asked for kept in one.cohort)
        for seed in range(10):
            enrolled = fit.enrolled_of(one, np.random.default_rng(seed))
            assert len(enrolled.examples) == max(calibrate.SHOTS)
            assert not any(np.array_equal(enrolled.asked[0], example.embedding) for example in enrolled.examples)
            assert any(np.array_equal(enrolled.asked[0], row) for row in one.asked)


def test_few_pairs_are_said_to_be_few(capsys: pytest.CaptureFixture[str]) -> None:
    fit.say_how_sure(drawn_classes(10, each=4), 0.02)  # 30 pictures x 9 other classes
    assert "270 pairs" in (said := capsys.readouterr().out)
    assert "few" in said
    fit.say_how_sure(drawn_classes(60), 0.02)
    assert "few" not in capsys.readouterr().out

"""What a synthesizer makes of one picture of a new class lies nearer to that class than the picture does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from training import delta_encoder, features, synthesizer  # noqa: E402
from training.delta_encoder import DeltaEncoder  # noqa: E402
from training.synthesizer import BANK_FILE, DECODER_FILE, ENCODER_FILE, WEIGHTS_FILE, Config, Shelf  # noqa: E402

CLASSES, EACH, SIZE = 30, 10, 12
NUISANCE = slice(0, 4)  # where pictures of one class differ
FILES = (ENCODER_FILE, DECODER_FILE, BANK_FILE, WEIGHTS_FILE)


def toy(seed: int, *, classes: int = CLASSES, in_circle: bool = False) -> features.FeatureSet:
    """Classes that lie apart in some directions; their pictures differ in others."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, SIZE))
    means[:, NUISANCE] = 0
    labels = np.arange(classes).repeat(EACH)
    vectors = means[labels] / 4
    vectors[:, NUISANCE] += rng.normal(size=(len(labels), 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    either = np.ones(len(labels), bool)
    names = tuple(f"toy/{number:03d}" for number in range(classes))
    views = np.empty((len(labels), 0, SIZE), np.float32)
    return features.FeatureSet(vectors.astype(np.float32), labels, names, either, either, views, in_circle)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for seed in (0, 1):
        features.write(toy(seed), tmp_path / f"{seed}.npz")
    return Config(
        features=tmp_path, models=tmp_path / "models", hidden=64, code=4, dropout=0.0,
        steps=40, episodes=150, rate=1e-2, weight_decay=0.0, bank=20,
    )  # fmt: skip


def trained(config: Config) -> tuple[DeltaEncoder, torch.Tensor]:
    return synthesizer.train(config, synthesizer.read_sets(config.features))


def one_shot_accuracy(network: DeltaEncoder, codes: torch.Tensor) -> tuple[float, float]:
    """Of new classes: by the shot alone, and by the shot moved towards what is made of it."""
    shelf = Shelf.of(toy(5))
    shots, asked = shelf.pairs(CLASSES, torch.Generator().manual_seed(0))
    with torch.no_grad():
        towards = synthesizer.moved(shots, network.decode(shots[:, None], codes[None]), 0.5)
    truth = torch.arange(len(shots))
    plain, with_it = ((asked @ each.T).argmax(1).eq(truth).float().mean().item() for each in (shots, towards))
    return plain, with_it


def test_teaching_makes_one_picture_tell_more_of_its_class(config: Config) -> None:
    plain, taught = one_shot_accuracy(*trained(config))
    _, untaught = one_shot_accuracy(*trained(replace(config, episodes=0)))
    assert taught > plain + 0.15
    assert taught > untaught + 0.1


def test_a_folder_without_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no \.npz is there"):
        synthesizer.read_sets(tmp_path / "none")


def test_the_same_seed_makes_the_same_synthesizer(config: Config) -> None:
    short = replace(config, steps=5, episodes=5)
    (one, codes), (other, codes_again) = trained(short), trained(short)
    assert torch.equal(codes, codes_again)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_what_is_written_is_what_was_trained(config: Config) -> None:
    torch.manual_seed(0)
    network, codes = DeltaEncoder(SIZE, hidden=8, code=4, dropout=0.5, residual=True), torch.randn(10, 4).half().float()
    network = network.half().float().eval()
    synthesizer.write(network, codes, config)
    assert sorted(path.name for path in config.models.iterdir()) == sorted(FILES)
    synthesis = synthesizer.synthesis_of(config.models)
    shots = torch.nn.functional.normalize(torch.randn(2, SIZE), dim=1)
    made = synthesis.synthesize(shots.numpy(), 0)
    all_made = delta_encoder.synthesise(network, shots, codes).numpy()  # (shots, codes, d)
    assert synthesis.real_share == config.real_share
    assert made.shape == (2, 10, SIZE)
    assert made == pytest.approx(all_made, abs=1e-5)  # more are wanted than there are codes: all of them, in their order


def test_nothing_is_written_of_a_network_that_onnx_computes_otherwise(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesizer, "with_half_weights", lambda model: rounded(model))
    network = DeltaEncoder(SIZE, hidden=8, code=4, dropout=0.5, residual=True).eval()
    with pytest.raises(SystemExit, match="nothing was written"):
        synthesizer.write(network, torch.randn(10, 4), config)
    assert not config.models.exists()


def rounded(model: synthesizer.onnx.ModelProto) -> synthesizer.onnx.ModelProto:
    """The same graph with another bias in every layer."""
    for initializer in model.graph.initializer:
        values = synthesizer.onnx.numpy_helper.to_array(initializer)
        if values.ndim == 1 and values.dtype == np.float32:
            initializer.CopyFrom(synthesizer.onnx.numpy_helper.from_array(values + 0.5, initializer.name))
    return model


def test_a_folder_without_a_decoder_has_no_synthesis(tmp_path: Path) -> None:
    assert synthesizer.synthesis_of(tmp_path) is synthesizer.NO_SYNTHESIS
    assert synthesizer.manifest_entry(tmp_path, lambda name: {"file": name, "sha256": ""}) is None


def row_of(found: features.FeatureSet, vector: torch.Tensor) -> int:
    return int((found.features @ vector.numpy()).argmax())


@pytest.mark.parametrize("in_circle", [False, True])
def test_what_is_asked_is_never_what_is_shown_nor_beside_it(in_circle: bool) -> None:
    found = toy(0, in_circle=in_circle)
    shelf, generator = Shelf.of(found), torch.Generator().manual_seed(0)
    apart = set()
    for _ in range(30):
        shown, asked = ([row_of(found, one) for one in part] for part in shelf.pairs(8, generator))
        assert [found.labels[row] for row in shown] == [found.labels[row] for row in asked]
        apart |= {(a - b) % EACH for a, b in zip(shown, asked, strict=True)}
    assert apart == set(range(2, EACH - 1)) if in_circle else apart == set(range(1, EACH))


def test_what_may_be_asked_may_be_shown_too_but_not_the_other_way_round() -> None:
    found = toy(0)
    may_show = np.arange(len(found.labels)) % EACH < 3
    found = replace(found, may_show=may_show, may_ask=~may_show, views=np.empty((may_show.sum(), 0, SIZE), np.float32))
    shelf, generator = Shelf.of(found), torch.Generator().manual_seed(0)
    pairs = [shelf.pairs(CLASSES, generator) for _ in range(5)]
    shown, asked = ({row_of(found, one) for part in parts for one in part} for parts in zip(*pairs, strict=True))
    assert {bool(may_show[row]) for row in shown} == {True, False}
    assert {bool(may_show[row]) for row in asked} == {False}

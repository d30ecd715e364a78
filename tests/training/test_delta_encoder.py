"""What a delta-encoder learns on some classes moves the pictures of another along the direction in which they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from torch import Tensor  # noqa: E402

from training import delta_encoder, features  # noqa: E402
from training.delta_encoder import Base, Config, DeltaEncoder, weighted_l1  # noqa: E402

CLASSES, EACH, SIZE = 40, 10, 12
NUISANCE = 3  # the direction in which pictures of one class differ


def toy(seed: int, *, classes: int = CLASSES) -> features.FeatureSet:
    """Classes around means of length 1, of which pictures differ along one direction only."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.nn.functional.normalize(torch.randn(classes, SIZE, generator=generator), dim=1)
    means[:, NUISANCE] = 0
    labels = torch.arange(classes).repeat_interleave(EACH)
    vectors = means[labels]
    vectors[:, NUISANCE] = torch.randn(len(labels), generator=generator)
    either = np.ones(len(labels), bool)
    names = tuple(f"toy/{seed}-{number:03d}" for number in range(classes))
    views = np.empty((len(labels), 0, SIZE), np.float32)
    return features.FeatureSet(vectors.numpy(), labels.numpy(), names, either, either, views, in_circle=False)


def config_of(folder: Path, **others: object) -> Config:
    features.write(toy(0), folder / "toy.npz")
    small = {"hidden": 64, "code": 4, "steps": 300, "batch": 64, "rate": 3e-3, "dropout": 0.0, "residual": True, "detached": True}
    return Config(**{"features": folder / "toy.npz", "run": folder / "run", **small, **others})  # type: ignore[arg-type]


def test_the_loss_is_the_absolute_difference_weighted_by_its_square() -> None:
    wanted, found = torch.tensor([[1.0, 0.0, 2.0]]), torch.zeros(1, 3)
    # |1|, |0|, |2| with weights 1/5, 0 and 4/5.
    assert weighted_l1(found, wanted, detached=False) == pytest.approx(1 / 5 + 8 / 5, abs=1e-5)
    assert weighted_l1(found, wanted, detached=True) == pytest.approx(1 / 5 + 8 / 5, abs=1e-5)


def test_the_gradient_goes_through_the_weights_only_where_they_are_not_detached() -> None:
    def slope(detached: bool) -> list[float]:
        found = torch.zeros(1, 2, requires_grad=True)
        weighted_l1(found, torch.tensor([[1.0, 2.0]]), detached=detached).backward()
        return found.grad[0].tolist()  # type: ignore[index]

    # Detached: minus the weights. As released, of a^3 + b^3 over a^2 + b^2: minus (3 a^2 (a^2 + b^2) - 2 a (a^3 + b^3)) / 25.
    assert slope(detached=True) == pytest.approx([-0.2, -0.8], abs=1e-4)
    assert slope(detached=False) == pytest.approx([-(15 - 18) / 25, -(60 - 36) / 25], abs=1e-4)


def test_a_picture_is_never_its_own_reference() -> None:
    base = Base(torch.randn(9, 4), torch.tensor([0, 0, 1, 1, 1, 1, 2, 3, 3]))
    x, y = base.pairs(500, torch.Generator().manual_seed(0))
    assert (x != y).all()
    assert (base.labels[x] == base.labels[y]).all()
    assert 6 not in y.tolist(), "the only picture of its class"
    epoch = [torch.cat(parts) for parts in zip(*delta_encoder.epoch_of(base, 4, torch.Generator().manual_seed(0)), strict=True)]
    assert sorted(epoch[0].tolist()) == [0, 1, 2, 3, 4, 5, 7, 8] == sorted(epoch[1].tolist())
    assert (epoch[0] != epoch[1]).all()
    assert (base.labels[epoch[0]] == base.labels[epoch[1]]).all()


def test_references_come_by_their_share() -> None:
    base, share = Base(torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 1])), torch.tensor([0.0, 0, 0, 1, 0, 0])
    x, y = base.pairs(50, torch.Generator().manual_seed(0), share=share)
    assert set(y.tolist()) == {3}
    assert set(x.tolist()) == {4, 5}


@pytest.mark.parametrize("residual", [False, True])
def test_decoding_many_codes_is_decoding_each(residual: bool) -> None:
    network = DeltaEncoder(6, hidden=8, code=3, dropout=0.5, residual=residual).eval()
    shots, codes = torch.nn.functional.normalize(torch.randn(2, 6), dim=1), torch.randn(5, 3)
    made = delta_encoder.synthesise(network, shots, codes)
    one = network.decoder(torch.cat([shots[1] * 6**0.5, codes[4]]))[None] / 6**0.5
    expected = torch.nn.functional.normalize(one + shots[1] if residual else one, dim=1)[0]
    assert made.shape == (2, 5, 6)
    assert torch.allclose(made[1, 4], expected, atol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = config_of(tmp_path_factory.mktemp("toy"))
    delta_encoder.train(config)
    return config


def test_made_up_pictures_differ_along_the_direction_of_the_class(trained: Config) -> None:
    network = delta_encoder.train(trained)
    space, base = delta_encoder.learnt_from(features.read(trained.features))
    shots = space(torch.from_numpy(toy(1, classes=5).features[::EACH]))
    codes = delta_encoder.codes_of(network, base, base.pairs(200, torch.Generator().manual_seed(0)))
    variances = delta_encoder.synthesise(network, shots, codes).var(1)  # (shots, d)
    # Length 1 makes the others give way where the nuisance grows, but none by as much.
    assert (variances[:, NUISANCE] > 4 * variances.sum(1) / SIZE).all()


def one_shot_accuracy(shots: Tensor, asked: Tensor, truth: Tensor, made: Tensor | None) -> float:
    vectors = shots[:, None] if made is None else torch.cat([shots[:, None], made], 1)
    labels = torch.arange(len(shots)).repeat_interleave(vectors.shape[1])
    weights, biases = delta_encoder.linear_classifier(vectors.flatten(0, 1)[None], labels, len(shots), steps=300)
    return float(((asked @ weights[0].T + biases[0]).argmax(1) == truth).float().mean())


def test_the_papers_classifier_gains_where_deltas_must_help(trained: Config) -> None:
    network = delta_encoder.train(trained)
    space, base = delta_encoder.learnt_from(features.read(trained.features))
    new = toy(1, classes=20)
    vectors, labels = space(torch.from_numpy(new.features)), torch.from_numpy(new.labels)
    rest = torch.arange(len(labels)) % EACH > 0
    codes = delta_encoder.codes_of(network, base, base.pairs(100, torch.Generator().manual_seed(0)))
    made = delta_encoder.synthesise(network, vectors[~rest], codes)
    plain = one_shot_accuracy(vectors[~rest], vectors[rest], labels[rest], None)
    assert one_shot_accuracy(vectors[~rest], vectors[rest], labels[rest], made) > plain + 0.1


def test_the_same_seed_makes_the_same_network_and_a_finished_run_is_read(tmp_path: Path) -> None:
    first = delta_encoder.train(config_of(tmp_path / "a", steps=20))
    second = delta_encoder.train(config_of(tmp_path / "b", steps=20))
    again = delta_encoder.train(config_of(tmp_path / "a", steps=20))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
        assert torch.equal(value, again.state_dict()[name])


def test_a_folder_of_another_config_is_refused(tmp_path: Path) -> None:
    delta_encoder.train(config_of(tmp_path, steps=6))
    with pytest.raises(ValueError, match="another config"):
        delta_encoder.train(config_of(tmp_path, steps=6, hidden=32))


def test_teaching_mean_and_spread_brings_what_is_made_nearer_to_the_class(trained: Config, tmp_path: Path) -> None:
    before = delta_encoder.train(trained)
    start = str(trained.run / "checkpoint.safetensors")
    after = delta_encoder.train(replace(trained, steps=0, meta_steps=100, run=tmp_path / "taught", start_from=start))
    _, base = delta_encoder.learnt_from(features.read(trained.features))
    means, _ = delta_encoder.statistics_of(base)

    def similarity_to_class(network: DeltaEncoder) -> float:
        codes = delta_encoder.codes_of(network, base, base.pairs(100, torch.Generator().manual_seed(0)))
        made = delta_encoder.synthesise(network, base.vectors, codes).mean(1)
        return float(torch.nn.functional.cosine_similarity(made, means).mean())

    assert similarity_to_class(after) > similarity_to_class(before) + 0.02


def test_classes_that_are_held_out_are_not_learnt_from() -> None:
    found = toy(0)
    _, base = delta_encoder.learnt_from(found)
    kept = sum(not delta_encoder.held_out(name) for name in found.class_names)
    assert 0 < kept < CLASSES
    assert len(base.counts) == kept

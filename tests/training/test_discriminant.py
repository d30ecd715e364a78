"""The discriminant scales down what varies inside classes, and only that."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from torch import Tensor  # noqa: E402

from training import discriminant  # noqa: E402

CLASSES, EACH, SIZE = 60, 8, 12
NUISANCE = 3  # the direction in which pictures of one class differ


def pictures(seed: int) -> tuple[Tensor, Tensor]:
    """Descriptions around class means, spread ten times as far along one direction as along the others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    spread = torch.full((SIZE,), 0.2)
    spread[NUISANCE] = 2.0
    means = torch.randn(CLASSES, SIZE, generator=generator)
    return 5 + means[labels] + spread * torch.randn(len(labels), SIZE, generator=generator), labels


def one_shot_accuracy(vectors: Tensor, labels: Tensor) -> float:
    supports, asked = vectors[::EACH], np.arange(len(labels)) % EACH > 0
    return float(((vectors[asked] @ supports.T).argmax(1) == labels[asked]).float().mean())


def test_new_classes_are_told_apart_better() -> None:
    fitted = discriminant.fit({"seen": pictures(0)}, shrinkage=0.1, dimensions=SIZE)
    vectors, labels = pictures(1)
    plain = torch.nn.functional.normalize(vectors - vectors.mean(0))
    assert one_shot_accuracy(fitted(vectors), labels) > one_shot_accuracy(plain, labels) + 0.2


def test_few_dimensions_leave_out_the_nuisance() -> None:
    fitted = discriminant.fit({"seen": pictures(0)}, shrinkage=0.0, dimensions=4)
    strength = fitted.matrix.norm(dim=1)
    assert fitted.matrix.shape == (SIZE, 4)
    assert strength.argmin() == NUISANCE
    assert np.allclose(fitted(pictures(1)[0]).norm(dim=1), 1, atol=1e-5)


def test_full_shrinkage_only_centres() -> None:
    vectors, labels = pictures(0)
    fitted = discriminant.fit({"seen": (vectors, labels)}, shrinkage=1.0, dimensions=SIZE)
    centred = torch.nn.functional.normalize(vectors - vectors.mean(0))
    assert np.allclose(fitted(vectors) @ fitted(vectors).T, centred @ centred.T, atol=1e-4)


def test_each_kind_weighs_the_same_however_many_pictures_it_has() -> None:
    (vectors, labels), other = pictures(0), pictures(1)
    many = torch.cat([vectors] * 3), torch.cat([labels + CLASSES * copy for copy in range(3)])
    once = discriminant.fit({"a": (vectors, labels), "b": other}, shrinkage=0.5, dimensions=SIZE)
    thrice = discriminant.fit({"a": many, "b": other}, shrinkage=0.5, dimensions=SIZE)
    assert np.allclose(once.mean, thrice.mean, atol=1e-4)
    assert np.allclose(once(vectors) @ once(vectors).T, thrice(vectors) @ thrice(vectors).T, atol=1e-2)


def test_the_scatter_is_the_covariance_around_class_means() -> None:
    vectors, labels = pictures(0)
    alone = torch.full((1, SIZE), 9.0)  # a class of one picture says nothing of spread
    found = discriminant.within_class_scatter(torch.cat([vectors, alone]), torch.cat([labels, torch.tensor([CLASSES])]))
    expected = np.mean([np.cov(vectors[labels == label].numpy().T) for label in range(CLASSES)], 0)
    assert np.allclose(found, expected, atol=1e-4)

"""Classifiers on frozen features, each of many episodes at once, each linear: weights (e, ways, d) and biases (e, ways).

Nearest mean (SimpleShot, Wang et al. 2019), linear discriminant analysis with one shrunk covariance for all classes, ridge and
logistic regression, Distribution Calibration (Yang et al., ICLR 2021), and three ways to guess a class's mean from few pictures.
What they know of classes in general is `Knowledge`, of base classes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from training.delta_encoder import Base
from training.discriminant import within_class_scatter

Classifier = tuple[Tensor, Tensor]


def cosine(means: Tensor) -> Classifier:
    """Nearest mean by angle: (e, ways, d)."""
    return F.normalize(means, dim=-1), means.new_zeros(means.shape[:2])


def nearest_mean(means: Tensor) -> Classifier:
    """Nearest mean by distance: (e, ways, d)."""
    return means, -means.square().sum(-1) / 2


def discriminant(means: Tensor, precision: Tensor) -> Classifier:
    """Gaussian classes around `means` (e, ways, d) with one inverse covariance (d, d) for all."""
    weights = means @ precision
    return weights, -(weights * means).sum(-1) / 2


def shrunk(covariance: Tensor, share: float) -> Tensor:
    """Towards a multiple of the identity of the same trace: (d, d)."""
    size = len(covariance)
    return (1 - share) * covariance + share * covariance.trace() / size * torch.eye(size, dtype=covariance.dtype)


@dataclass(frozen=True)
class Knowledge:
    """What base classes say about classes."""

    base: Base

    @cached_property
    def class_means(self) -> Tensor:
        """(classes, d), not of unit length: where pictures of a class agree less, shorter."""
        sums = torch.zeros(len(self.base.counts), self.base.vectors.shape[1])
        return sums.index_add_(0, self.base.labels, self.base.vectors) / self.base.counts[:, None]

    @cached_property
    def within(self) -> Tensor:
        """Covariance inside classes (d, d), in double precision."""
        return within_class_scatter(self.base.vectors.double(), self.base.labels)

    @cached_property
    def between(self) -> Tensor:
        """Covariance of class means (d, d): what is seen of it, less what the pictures' own spread adds to a mean."""
        means = self.class_means.double()
        seen = torch.cov((means - means.mean(0)).T)
        values, axes = torch.linalg.eigh(seen - self.within * (1 / self.base.counts.double()).mean())
        return (axes * values.clamp(min=0)) @ axes.T

    @cached_property
    def spreads(self) -> Tensor:
        """Of each class the mean similarity of its pictures to its mean (classes,)."""
        to_mean = (self.base.vectors * F.normalize(self.class_means, dim=-1)[self.base.labels]).sum(1)
        return torch.zeros(len(self.base.counts)).index_add_(0, self.base.labels, to_mean) / self.base.counts

    def precision(self, shrinkage: float) -> Tensor:
        """Inverse of the shrunk covariance inside classes (d, d)."""
        return torch.linalg.inv(shrunk(self.within, shrinkage)).float()

    def conditional(self, shots: int, *, within: float, between: float) -> tuple[Tensor, Tensor]:
        """Of Gaussian classes with Gaussian means (probabilistic LDA): the matrix (d, d) that makes of the mean of k shots the
        expected mean of their class, and the inverse covariance (d, d) of a further picture of it around that."""
        spread, classes = shrunk(self.within, within), shrunk(self.between, between)
        gain = torch.linalg.solve(classes + spread / shots, classes).T  # classes (classes + spread / k)^-1
        return gain.T.float(), torch.linalg.inv(spread + classes - gain @ classes).float()


def softmax_means(shots: Tensor, class_means: Tensor, *, temperature: float) -> Tensor:
    """Base means weighted by how alike a shot is to each: (..., d), (classes, d) -> unit length (..., d)."""
    centres = F.normalize(class_means, dim=-1)
    return F.normalize((shots @ centres.T / temperature).softmax(-1) @ centres, dim=-1)


def ridge(shots: Tensor, strength: float) -> Classifier:
    """Least squares on one-hot answers less their mean, in closed form: (e, ways, k, d)."""
    episodes, ways, count, size = shots.shape
    vectors = shots.reshape(episodes, ways * count, size)
    wanted = torch.eye(ways).repeat_interleave(count, 0) - 1 / ways  # (ways * k, ways)
    gram = vectors @ vectors.transpose(1, 2) + strength * torch.eye(ways * count)
    return (vectors.transpose(1, 2) @ torch.linalg.solve(gram, wanted)).transpose(1, 2), torch.zeros(episodes, ways)


def logistic(vectors: Tensor, labels: Tensor, ways: int, strength: float, *, rounds: int = 100) -> Classifier:
    """Softmax regression to the minimum of |w|^2 / 2 + strength * loss, as scikit-learn has it, without an intercept.

    vectors (e, n, d), labels (n,). In the axes of the vectors' own scatter the Hessian's bound (Böhning 1992) is diagonal, and so
    each round is one division.
    """
    episodes, count, size = vectors.shape
    if count <= size:
        values, axes = torch.linalg.eigh(vectors @ vectors.transpose(1, 2))
        values = values.clamp(min=1e-6)
        into = vectors.transpose(1, 2) @ (axes * values.rsqrt()[:, None])  # (e, d, n): those axes
    else:
        values, into = torch.linalg.eigh(vectors.transpose(1, 2) @ vectors)
    inputs = vectors @ into  # (e, n, axes)
    wanted = F.one_hot(labels, ways).float()
    weights = torch.zeros(episodes, inputs.shape[2], ways)
    bound = 0.5 * strength * values.clamp(min=0) + 1  # (e, axes)
    for _ in range(rounds):
        slope = strength * (inputs.transpose(1, 2) @ ((inputs @ weights).softmax(-1) - wanted)) + weights
        weights = weights - slope / bound[:, :, None]
    return (into @ weights).transpose(1, 2), torch.zeros(episodes, ways)


class DistributionCalibration:
    """Exactly as released: the two nearest base classes lend a shot their means and covariances, plus 0.21 on every entry.

    Features are to be >= 0 for the square root. Where they are not it keeps their sign, which is a departure.
    """

    SAMPLES, ALPHA = 750, 0.21

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        """Features (n, d) of base classes before any normalisation."""
        self.members = [features[labels == label] for label in labels.unique()]
        self.members = [own for own in self.members if len(own) > 1]
        self.means = torch.stack([own.mean(0) for own in self.members])

    @staticmethod
    def power(features: Tensor) -> Tensor:
        return features.sign() * features.abs().sqrt()

    def sample(self, shot: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Of one shot (d,), after its square root: (count, d)."""
        nearest = (self.means - shot).square().sum(1).argsort()[:2].tolist()
        mean = (shot + self.means[nearest].sum(0)) / 3
        # Deviations times normal numbers have exactly the class's covariance, which therefore need not be factored: with fewer
        # pictures than dimensions that fails.
        drawn = self.ALPHA**0.5 * torch.randn(count, 1, generator=generator)
        for own in (self.members[number] for number in nearest):
            noise = torch.randn(count, len(own), generator=generator)
            drawn = drawn + noise @ (own - own.mean(0)) / (2 * (len(own) - 1)) ** 0.5
        return mean + drawn

    def __call__(self, shots: Tensor, generator: torch.Generator) -> Classifier:
        """Shots (e, ways, k, d) after their square root."""
        episodes, ways, count, size = shots.shape
        each = self.SAMPLES // count
        made = torch.stack([self.sample(shot, each, generator) for shot in shots.reshape(-1, size)])
        everything = torch.cat([shots, made.view(episodes, ways, count * each, size)], 2)
        labels = torch.arange(ways).repeat_interleave(everything.shape[2])
        return logistic(everything.flatten(1, 2), labels, ways, 1.0)


def stacked(parts: Sequence[Classifier]) -> Classifier:
    weights, biases = zip(*parts, strict=True)
    return torch.cat(weights), torch.cat(biases)

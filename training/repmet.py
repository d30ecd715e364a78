"""RepMet's head: an embedding and several representatives of each class, learnt jointly.

Karlinsky et al., "RepMet: Representative-based metric learning for classification and few-shot object detection" (CVPR 2019),
section 3: the sub-network that replaces a detector's last linear layer, its posterior and its losses. As in the released code
the posterior that is trained on is a softmax over probabilities times `SHARPNESS`, and an auxiliary linear classifier learns
beside it.

What differs, and why:

- Representatives start at what the embedding network that ships makes of the clean mark of their class, not at random: twelve
  thousand classes of one picture each are not visited often enough to find their places, and k-means over single pictures (the
  released code clusters at the beginning of epochs) finds nothing.
- The width of the Gaussians is learnt, one number, from the paper's 0.5.
- A step compares with the classes of its batch and a sample of the others. All of them would cost more than the network does.
- Empty representatives are masked. The released code pads with a constant vector, which normalisation makes a live direction.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 0.5  # sigma to start from: section 4.1 and the released code
SHARPNESS = 15.0  # SOFTMAX_MUL of the released code: probabilities alone are too even for a softmax
MARGIN = 0.4  # on squared distances, which lie in [0, 4]; 0.5 in the released code, 1 in the paper's classification
SPREAD = 0.05  # of a class's representatives around their first place; `SEPARABLE_REPS_INIT` has it for all classes alike
FAR = 4.0  # squared distance of opposite unit vectors: an empty representative is as far as can be


class Representatives(nn.Module):
    """`modes` vectors for each of the classes, and the width of the Gaussian around each."""

    def __init__(self, centres: Tensor, *, modes: int = 3) -> None:
        """`centres` (classes, e): unit vectors to start from."""
        super().__init__()
        classes, size = centres.shape
        offsets = torch.randn(modes, size) * SPREAD  # the same for all classes, as released
        self.vectors = nn.Parameter(centres[:, None] + offsets)  # (classes, modes, e), of any length
        self.raw_width = nn.Parameter(torch.tensor(math.log(math.expm1(WIDTH))))  # softplus of it is the width
        self.register_buffer("is_there", torch.ones(classes, modes, dtype=torch.bool))

    is_there: Tensor  # (classes, modes)

    @property
    def width(self) -> Tensor:
        return F.softplus(self.raw_width)

    def squared_distances(self, embedding: Tensor, classes: Tensor) -> Tensor:
        """Unit vectors (b, e) to the representatives of some classes (c,) -> (b, c, modes); `FAR` where there is none."""
        vectors = F.normalize(self.vectors[classes].float(), dim=-1)  # (c, modes, e)
        distances = 2 - 2 * torch.einsum("be,cme->bcm", embedding, vectors)  # of unit vectors: |a - b|^2 = 2 - 2ab
        return distances.masked_fill(~self.is_there[classes], FAR)


def class_probabilities(distances: Tensor, width: Tensor | float) -> Tensor:
    """Squared distances (b, c, modes) -> the strongest Gaussian of each class (b, c), in (0, 1]."""
    return torch.exp(-distances.min(2).values / (2 * width**2))  # p_i = max_j exp(-d_ij^2 / 2 sigma^2)


def posterior_logits(probabilities: Tensor) -> Tensor:
    """Probabilities (b, c) -> logits (b, 1 + c), of background first: it is what the best class leaves."""
    background = 1 - probabilities.max(1, keepdim=True).values  # p_bg = 1 - max_i p_i
    return SHARPNESS * torch.cat([background, probabilities], 1)


def mixture_posterior(distances: Tensor, width: Tensor | float) -> Tensor:
    """Squared distances (b, c, modes) -> shares of the classes (b, c): the paper's posterior where it classifies."""
    modes = torch.exp(-distances / (2 * width**2))  # p_ij
    return modes.sum(2) / modes.sum((1, 2))[:, None]  # sum_j p_ij / sum_lj p_lj


def cross_entropy(probabilities: Tensor, target: Tensor) -> Tensor:
    """`target` (b,): the column of the right class, or -1 for background."""
    return F.cross_entropy(posterior_logits(probabilities), target + 1)


def margin_loss(distances: Tensor, target: Tensor, *, margin: float = MARGIN) -> Tensor:
    """The nearest representative of the right class has to be nearer, by `margin`, than that of any other; not for background."""
    things = target >= 0
    if not bool(things.any()):
        return distances.sum() * 0
    nearest = distances[things].min(2).values  # (things, c)
    right = F.one_hot(target[things], nearest.shape[1]).bool()
    own, other = nearest[right], nearest.masked_fill(right, FAR).min(1).values  # min_j d_yj^2, min_{i != y, j} d_ij^2
    return F.relu(own - other + margin).mean()


def linear_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the auxiliary classifier, logits (b, 1 + c) background first: training only, it steadies the start."""
    return F.cross_entropy(logits, target + 1)


def competing_classes(labels: Tensor, classes: int, sampled: int) -> tuple[Tensor, Tensor]:
    """Labels (b,), -1 for background -> the classes of the batch and a sample of all (c,), and where each label is in it (b,)."""
    drawn = torch.randint(classes, (min(sampled, classes),), device=labels.device)
    competing = torch.unique(torch.cat([labels[labels >= 0], drawn]))  # sorted
    position = torch.searchsorted(competing, labels.clamp(min=0))
    return competing, torch.where(labels >= 0, position, -1)

"""Losses between features of a student and its teacher, and the heads that some of them learn.

Source: Ahn, Hu, Damianou, Lawrence, Dai, Variational Information Distillation for Knowledge Transfer (CVPR 2019);
densities and the parametrisation of their scale as published with Lee et al., Learning with Privileged Information for
Efficient Image Super-Resolution (ECCV 2020); Zagoruyko and Komodakis, Paying More Attention to Attention (ICLR 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from metarestore.config.learner import FeatureLossSpec

LAPLACE_SCALE, GAUSSIAN_SCALE = 0.1, 1e-3
"""Factors between a head's softplus and the scale b of the Laplace density, or the variance of the Gaussian."""
LEAST_SCALE = 1e-8
"""Keeps densities bounded."""
_TINY = 1e-12


class VariationalHead(nn.Module):
    """Predicts the mean and scale of a density of the teacher's features from the student's, for every element.

    Args:
        given: Channels of the student's features.
        wanted: Channels of the teacher's features.
    """

    def __init__(self, given: int, wanted: int) -> None:
        super().__init__()
        self.mean, self.scale = (
            nn.Sequential(nn.Conv2d(given, wanted, 1), nn.PReLU(), nn.Conv2d(wanted, wanted, 1)) for _ in range(2)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean and the softplus of the scale, both (N, wanted, h, w), for features (N, given, h, w)."""
        return self.mean(features), F.softplus(self.scale(features))


def head_of(loss: FeatureLossSpec, given: int, wanted: int) -> nn.Module | None:
    """Builds the head that a loss learns for a pair of features; None if it needs none.

    Args:
        loss: The loss.
        given: Channels of the student's features.
        wanted: Channels of the teacher's features.
    """
    if loss.loss in {"vid_laplace", "vid_gaussian"}:
        return VariationalHead(given, wanted)
    return nn.Conv2d(given, wanted, 1) if loss.loss == "l2" and given != wanted else None


def feature_loss(
    loss: FeatureLossSpec, student: Tensor, teacher: Tensor, head: Callable[[Tensor], Any] | None
) -> Tensor:
    """Computes a loss between features of N images, a scalar.

    Args:
        loss: The loss.
        student: (N, C, h, w).
        teacher: (N, C′, h, w), a constant.
        head: Calls the head that `head_of` builds for the channels.
    """
    if loss.loss == "attention":
        return attention_distance(student, teacher)
    if loss.loss == "l2":
        return F.mse_loss(student if head is None else head(student), teacher)
    if head is None:
        raise TypeError(f"{loss.loss} needs a head")
    mean, scale = head(student)
    negative = laplace_information if loss.loss == "vid_laplace" else gaussian_information
    return negative(mean, scale, teacher)


def laplace_information(mean: Tensor, scale: Tensor, teacher: Tensor) -> Tensor:
    """Computes the mean of −log p(teacher) under Laplace densities: log(2b) + |teacher − mean|/b, b = 0.1·scale.

    The published loss also has a constant, on which no gradient depends.
    """
    b = LAPLACE_SCALE * scale + LEAST_SCALE
    return ((2 * b).log() + (teacher - mean).abs() / b).mean()


def gaussian_information(mean: Tensor, scale: Tensor, teacher: Tensor) -> Tensor:
    """Computes the mean of −log p(teacher) under Gaussian densities with variance v = 0.001·scale.

    Each element contributes log(2πv)/2 + (teacher − mean)²/(2v).
    """
    variance = GAUSSIAN_SCALE * scale + LEAST_SCALE
    return ((2 * math.pi * variance).log() / 2 + (teacher - mean).square() / (2 * variance)).mean()


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Computes the squared distance between attention maps Σ_c f², each normalised to unit norm over an image's pixels.

    The squared differences are summed over pixels and averaged over images.
    """
    maps = []
    for features in (student, teacher):
        energy = features.square().sum(dim=1).flatten(1)
        maps.append(energy / energy.square().sum(dim=1, keepdim=True).clamp_min(_TINY).sqrt())
    return (maps[0] - maps[1]).square().sum(dim=1).mean()

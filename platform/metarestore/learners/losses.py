"""Image losses, and clipping of gradient norms."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import vmap

from metarestore.config.learner import LossName


def image_loss(name: LossName, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns a loss function: the mean error between images of the same shape.

    Args:
        name: Absolute error, its smooth form √(d² + ε²), or squared error.
        eps: ε of the Charbonnier loss; not used by the other losses.

    Source: Charbonnier et al., Two deterministic half-quadratic regularization algorithms (1994); Lai et al., LapSRN
    (2017), eq. 4.
    """
    if name == "charbonnier":
        return lambda restored, hr: ((restored - hr).square() + eps**2).sqrt().mean()
    return nn.functional.l1_loss if name == "l1" else nn.functional.mse_loss


def image_losses(name: LossName, eps: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns `image_loss` vectorised over T tasks: (T, ...) to (T,)."""
    return vmap(image_loss(name, eps))


def norm_factors(gradients: Iterable[Tensor], largest: float) -> Tensor:
    """Returns the factors (T,), at most 1, that clip the joint norms of gradients (T, ...) to `largest`.

    They are differentiable.
    """
    squares = torch.stack([gradient.square().reshape(len(gradient), -1).sum(dim=1) for gradient in gradients]).sum(
        dim=0
    )
    # The gradient of the root is infinite at 0, which would give NaN in the double backward pass.
    return (largest / squares.clamp_min(1e-24).sqrt()).clamp_max(1.0)

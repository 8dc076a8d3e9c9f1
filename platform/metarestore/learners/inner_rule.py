"""The settings of a learner's inner loop that adaptation to the shots uses too."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metarestore.config.learner import LossName


@dataclass(frozen=True)
class InnerRule:
    """The settings of a step on a support set, except for optimizer and learning rate.

    Attributes:
        loss_name: Image loss.
        eps: ε of the Charbonnier loss.
        clip: Maximum norm of the gradient in SGD.
        mask: 1 for parameters that are adapted, 0 for those that stay fixed, (P,); None adapts all.
        rates: Learned rate of each parameter, (P,), which replaces the learning rate of SGD.
    """

    loss_name: LossName
    eps: float
    clip: float | None = None
    mask: Tensor | None = None
    rates: Tensor | None = None

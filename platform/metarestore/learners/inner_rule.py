"""What adaptation to the shots takes over from a learner's inner loop."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metarestore.config.learner import LossName


@dataclass(frozen=True)
class InnerRule:
    """How one step on a support set is taken, beside the optimizer and its rate.

    Attributes:
        loss_name: Image loss.
        eps: ε of the Charbonnier loss.
        clip: Largest norm of a gradient of SGD.
        mask: 1 for parameters that adapt, 0 for those that stay, (P,); all adapt if it is None.
        rates: Learned rate of each parameter, (P,): SGD takes it in place of its own rate.
    """

    loss_name: LossName
    eps: float
    clip: float | None = None
    mask: Tensor | None = None
    rates: Tensor | None = None

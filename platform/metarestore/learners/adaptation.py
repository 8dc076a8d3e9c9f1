"""Adaptation: gradient steps on a support set from given parameters. Few-shot and single-image restoration use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from metarestore.learners.learner import LossName, image_loss, restore
from metarestore.models.parameters import Layout

Observer = Callable[[int, Tensor], None]


def adapt(
    model: nn.Module,
    flat: Tensor,
    support_lr: Tensor,
    support_hr: Tensor,
    *,
    optimizer: Literal["adam", "sgd"],
    steps: int,
    lr: float,
    loss_name: LossName = "l1",
    observe: Observer | None = None,
) -> Tensor:
    """Takes `steps` gradient steps on the support set.

    Args:
        model: The network whose parameters are replaced.
        flat: Parameters to start from, (P,); left as they are.
        support_lr: (K, C, h, w) in [0, 1].
        support_hr: (K, C, s·h, s·w) in [0, 1].
        optimizer: Plain gradient descent, as in the inner loop of MAML, or Adam.
        steps: Number of steps.
        lr: Rate of a step.
        loss_name: Image loss.
        observe: Called with (step, parameters) before the first step and after each one.

    Returns:
        The adapted parameters, (P,), detached.

    Source: Finn et al. (2017), eq. 1; Kingma and Ba, Adam (2015).
    """
    layout = Layout.of(model)
    current = flat.detach().clone().requires_grad_()
    rule = torch.optim.Adam([current], lr=lr) if optimizer == "adam" else torch.optim.SGD([current], lr=lr)
    if observe:
        observe(0, current.detach())
    for step in range(steps):
        rule.zero_grad(set_to_none=True)
        restored = restore(model, layout.unflatten(current), support_lr)
        image_loss(loss_name)(restored, support_hr).backward()  # type: ignore[no-untyped-call]
        rule.step()
        if observe:
            observe(step + 1, current.detach())
    return current.detach()

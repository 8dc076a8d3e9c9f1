"""Adaptation: gradient steps on a support set from given parameters. Few-shot and single-image restoration use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import restore
from metarestore.learners.losses import image_loss, norm_factors
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
    rule: InnerRule = InnerRule(),  # noqa: B008
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
        rule: Loss, clipping, and what adapts at which rate; learned rates take the place of `lr` in `sgd`.
        observe: Called with (step, parameters) before the first step and after each one.

    Returns:
        The adapted parameters, (P,), detached.

    Source: Finn et al. (2017), eq. 1; Kingma and Ba, Adam (2015).
    """
    layout = Layout.of(model)
    current = flat.detach().clone().requires_grad_()
    update = torch.optim.Adam([current], lr=lr) if optimizer == "adam" else torch.optim.SGD([current], lr=lr)
    if observe:
        observe(0, current.detach())
    for step in range(steps):
        update.zero_grad(set_to_none=True)
        restored = restore(model, layout.unflatten(current), support_lr)
        image_loss(rule.loss_name, rule.eps)(restored, support_hr).backward()  # type: ignore[no-untyped-call]
        _apply_rule(current, rule, sgd=optimizer == "sgd", lr=lr)
        update.step()
        if observe:
            observe(step + 1, current.detach())
    return current.detach()


def _apply_rule(current: Tensor, rule: InnerRule, *, sgd: bool, lr: float) -> None:
    """Masks and clips the gradient of `current`, and scales it so that a step of rate `lr` is one of learned rates."""
    gradient = current.grad
    if gradient is None:
        raise TypeError("the gradient is taken before a rule is applied to it")
    if rule.mask is not None:
        gradient.mul_(rule.mask)
    if sgd and rule.clip is not None:
        gradient.mul_(norm_factors([gradient[None]], rule.clip))
    if sgd and rule.rates is not None:
        gradient.mul_(rule.rates / lr)

"""Adaptation: gradient steps on a support set from given parameters. Few-shot and single-image restoration use it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from metarestore.config.experiment import AdaptationOptimizerSpec
from metarestore.degradations.dihedral import DIHEDRAL, flip_rotate
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import restore
from metarestore.learners.losses import image_loss, norm_factors
from metarestore.models.parameters import Layout, Params
from metarestore.seeds import generator

Observer = Callable[[int, Tensor], None]
Pairs = Callable[[int], tuple[Tensor, Tensor]]
"""Returns LR and HR images that a step learns from."""
Terms = Callable[[Params, int, Tensor, Tensor], Tensor]
"""Returns what is added to the loss, given the parameters, the step, and the LR and HR images of the step."""
Progress = Callable[[int], float]
"""Returns which share of the adaptation is done before a step: 1 ends it."""


def adapt(
    model: nn.Module,
    flat: Tensor,
    support_lr: Tensor,
    support_hr: Tensor,
    how: AdaptationOptimizerSpec,
    *,
    rule: InnerRule,
    seed: int = 0,
    observe: Observer | None = None,
    pairs: Pairs | None = None,
    terms: Terms | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Takes gradient steps on the support set.

    Args:
        model: The network whose parameters are replaced.
        flat: Parameters to start from, (P,); left as they are.
        support_lr: (K, C, h, w) in [0, 1].
        support_hr: (K, C, s·h, s·w) in [0, 1].
        how: Plain gradient descent, as in the inner loop of MAML, or Adam; rate, schedule and number of steps; whether
            a step learns from all images or from random patches of them.
        rule: Loss, clipping, and what adapts at which rate; learned rates take the place of the rate in `sgd`.
        seed: Seed of the patches.
        observe: Called with (step, parameters) before the first step and after each one.
        pairs: What each step learns from, in place of patches cut by `how`.
        terms: What is added to the loss.
        progress: Ends the adaptation early, e.g. when a time budget is spent, and drives the schedule in place of the
            number of steps.

    Returns:
        The adapted parameters, (P,), detached.

    Source: Finn et al. (2017), eq. 1; Kingma and Ba, Adam (2015).
    """
    layout = Layout.of(model)
    current = flat.detach().clone().requires_grad_()
    sgd = how.optimizer == "sgd"
    update = torch.optim.SGD([current], lr=how.lr) if sgd else torch.optim.Adam([current], lr=how.lr)
    if observe:
        observe(0, current.detach())
    for step in range(how.steps):
        share = progress(step) if progress else None
        if share is not None and share >= 1:
            break
        if pairs is not None:
            lr, hr = pairs(step)
        else:
            lr, hr = (support_lr, support_hr) if how.patch is None else cut(support_lr, support_hr, how, seed, step)
        update.zero_grad(set_to_none=True)
        params = layout.unflatten(current)
        loss = image_loss(rule.loss_name, rule.eps)(restore(model, params, lr), hr)
        if terms is not None:
            loss = loss + terms(params, step, lr, hr)
        loss.backward()  # type: ignore[no-untyped-call]
        update.param_groups[0]["lr"] = how.lr * _share(how, step if share is None else share * how.steps)
        _apply_rule(current, rule, sgd=sgd, lr=how.lr)
        update.step()
        if observe:
            observe(step + 1, current.detach())
    return current.detach()


def cut(lr: Tensor, hr: Tensor, how: AdaptationOptimizerSpec, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Cuts random patches of one step, turned and mirrored alike: LR (B, C, p, p) and HR (B, C, s·p, s·p).

    Args:
        lr: LR images (K, C, h, w).
        hr: HR images (K, C, s·h, s·w).
        how: Side of an HR patch, at most that of an image, and number of patches B.
        seed: Seed of the adaptation.
        step: Which step.
    """
    if how.patch is None:
        raise TypeError("there is a patch to cut")
    scale, side = hr.shape[-1] // lr.shape[-1], how.patch
    small, rng = side // scale, generator(seed, "adaptation", step)
    parts: list[tuple[Tensor, Tensor]] = []
    for _ in range(how.batch):
        image, top, left, turn = (int(rng.integers(n)) for n in (len(lr), *_places(lr, small), DIHEDRAL))
        big = hr[image, :, scale * top : scale * top + side, scale * left : scale * left + side]
        parts.append(
            (
                flip_rotate(lr[image, :, top : top + small, left : left + small], turn),
                flip_rotate(big, turn),
            )
        )
    return torch.stack([part[0] for part in parts]), torch.stack([part[1] for part in parts])


def _places(images: Tensor, side: int) -> tuple[int, int]:
    """Returns how many rows and columns a patch can start at."""
    return images.shape[-2] - side + 1, images.shape[-1] - side + 1


def _share(how: AdaptationOptimizerSpec, step: float) -> float:
    """Returns which share of the rate a step has."""
    return 1.0 if how.schedule == "constant" else (1 + math.cos(math.pi * step / how.steps)) / 2


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

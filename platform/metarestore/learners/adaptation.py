"""Adaptation: gradient steps on a support set from given parameters, for few-shot and single-image restoration."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.degradations.dihedral import DIHEDRAL, flip_rotate
from metarestore.learners.adapted import adapted
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import restore
from metarestore.learners.losses import image_loss, norm_factors
from metarestore.models.parameters import Layout, Params
from metarestore.seeds import generator

Observer = Callable[[int, Tensor], None]
Pairs = Callable[[int], tuple[Tensor, Tensor]]
"""Returns the LR and HR images of a step."""
Terms = Callable[[Params, int, Tensor, Tensor], Tensor]
"""Returns additional loss terms, given the parameters, the step, and the LR and HR images of the step."""
Progress = Callable[[int], float]
"""Returns the completed fraction of the adaptation before a step; 1 ends the adaptation."""


def adapt(
    model: nn.Module,
    flat: Tensor,
    support_lr: Tensor,
    support_hr: Tensor,
    options: AdaptationOptimizerSpec,
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
        flat: Initial parameters, (P,); not modified.
        support_lr: (K, C, h, w) in [0, 1].
        support_hr: (K, C, s·h, s·w) in [0, 1].
        options: Optimizer (plain gradient descent, as in the inner loop of MAML, or Adam), learning rate, schedule,
            number of steps, which parameters change, and whether a step uses all images or random patches of them.
        rule: Loss, clipping, and mask and learning rates of the parameters; learned rates replace the rate of `sgd`.
        seed: Seed of the patches, and of the factors of low-rank changes.
        observe: Called with (step, parameters) before the first step and after each one.
        pairs: The images of each step, used instead of patches cut according to `options`.
        terms: Additional loss terms.
        progress: Completed fraction, which can end the adaptation early, e.g. after a time budget, and replaces the
            number of steps in the schedule.

    Returns:
        The adapted parameters, (P,), detached.

    Source: Finn et al. (2017), eq. 1; Kingma and Ba, Adam (2015).
    """
    layout = Layout.of(model)
    what = adapted(model, flat, options, rule, seed)
    rule, current = what.rule, what.initial.requires_grad_()
    sgd = options.optimizer == "sgd"
    update = torch.optim.SGD([current], lr=options.lr) if sgd else torch.optim.Adam([current], lr=options.lr)
    if observe:
        observe(0, what.parameters(current).detach())
    for step in range(options.steps):
        fraction = progress(step) if progress else None
        if fraction is not None and fraction >= 1:
            break
        if pairs is not None:
            lr, hr = pairs(step)
        else:
            lr, hr = support_lr, support_hr
            if options.patch is not None:
                lr, hr = cut(support_lr, support_hr, options, seed, step)
        update.zero_grad(set_to_none=True)
        params = layout.unflatten(what.parameters(current))
        loss = image_loss(rule.loss_name, rule.eps)(restore(model, params, lr), hr)
        if terms is not None:
            loss = loss + terms(params, step, lr, hr)
        loss.backward()  # type: ignore[no-untyped-call]
        position = step if fraction is None else fraction * options.steps
        update.param_groups[0]["lr"] = options.lr * _rate_factor(options, position)
        _apply_rule(current, rule, sgd=sgd, lr=options.lr)
        update.step()
        if observe:
            observe(step + 1, what.parameters(current).detach())
    return what.parameters(current).detach()


def cut(lr: Tensor, hr: Tensor, options: AdaptationOptimizerSpec, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Cuts the random patches of one step, LR (B, C, p, p) and HR (B, C, s·p, s·p), with random flips and rotations.

    Args:
        lr: LR images (K, C, h, w).
        hr: HR images (K, C, s·h, s·w).
        options: Side of an HR patch, at most that of an image, and number of patches B.
        seed: Seed of the adaptation.
        step: Index of the step.
    """
    if options.patch is None:
        raise TypeError("cut needs adaptation options with a patch size")
    scale, side = hr.shape[-1] // lr.shape[-1], options.patch
    small, rng = side // scale, generator(seed, "adaptation", step)
    parts: list[tuple[Tensor, Tensor]] = []
    for _ in range(options.batch):
        image, top, left, turn = (int(rng.integers(n)) for n in (len(lr), *_positions(lr, small), DIHEDRAL))
        big = hr[image, :, scale * top : scale * top + side, scale * left : scale * left + side]
        parts.append(
            (
                flip_rotate(lr[image, :, top : top + small, left : left + small], turn),
                flip_rotate(big, turn),
            )
        )
    return torch.stack([part[0] for part in parts]), torch.stack([part[1] for part in parts])


def _positions(images: Tensor, side: int) -> tuple[int, int]:
    """Returns the numbers of rows and columns that a patch can start at."""
    return images.shape[-2] - side + 1, images.shape[-1] - side + 1


def _rate_factor(options: AdaptationOptimizerSpec, step: float) -> float:
    """Returns the factor of the schedule on the learning rate at a step."""
    return 1.0 if options.schedule == "constant" else (1 + math.cos(math.pi * step / options.steps)) / 2


def _apply_rule(current: Tensor, rule: InnerRule, *, sgd: bool, lr: float) -> None:
    """Masks and clips the gradient of `current`, and scales it by learned rates relative to `lr`."""
    gradient = current.grad
    if gradient is None:
        raise TypeError("backward() must be called before the rule is applied")
    if rule.mask is not None:
        gradient.mul_(rule.mask)
    if sgd and rule.clip is not None:
        gradient.mul_(norm_factors([gradient[None]], rule.clip))
    if sgd and rule.rates is not None:
        gradient.mul_(rule.rates / lr)

"""Contrast of descriptors: the images of one task close, those of other tasks apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-20
"""Keeps a network whose descriptors are all equal from dividing by 0."""


def contrastive_losses(descriptors: Tensor, temperature: float) -> Tensor:
    """Computes how badly tasks are told apart by the descriptors of their patches.

    What all tasks say of a patch is its content, and is taken off first: in a network that has learned nothing yet it
    is nearly all there is, all cosines are ±1, and their slope is 0. It is counted by a term of its own.
    Where tasks have patches of their own, what is taken off is about the mean of all descriptors.

    Args:
        descriptors: (T, N, C), N ≥ 2 patches of each of T ≥ 2 tasks; at first best the same ones in the same order.
        temperature: τ, what cosines are divided by.

    Returns:
        (T,): the mean over a task's images of −log p(own task), from log(N − 1), where tasks are far apart, to
        log(T·N − 1), where nothing is told apart; plus log(1 + `content_share`); plus the square of `log_scale`, since
        nothing else keeps descriptors from growing without end.

    Source: Khosla et al., Supervised Contrastive Learning (2020), eq. 2; as use of degradations: Wang et al.,
    Unsupervised Degradation Representation Learning for Blind Super-Resolution (2021), section 3.2.
    """
    tasks, images = descriptors.shape[:2]
    unit = F.normalize(descriptors - descriptors.mean(dim=0), dim=-1).flatten(0, 1)
    own = torch.arange(tasks, device=unit.device).repeat_interleave(images)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    scores = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=-1)
    alike = (own[:, None] == own) & ~itself
    losses = -scores.masked_fill(~alike, 0.0).sum(dim=-1) / (images - 1)
    told = losses.view(tasks, images).mean(dim=-1)
    return told + content_share(descriptors).log1p() + log_scale(descriptors).square()


def log_scale(descriptors: Tensor) -> Tensor:
    """Computes the logarithm of the root mean square of descriptors (T, N, C); ()."""
    return descriptors.square().mean().clamp_min(_TINY).log() / 2


def content_share(descriptors: Tensor) -> Tensor:
    """Computes the variance of descriptors (T, N, C) between patches, as a multiple of that between tasks; ()."""
    grand = descriptors.mean(dim=(0, 1))
    patches, tasks = descriptors.mean(dim=0) - grand, descriptors.mean(dim=1) - grand
    return patches.square().sum(dim=-1).mean() / tasks.square().sum(dim=-1).mean().clamp_min(_TINY)

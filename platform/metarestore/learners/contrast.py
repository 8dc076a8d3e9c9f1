"""The contrastive loss of descriptors: pulls images of one task together, pushes images of other tasks apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-20
"""Avoids a division by 0 if all descriptors are equal."""


def contrastive_losses(descriptors: Tensor, temperature: float) -> Tensor:
    """Computes the contrastive loss between tasks of the descriptors of their patches.

    The mean descriptor of each patch over the tasks represents its content and is subtracted first: in an untrained
    network the content dominates, so all cosines would be ±1 and their gradient 0. A separate term penalises it. If
    tasks do not share patches, approximately the mean of all descriptors is subtracted.

    Args:
        descriptors: (T, N, C), N ≥ 2 patches of each of T ≥ 2 tasks; early in training preferably the same patches in
            the same order.
        temperature: τ, which divides the cosines.

    Returns:
        (T,): the mean over a task's images of −log p(own task), from log(N − 1) for well separated tasks to
        log(T·N − 1) for indistinguishable ones; plus log(1 + `content_share`); plus the square of `log_scale`, which
        keeps the scale of the descriptors bounded.

    Source: Khosla et al., Supervised Contrastive Learning (2020), eq. 2; as use of degradations: Wang et al.,
    Unsupervised Degradation Representation Learning for Blind Super-Resolution (2021), section 3.2.
    """
    tasks, images = descriptors.shape[:2]
    unit = F.normalize(descriptors - descriptors.mean(dim=0), dim=-1).flatten(0, 1)
    own = torch.arange(tasks, device=unit.device).repeat_interleave(images)
    same_image = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    scores = (unit @ unit.T / temperature).masked_fill(same_image, -torch.inf).log_softmax(dim=-1)
    same_task = (own[:, None] == own) & ~same_image
    losses = -scores.masked_fill(~same_task, 0.0).sum(dim=-1) / (images - 1)
    task_losses = losses.view(tasks, images).mean(dim=-1)
    return task_losses + content_share(descriptors).log1p() + log_scale(descriptors).square()


def log_scale(descriptors: Tensor) -> Tensor:
    """Computes the logarithm of the root mean square of descriptors (T, N, C); ()."""
    return descriptors.square().mean().clamp_min(_TINY).log() / 2


def content_share(descriptors: Tensor) -> Tensor:
    """Computes the ratio of the variance of descriptors (T, N, C) between patches to that between tasks; ()."""
    grand = descriptors.mean(dim=(0, 1))
    patches, tasks = descriptors.mean(dim=0) - grand, descriptors.mean(dim=1) - grand
    return patches.square().sum(dim=-1).mean() / tasks.square().sum(dim=-1).mean().clamp_min(_TINY)

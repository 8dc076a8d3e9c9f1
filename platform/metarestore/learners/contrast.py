"""Contrast of descriptors: the images of one task close, those of other tasks apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_losses(descriptors: Tensor, temperature: float) -> Tensor:
    """Computes how badly each task's images are told from the other tasks' by the cosine of their centred descriptors.

    Where the tasks degrade the same clean patches, what is alike is the degradation alone: an image's content tells it
    from its own task's images, and not from the others'. Descriptors have a large part in common, which says nothing;
    with it, all cosines start at 1, and stay there (measured).

    Args:
        descriptors: (T, N, C), N images of each of T tasks, at least two.
        temperature: τ, what cosines are divided by.

    Returns:
        The mean over the task's images of −log p(own task), (T,); log(T·N − 1) where nothing is told apart.

    Source: Khosla et al., Supervised Contrastive Learning (2020), eq. 2; as use of degradations: Wang et al.,
    Unsupervised Degradation Representation Learning for Blind Super-Resolution (2021), section 3.2.
    """
    tasks, images = descriptors.shape[:2]
    pooled = descriptors.flatten(0, 1)
    unit = F.normalize(pooled - pooled.mean(dim=0), dim=-1)
    own = torch.arange(tasks, device=unit.device).repeat_interleave(images)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    scores = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=-1)
    alike = (own[:, None] == own) & ~itself
    losses = -scores.masked_fill(~alike, 0.0).sum(dim=-1) / (images - 1)
    return losses.unflatten(0, (tasks, images)).mean(dim=-1)  # type: ignore[no-untyped-call, no-any-return]

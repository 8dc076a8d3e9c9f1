"""What all networks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

Channels = Literal["y", "rgb"]
Restore = Callable[[Tensor], Tensor]
"""Restores LR images (N, C, h, w) to (N, C, s·h, s·w), not clamped."""


class Network(nn.Module, ABC):
    """A network that restores LR images (N, C, h, w) in [0, 1] to (N, C, s·h, s·w), not clamped.

    Attributes:
        scale: Upscaling factor s.
        channels: Whether images are luma (C = 1) or RGB (C = 3).
        privileged: Whether it must be given the HR images too, as its second input: a teacher.
    """

    scale: int
    channels: Channels
    privileged: bool = False

    @property
    @abstractmethod
    def reach(self) -> int:
        """How far, in LR pixels, an output pixel looks around itself, given what `for_image` computes once."""

    def for_image(self, lr: Tensor, crop: int | None = None) -> Restore:
        """Returns what restores parts of an image LR (1, C, h, w): what depends on all of it is computed once.

        Args:
            lr: The whole image.
            crop: Computes that from the middle `crop` by `crop` pixels alone, an approximation that saves time.
        """
        del lr, crop
        return self


_Built = TypeVar("_Built", bound=nn.Module)


def seeded(build: Callable[..., _Built], seed: int, **options: object) -> _Built:
    """Builds a network whose initial weights depend on `seed` alone; global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**options)

"""Degrades images by an estimated kernel, and restores them by back-projection, without learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metarestore.degradations.kernels import Kernel
from metarestore.degradations.resample import bicubic_downsample, bicubic_upsample, pad_symmetric

_COLOUR_SIGMA = 4.0  # LR pixels over which the mean colour is kept
_COLOUR_RADIUS = 12


@dataclass(frozen=True, eq=False)
class Blur:
    """Degradation of HR to LR: correlation with a kernel, with a symmetric border, then every s-th pixel.

    Attributes:
        kernel: Weights (K, K) of sum 1, centred in the middle; K is even if and only if the scale is.
        scale: Factor s.
    """

    kernel: Kernel
    scale: int

    def __post_init__(self) -> None:
        """Checks that the kernel is square, and has an even side if and only if the scale is even."""
        height, width = self.kernel.shape
        if height != width or (height - self.scale) % 2:
            raise ValueError(f"a kernel of {height}x{width} has no centre at scale {self.scale}")

    @property
    def margin(self) -> int:
        """Width of the border of LR, in LR pixels, that depends on mirrored pixels."""
        return len(self.kernel) // (2 * self.scale) + 1

    def degrade(self, hr: Tensor) -> Tensor:
        """Blurs and downsamples images (N, C, s·h, s·w) to (N, C, h, w); differentiable, on any device."""
        count, channels, height, width = hr.shape
        side, scale = len(self.kernel), self.scale
        first = side - (side - 1) // 2 + (scale - 1) // 2
        last = ((height // scale - 1) * scale + side, (width // scale - 1) * scale + side)
        padded = pad_symmetric(hr, side)[..., first : first + last[0], first : first + last[1]]
        weight = torch.from_numpy(self.kernel).to(hr)[None, None]
        planes = padded.reshape(count * channels, 1, *last)
        return F.conv2d(planes, weight, stride=scale).reshape(count, channels, height // scale, width // scale)

    def back_project(self, restored: Tensor, lr: Tensor, iterations: int) -> Tensor:
        """Iteratively adds the upscaled difference between LR and the degraded restoration.

        Args:
            restored: (N, C, s·h, s·w) in [0, 1].
            lr: (N, C, h, w) in [0, 1].
            iterations: Number of iterations; each amplifies noise.

        Returns:
            (N, C, s·h, s·w) in [0, 1].

        Source: Irani and Peleg, Improving resolution by image registration (1991).
        """
        for _ in range(iterations):
            restored = (restored + bicubic_upsample(lr - self.degrade(restored), self.scale)).clamp(0, 1)
        return restored

    def sharpened(self, lr: Tensor, iterations: int) -> Tensor:
        """Returns LR (N, C, h, w) after bicubic upscaling and back-projection: (N, C, s·h, s·w) in [0, 1]."""
        return self.back_project(bicubic_upsample(lr, self.scale).clamp(0, 1), lr, iterations)


def with_colour_of(restored: Tensor, bicubic: Tensor, scale: int) -> Tensor:
    """Replaces the local mean colour of images (N, C, s·h, s·w) by that of `bicubic`, and clips them to [0, 1]."""
    gap = bicubic_downsample(bicubic - restored, scale)
    offsets = torch.arange(-_COLOUR_RADIUS, _COLOUR_RADIUS + 1, dtype=gap.dtype, device=gap.device)
    line = torch.exp(-((offsets / _COLOUR_SIGMA) ** 2) / 2)
    line = line / line.sum()
    flat = pad_symmetric(gap, _COLOUR_RADIUS).flatten(0, 1)[:, None]
    smooth = F.conv2d(F.conv2d(flat, line[None, None, :, None]), line[None, None, None, :]).reshape(gap.shape)
    return (restored + bicubic_upsample(smooth, scale)).clamp(0, 1)

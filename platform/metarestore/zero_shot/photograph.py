"""A photograph that is restored from itself: what is known about it before anything is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarestore.degradations.kernels import Kernel
from metarestore.zero_shot.blur import Blur
from metarestore.zero_shot.kernel import KernelEstimate, estimate_kernel, grey_levels
from metarestore.zero_shot.spectra import noise_level

SMALLEST = 16
"""Minimum height and width of an image that a network learns from."""

_LEAST_CONTRAST = 1.0  # grey levels; below, Adam would follow rounding errors


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph with its estimated degradation.

    Attributes:
        lr: The photograph, (1, 3, h, w) in [0, 1].
        estimate: Its kernel.
        blur: The degradation with this kernel.
        noise: Standard deviation of its noise in grey levels; 0 if it is too small to measure it.
    """

    lr: Tensor
    estimate: KernelEstimate
    blur: Blur
    noise: float

    @classmethod
    def of(cls, image: Tensor, scale: int, known: Kernel | None) -> Photograph:
        """Measures a photograph.

        Args:
            image: (3, h, w), or gray (1, h, w), in [0, 1].
            scale: Factor s.
            known: The kernel (K, K) if it is known; otherwise it is estimated.

        Raises:
            ValueError: The image has another shape or values that are not finite, or the kernel does not fit the scale.
        """
        if not torch.isfinite(image).all():
            raise ValueError("the image has values that are not finite")
        estimate = _given(known) if known is not None else estimate_kernel(image, scale)
        lr = image.to(torch.float32).expand(3, -1, -1)[None].contiguous()
        return cls(lr, estimate, Blur(estimate.kernel, scale), _noise(image))

    def reason_not_to_learn(self, smallest: int = SMALLEST) -> str:
        """Returns why nothing can be learned from the photograph; empty if there is no reason.

        Args:
            smallest: Minimum height and width.
        """
        if min(self.lr.shape[-2:]) < smallest:
            return f"the image is smaller than {smallest} pixels"
        if float(self.lr.std(dim=(-2, -1)).max()) * 255 < _LEAST_CONTRAST:
            return "the image has no contrast"
        return ""

    def skipped(self, learning: str) -> tuple[str, ...]:
        """Returns the parts that are skipped, each with its reason, given the reason why nothing is learned if any."""
        kernel = self.estimate.reason and f"{self.estimate.reason}; bicubic is assumed"
        reasons = {"kernel": kernel, "learning": learning}
        return tuple(f"{part}: {reason}" for part, reason in reasons.items() if reason)

    @property
    def diagnostics(self) -> Mapping[str, float]:
        """Measurements of the photograph, by name."""
        return {**self.estimate.diagnostics, "noise_level": self.noise}


def _given(kernel: Kernel) -> KernelEstimate:
    return KernelEstimate(np.asarray(kernel, dtype=np.float32), 1.0, "given", "", {})


def _noise(image: Tensor) -> float:
    if min(image.shape[-2:]) < SMALLEST:
        return 0.0
    return noise_level(grey_levels(image).cpu().numpy().astype(np.float64))

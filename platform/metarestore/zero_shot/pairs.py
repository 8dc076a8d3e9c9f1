"""Internal pairs: patches of one photograph and of its degraded version, from which a network learns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarestore.seeds import generator
from metarestore.zero_shot.blur import Blur

_HALF_TURN = (-2, -1)


@dataclass(frozen=True)
class Crop:
    """The position of a patch in an image.

    Attributes:
        top: First row.
        left: First column.
        mirrored: Whether it is rotated by 180 degrees, under which symmetric kernels are invariant.
    """

    top: int
    left: int
    mirrored: bool


def draw_crops(
    rng: np.random.Generator, size: tuple[int, int], side: int, count: int, *, unit: int = 1, mirror: bool = False
) -> tuple[Crop, ...]:
    """Draws patches of an image.

    Args:
        rng: Random number generator.
        size: Height and width of the image.
        side: Side of a patch, at most that of the image.
        count: Number of patches.
        unit: Positions are multiples of this number.
        mirror: Whether each patch is rotated by 180 degrees with probability 0.5.
    """
    rows, columns = ((length - side) // unit + 1 for length in size)
    draws = ((rng.integers(rows), rng.integers(columns), rng.integers(2)) for _ in range(count))
    return tuple(Crop(unit * int(row), unit * int(column), mirror and turn == 1) for row, column, turn in draws)


@dataclass(frozen=True, eq=False)
class InternalPairs:
    """The support set of one photograph.

    Attributes:
        inputs: The photograph (1, 3, h, w), degraded once more and upscaled again.
        targets: The photograph itself, (1, 3, h, w); h and w are multiples of the scale.
        scale: Factor s.
        patch: Side of a patch, a multiple of the scale, at most h and w.
        batch: Number of patches per step.
        mirror: Whether each patch is rotated by 180 degrees with probability 0.5.
        seed: Seed of the draws.
    """

    inputs: Tensor
    targets: Tensor
    scale: int
    patch: int
    batch: int
    mirror: bool
    seed: int

    def crops(self, step: int) -> tuple[Crop, ...]:
        """Draws the patches of a step."""
        height, width = self.targets.shape[-2:]
        rng = generator(self.seed, "zero shot", "pairs", step)
        return draw_crops(rng, (height, width), self.patch, self.batch, unit=self.scale, mirror=self.mirror)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns the inputs and targets of a step, (B, 3, patch, patch) each."""
        crops = self.crops(step)
        return cut(self.inputs, crops, self.patch), cut(self.targets, crops, self.patch)


def cut(image: Tensor, crops: tuple[Crop, ...], side: int, factor: int = 1) -> Tensor:
    """Cuts patches (B, C, factor·side, factor·side) from an image (1, C, factor·h, factor·w)."""
    patches = []
    for crop in crops:
        top, left, length = factor * crop.top, factor * crop.left, factor * side
        patch = image[0, :, top : top + length, left : left + length]
        patches.append(patch.flip(*_HALF_TURN) if crop.mirrored else patch)
    return torch.stack(patches)


def internal_pairs(
    photograph: Tensor, blur: Blur, *, back_projections: int, noise: float, patch: int, batch: int, seed: int
) -> InternalPairs:
    """Creates the support set of a photograph.

    Args:
        photograph: (1, 3, h, w) in [0, 1]; rows and columns beyond a multiple of the scale are ignored.
        blur: The estimated degradation.
        back_projections: Back-projections after upscaling.
        noise: Standard deviation of the noise that is added to the degraded photograph, for values in [0, 1].
        patch: Side of a patch; reduced to fit a smaller photograph.
        batch: Number of patches per step.
        seed: Seed of noise and draws.
    """
    height, width = (length // blur.scale * blur.scale for length in photograph.shape[-2:])
    targets = photograph[..., :height, :width]
    degraded = blur.degrade(targets)
    if noise:
        field = generator(seed, "zero shot", "noise").standard_normal(tuple(degraded.shape), dtype="float32")
        degraded = degraded + noise * torch.from_numpy(field).to(degraded)
    inputs = blur.sharpened(degraded.clamp(0, 1), back_projections)
    side = min(patch, height, width) // blur.scale * blur.scale
    mirror = bool(np.allclose(blur.kernel, blur.kernel[::-1, ::-1], atol=1e-4))
    return InternalPairs(inputs, targets, blur.scale, side, batch, mirror, seed)

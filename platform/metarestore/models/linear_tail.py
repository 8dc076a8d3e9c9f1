"""Computes the linear tail of a super-resolution network as one convolution at LR size.

Between the last nonlinearity and the image there are only convolutions and pixel shuffles. They compose: at ×4 and 64
channels, one 5×5 convolution needs 77 thousand multiplications per LR pixel, the separate layers 765 thousand. Only
the outermost LR pixels differ, because each layer pads its own input with zeros; this border is computed with the
separate layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

RADIUS = 2
"""Receptive-field radius in LR pixels, at any scale."""

_SMALLEST, _FEWEST = 24, 1500
"""Smallest image side and number of LR pixels in a batch for which the composed form is faster, border included."""


class Layer(NamedTuple):
    """A 3×3 convolution with zero padding, and the pixel shuffle that follows it.

    Attributes:
        weight: (O·r², C, 3, 3).
        bias: (O·r²,).
        factor: r; 1 means no pixel shuffle.
    """

    weight: Tensor
    bias: Tensor
    factor: int


def linear_tail(features: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Applies the layers to features (N, C, h, w), in whichever way is faster.

    Args:
        features: (N, C, h, w).
        layers: At least two; the last one has factor 1.

    Returns:
        (N, O, s·h, s·w), where s is the product of the factors.
    """
    if torch.compiler.is_exporting():  # the image may have any size
        return composed_tail(features, layers)
    count, _, height, width = features.shape
    large = min(height, width) >= _SMALLEST and count * height * width >= _FEWEST
    return composed_tail(features, layers) if large else layered_tail(features, layers)


def layered_tail(features: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Applies the layers to features (N, C, h, w) one after the other."""
    for weight, bias, factor in layers:
        features = F.conv2d(features, weight, bias, padding=1)
        features = F.pixel_shuffle(features, factor) if factor > 1 else features
    return features


def composed_tail(features: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Applies the layers as one convolution, except at the border, to features (N, C, h, w) with h, w ≥ 3."""
    kernel, bias = composed(layers)
    inner = F.conv2d(features, kernel, bias, padding=RADIUS - 1)
    for layer in layers[:-1]:
        inner = F.pixel_shuffle(inner, layer.factor)
    scale = math.prod(layer.factor for layer in layers)
    top, bottom = (_edge(features, layers, scale, 2, last=last)[..., scale:-scale] for last in (False, True))
    left, right = (_edge(features, layers, scale, 3, last=last) for last in (False, True))
    return torch.cat([left, torch.cat([top, inner, bottom], dim=2), right], dim=3)


def _edge(features: Tensor, layers: Sequence[Layer], scale: int, axis: int, *, last: bool) -> Tensor:
    """Computes the first or last LR row (axis 2) or column (axis 3) of the output with the separate layers."""
    needed = [scale]
    for layer in reversed(layers):
        needed.append(-(-needed[-1] // layer.factor) + 1)
    border = [0, 0, 0, 0]
    border[2 * (3 - axis) + last] = 1
    features = _kept(features, axis, needed.pop(), last=last)
    for weight, bias, factor in layers:
        across = (0, 1) if axis == 2 else (1, 0)
        features = F.conv2d(F.pad(features, border), weight, bias, padding=across)
        features = F.pixel_shuffle(features, factor) if factor > 1 else features
        features = _kept(features, axis, needed.pop(), last=last)
    return features


def _kept(features: Tensor, axis: int, count: int, *, last: bool) -> Tensor:
    return features.narrow(axis, features.shape[axis] - count if last else 0, count)


def composed(layers: Sequence[Layer]) -> tuple[Tensor, Tensor]:
    """Returns kernel (O·s², C, 5, 5) and bias (O·s²,) of the composed layers, which act before the pixel shuffles."""
    kernel, bias, _ = layers[-1]
    for layer in reversed(layers[:-1]):
        outer = before_shuffle(kernel, layer.factor)
        bias = bias.repeat_interleave(layer.factor**2) + outer.sum(dim=(2, 3)) @ layer.bias
        # Correlating with two kernels in sequence is correlating with their convolution.
        kernel = F.conv_transpose2d(outer, layer.weight).to(outer.dtype)  # bfloat16 would not fit the next bias
    return kernel, bias


def before_shuffle(kernel: Tensor, factor: int) -> Tensor:
    """Moves a convolution from after a pixel shuffle to before it.

    Row u of the kernel connects row r·i + a of the output to row r·i + a + u − ⌊k/2⌋ of the shuffled image: row b of
    the block i + d, where a + u − ⌊k/2⌋ = r·d + b. Padding the kernel so that each phase a starts at a whole block
    splits its axes into (d, b).

    Args:
        kernel: (O, C, k, k), k odd.
        factor: r.

    Returns:
        (O·r², C·r², t, t), t odd.
    """
    outputs, inputs, size, _ = kernel.shape
    blocks = -(-(size // 2) // factor)
    taps = 2 * blocks + 1
    phases = []
    for row in range(factor):
        for column in range(factor):
            front = [factor * blocks + phase - size // 2 for phase in (column, row)]
            pads = [part for first in front for part in (first, factor * taps - size - first)]
            split = F.pad(kernel, pads).reshape(outputs, inputs, taps, factor, taps, factor)
            phases.append(split.permute(0, 1, 3, 5, 2, 4).reshape(outputs, inputs * factor**2, taps, taps))
    return torch.stack(phases, dim=1).flatten(0, 1)

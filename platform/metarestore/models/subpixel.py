"""The exact sub-pixel (pixel-shuffle) form of a 9×9 transposed convolution."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

KERNEL = 9
PADDING = 4


def subpixel_weight(weight: Tensor, scale: int) -> Tensor:
    """Converts the kernel of a transposed convolution to that of a convolution followed by a pixel shuffle.

    Output pixel s·n + r of `ConvTranspose2d(C, O, 9, stride=s, padding=4)` takes kernel index s·(n − i) + r + 4 of
    input pixel i. Padding the kernel so that index 4 falls on a multiple of s splits each axis into (tap, phase); the
    taps run in the opposite direction of the input, hence the flip.

    Args:
        weight: Kernel of the transposed convolution, (C, O, 9, 9).
        scale: Stride s.

    Returns:
        Kernel (O·s², C, t, t) with t = 2⌈4/s⌉ + 1 taps; convolve with padding ⌈4/s⌉.

    Source: Shi et al., Is the deconvolution layer the same as a convolutional layer? (2016).
    """
    inputs, outputs = weight.shape[:2]
    radius = math.ceil(PADDING / scale)
    taps = 2 * radius + 1
    front = scale * radius - PADDING
    back = scale * taps - KERNEL - front
    split = F.pad(weight, (front, back, front, back)).reshape(inputs, outputs, taps, scale, taps, scale)
    return split.flip(2, 4).permute(1, 3, 5, 0, 2, 4).reshape(outputs * scale**2, inputs, taps, taps)


def subpixel_conv_transpose(features: Tensor, weight: Tensor, bias: Tensor, scale: int) -> Tensor:
    """Computes `conv_transpose2d(features, weight, bias, stride=s, padding=4, output_padding=s−1)` at LR size.

    Args:
        features: (N, C, h, w).
        weight: (C, O, 9, 9), the parameters of the transposed convolution.
        bias: (O,).
        scale: Stride s.

    Returns:
        (N, O, s·h, s·w).
    """
    kernel = subpixel_weight(weight, scale)
    phases = F.conv2d(features, kernel, bias.repeat_interleave(scale**2), padding=kernel.shape[-1] // 2)
    return F.pixel_shuffle(phases, scale)

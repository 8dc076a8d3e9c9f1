"""Initial weights of KDSR: an estimator that tells images apart, and a restorer that upscales bilinearly.

PyTorch's initial convolutions shrink what they are given by √3 each; behind the estimator's dozen of layers nothing is
left of an image but the layers' own biases. All images then have nearly the same embedding, which no restorer can make
use of, so restoring gives the estimator no reason to change.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BRANCH = 0.1
"""Factor on the initial weights of the last layer of a residual branch."""


def excite(module: nn.Module, slope: float) -> None:
    """Gives convolutions and linear layers weights that keep the variance of what they are given; biases are 0.

    Source: He et al., Delving Deep into Rectifiers (2015), eq. 15, for rectifiers of a negative slope.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=slope, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def blind_to_brightness(layer: nn.Module) -> None:
    """Makes a convolution start with 0 on even images.

    Brightness is most of what tells images apart, and no sign of their degradation.
    """
    with torch.no_grad():
        weight = layer.get_parameter("weight")
        weight.sub_(weight.mean(dim=(-2, -1), keepdim=True))


def start_around_one(layer: nn.Module) -> None:
    """Makes a layer start near 1 for all inputs.

    The kernels of the restorer, which have no bias, then start as large as those of a network without an estimator, and
    a restorer that was trained without one is hardly changed by it.
    """
    shrink([layer])
    with torch.no_grad():
        layer.get_parameter("bias").fill_(1.0)


def shrink(layers: Iterable[nn.Module], factor: float = BRANCH) -> None:
    """Multiplies the weights of layers, by default those of the last layers of residual branches.

    Source: Wang et al., ESRGAN (2018), section 3.1: many branches in a row then start near the identity.
    """
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.mul_(factor)


def start_bilinear(head: nn.Conv2d, grow: Iterable[nn.Module], factors: Iterable[int], tail: nn.Conv2d) -> None:
    """Lets the first three channels carry the colours through head, pixel shuffles and tail, upscaled bilinearly.

    What the other channels say is learned beside that, from small weights.

    Args:
        head: From RGB to the features.
        grow: The convolutions before the pixel shuffles.
        factors: The factors of the pixel shuffles.
        tail: From the features to RGB.
    """
    with torch.no_grad():
        _carry(head, [torch.ones(1, 1)])
        for layer, factor in zip(grow, factors, strict=True):
            shrink([layer])
            _carry(layer, _bilinear(factor))
        shrink([tail])
        _carry(tail, [torch.ones(1, 1)])


def _carry(layer: nn.Module, taps: list[Tensor]) -> None:
    """Makes the P phases of each colour out of its input channel, by P taps (k, k) in the order of phases."""
    weight, phases = layer.get_parameter("weight"), len(taps)
    weight[: 3 * phases] = 0
    for colour in range(3):
        for phase, tap in enumerate(taps):
            around = (weight.shape[-1] - tap.shape[-1]) // 2
            inner = slice(around, around + tap.shape[-1])
            weight[colour * phases + phase, colour, inner, inner] = tap


def _bilinear(factor: int) -> list[Tensor]:
    """Returns the 3 x 3 taps of bilinear, centre-aligned upsampling by `factor` for each of its factor² phases."""
    lines = []
    for phase in range(factor):
        away = (phase + 0.5) / factor - 0.5  # of the output pixel from its input pixel, in input pixels
        lines.append(torch.tensor([max(-away, 0.0), 1 - abs(away), max(away, 0.0)]))
    return [torch.outer(down, across) for down in lines for across in lines]

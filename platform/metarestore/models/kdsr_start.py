"""Initial weights of KDSR: an encoder that distinguishes images, and a restorer that upscales bilinearly.

With PyTorch's default initialisation each convolution shrinks its input by √3; after the encoder's dozen layers, the
output depends on the layers' biases rather than on the image. All images then have nearly the same embedding, which
the restorer cannot use, so the restoration loss gives the encoder no useful gradient.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BRANCH = 0.1
"""Factor on the initial weights of the last layer of a residual branch."""


def excite(module: nn.Module, slope: float) -> None:
    """Initialises convolutions and linear layers with weights that preserve the variance of their input; biases are 0.

    Source: He et al., Delving Deep into Rectifiers (2015), eq. 15, for leaky rectifiers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=slope, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def blind_to_brightness(layer: nn.Module) -> None:
    """Makes a convolution's initial output 0 on uniform images.

    Brightness is the largest difference between images, but carries no information about their degradation.
    """
    with torch.no_grad():
        weight = layer.get_parameter("weight")
        weight.sub_(weight.mean(dim=(-2, -1), keepdim=True))


def start_around_one(layer: nn.Module) -> None:
    """Makes a layer's initial output near 1 for all inputs.

    The kernels of the restorer, which have no bias, are then initially as large as those of a network without an
    encoder, and adding an encoder to a trained restorer hardly changes its output.
    """
    shrink([layer])
    with torch.no_grad():
        layer.get_parameter("bias").fill_(1.0)


def shrink(layers: Iterable[nn.Module], factor: float = BRANCH) -> None:
    """Scales the weights of layers; the default factor is for the last layers of residual branches.

    Source: Wang et al., ESRGAN (2018), section 3.1: a sequence of many residual blocks is then initially near the
    identity.
    """
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.mul_(factor)


def start_bilinear(head: nn.Conv2d, grow: Iterable[nn.Module], factors: Iterable[int], tail: nn.Conv2d) -> None:
    """Makes the first three channels carry the colours through head, pixel shuffles and tail, upscaled bilinearly.

    The other channels start with small weights.

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
    """Computes the P phases of each colour from its input channel, with P taps (k, k) in the order of phases."""
    weight, phases = layer.get_parameter("weight"), len(taps)
    weight[: 3 * phases] = 0
    for colour in range(3):
        for phase, tap in enumerate(taps):
            margin = (weight.shape[-1] - tap.shape[-1]) // 2
            inner = slice(margin, margin + tap.shape[-1])
            weight[colour * phases + phase, colour, inner, inner] = tap


def _bilinear(factor: int) -> list[Tensor]:
    """Returns the 3 x 3 taps of bilinear, centre-aligned upsampling by `factor` for each of its factor² phases."""
    lines = []
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5  # from the input pixel to the output pixel, in input pixels
        lines.append(torch.tensor([max(-offset, 0.0), 1 - abs(offset), max(offset, 0.0)]))
    return [torch.outer(down, across) for down in lines for across in lines]

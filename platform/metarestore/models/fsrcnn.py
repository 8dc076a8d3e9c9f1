"""FSRCNN: features, shrinking, mapping, expanding, and one transposed convolution.

Source: Dong, Loy, Tang, Accelerating the Super-Resolution Convolutional Neural Network (ECCV 2016), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from metarestore.degradations.resample import bicubic_upsample
from metarestore.models.network import Channels, Network
from metarestore.models.subpixel import KERNEL, PADDING, subpixel_conv_transpose

_BICUBIC = 2
"""Radius of bicubic upscaling, in LR pixels."""


class FSRCNN(Network):
    """FSRCNN(d, s, m).

    Args:
        scale: Upscaling factor.
        channels: Whether images are luma (1 channel) or RGB (3).
        d: Feature channels.
        s: Channels of the mapping layers.
        m: Number of mapping layers.
        residual: Whether the output is added to the bicubic upscaling ("bicubic"), or is the image itself as published.
        prelu: Whether each channel of a PReLU has its own slope, or all channels of a layer share one as published.
    """

    def __init__(
        self,
        scale: int,
        channels: Channels,
        d: int,
        s: int,
        m: int,
        residual: Literal["bicubic", "none"],
        prelu: Literal["per_channel", "per_layer"],
    ) -> None:
        super().__init__()
        self.scale = scale
        self.channels = channels
        self.residual = residual
        planes = 1 if channels == "y" else 3
        self.mapping_layers = m

        def rectifier(maps: int) -> nn.PReLU:
            return nn.PReLU(maps if prelu == "per_channel" else 1)

        layers: list[nn.Module] = [nn.Conv2d(planes, d, 5, padding=2), rectifier(d), nn.Conv2d(d, s, 1), rectifier(s)]
        for _ in range(m):
            layers += [nn.Conv2d(s, s, 3, padding=1), rectifier(s)]
        self.body = nn.Sequential(*layers, nn.Conv2d(s, d, 1), rectifier(d))
        # Stored in the shape of the transposed convolution, so that published checkpoints load.
        self.tail = nn.ConvTranspose2d(d, planes, KERNEL, stride=scale, padding=4, output_padding=scale - 1)
        self._initialise()

    @property
    def receptive_field(self) -> int:
        """Receptive-field radius in LR pixels."""
        return max(self.receptive_sides)

    @property
    def receptive_sides(self) -> tuple[int, int]:
        """Receptive field before and after a pixel, in LR pixels; at x3, the transposed convolution is asymmetric."""
        convolutions = (layer for layer in self.body if isinstance(layer, nn.Conv2d))
        body = sum(layer.kernel_size[0] // 2 for layer in convolutions)
        skip = _BICUBIC if self.residual == "bicubic" else 0
        return max(body + PADDING // self.scale, skip), max(body + math.ceil(PADDING / self.scale), skip)

    @property
    def feature_layers(self) -> Mapping[str, str]:
        """The maps after each part of the published network, including its PReLU."""
        ends = {"features": 1, "shrinking": 3, "mapping": 3 + 2 * self.mapping_layers}
        return {**{name: f"body.{end}" for name, end in ends.items()}, "expanding": f"body.{ends['mapping'] + 2}"}

    def _initialise(self) -> None:
        """Draws the published initialisation: He et al. for PReLU layers, N(0, 0.001) for the last one."""
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.25, nonlinearity="leaky_relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.tail.weight, std=1e-3)
        if self.tail.bias is not None:
            nn.init.zeros_(self.tail.bias)

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR images (N, C, h, w) in [0, 1] to (N, C, s·h, s·w), not clamped."""
        bias = self.tail.bias
        if bias is None:
            raise TypeError("the last layer of FSRCNN needs its bias")
        restored = subpixel_conv_transpose(self.body(lr), self.tail.weight, bias, self.scale)
        return restored + bicubic_upsample(lr, self.scale) if self.residual == "bicubic" else restored

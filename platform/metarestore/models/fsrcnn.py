"""FSRCNN: features, shrinking, mapping, expanding, and one transposed convolution.

Source: Dong, Loy, Tang, Accelerating the Super-Resolution Convolutional Neural Network (ECCV 2016), section 3.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from metarestore.degradations.resample import bicubic_upsample
from metarestore.models.network import Channels, Network
from metarestore.models.subpixel import KERNEL, subpixel_conv_transpose


class FSRCNN(Network):
    """FSRCNN(d, s, m).

    Args:
        scale: Upscaling factor.
        channels: Whether images are luma (1 channel) or RGB (3).
        d: Feature channels.
        s: Channels of the mapping layers.
        m: Number of mapping layers.
        residual: Whether the output is added to the bicubic upscaling, or is the image itself as published.
    """

    def __init__(
        self,
        scale: int,
        channels: Channels = "y",
        d: int = 56,
        s: int = 12,
        m: int = 4,
        residual: Literal["bicubic", "none"] = "bicubic",
    ) -> None:
        super().__init__()
        self.scale = scale
        self.channels = channels
        self.residual = residual
        planes = 1 if channels == "y" else 3
        layers: list[nn.Module] = [nn.Conv2d(planes, d, 5, padding=2), nn.PReLU(d), nn.Conv2d(d, s, 1), nn.PReLU(s)]
        for _ in range(m):
            layers += [nn.Conv2d(s, s, 3, padding=1), nn.PReLU(s)]
        self.body = nn.Sequential(*layers, nn.Conv2d(s, d, 1), nn.PReLU(d))
        # Kept in the transposed convolution's shape, so that published checkpoints load.
        self.tail = nn.ConvTranspose2d(d, planes, KERNEL, stride=scale, padding=4, output_padding=scale - 1)
        self._initialise()

    @property
    def reach(self) -> int:
        """How far, in LR pixels, an output pixel looks around itself."""
        convolutions = (layer for layer in self.body if isinstance(layer, nn.Conv2d))
        # The last layer, or the bicubic upscaling beside it, reaches at most 2 pixels.
        return sum(layer.kernel_size[0] // 2 for layer in convolutions) + 2

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

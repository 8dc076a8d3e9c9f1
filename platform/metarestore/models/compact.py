"""SRVGGNetCompact: 3×3 convolutions and PReLU at LR size, a pixel shuffle, and a nearest-neighbour skip.

Source: Wang, Xie, Dong, Shan, Real-ESRGAN (ICCVW 2021), the compact network of its released code; the smaller presets
are those of the community's upscalers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from metarestore.models.network import Channels
from metarestore.models.stack import ConvolutionStack

SizeName = Literal["superultracompact", "ultracompact", "compact"]


class Size(NamedTuple):
    """Width and depth.

    Attributes:
        features: Channels of the hidden layers.
        hidden: Convolutions between the first and the last one.
    """

    features: int
    hidden: int


SIZES: Mapping[SizeName, Size] = {
    "superultracompact": Size(24, 8),
    "ultracompact": Size(64, 8),
    "compact": Size(64, 16),
}


class Compact(ConvolutionStack):
    """SRVGGNetCompact, with weights under the published names `body.N.weight` and `body.N.bias`.

    Args:
        scale: Upscaling factor s.
        size: Name in `SIZES`.
        channels: Whether images are luma (1 channel), or RGB (3) as published.
    """

    def __init__(self, scale: int, size: SizeName, channels: Channels) -> None:
        super().__init__()
        self.scale = scale
        self.channels = channels
        planes = 1 if channels == "y" else 3
        features, self.hidden = SIZES[size]
        layers: list[nn.Module] = []
        for inputs in (planes, *(features,) * self.hidden):
            layers += [nn.Conv2d(inputs, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers, nn.Conv2d(features, planes * scale**2, 3, padding=1))

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR images (N, C, h, w) in [0, 1] to (N, C, s·h, s·w), not clamped."""
        restored = F.pixel_shuffle(self.body(lr), self.scale)
        return restored + lr.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)

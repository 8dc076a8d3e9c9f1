"""The network of `toy_linear`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from metarestore.models.network import Channels, Network


class Linear(Network):
    """One convolution and a pixel shuffle."""

    def __init__(self, scale: int, channels: Channels, radius: int) -> None:
        super().__init__()
        self.scale, self.channels, self.radius = scale, channels, radius
        planes = 1 if channels == "y" else 3
        self.convolution = nn.Conv2d(planes, planes * scale**2, 2 * radius + 1, padding=radius)

    @property
    def receptive_field(self) -> int:
        """The radius of the kernel."""
        return self.radius

    @property
    def feature_layers(self) -> Mapping[str, str]:
        """The only layer."""
        return {"convolution": "convolution"}

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR (N, C, h, w)."""
        return nn.functional.pixel_shuffle(self.convolution(lr), self.scale)

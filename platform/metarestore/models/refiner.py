"""The network that is adapted to one photograph: it corrects the result of upscaling or back-projection.

It receives and returns images of HR size, but computes on the LR grid: each block of s·s pixels becomes the channels of
one pixel. This costs s·s times less than the convolutions at HR size that ZSSR uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarestore.degradations.resample import bicubic_upsample
from metarestore.models.network import Network

# The network receives differences from the local mean, so that a change of brightness changes nothing else. With the
# brightness itself and without the gain, the first step of Adam changed images by 0.7 of their range (measured).
_MEAN_RADIUS = 3  # LR pixels
_GAIN = 0.03
_BICUBIC_RADIUS = 2  # LR pixels


class Refiner(nn.Module):
    """Adds a correction to images (N, 3, s·h, s·w), which is zero before training.

    The first residual module, the pre-processing, reverses the additional degradation of the images that are learned
    from. The trunk restores the rest.

    Args:
        scale: Factor s.
        features: Channels of the trunk.
        layers: Convolutions of the trunk, at least 3.
        preprocessing: Channels of the pre-processing module; 0 leaves it out.
        channels_last: Whether to use channels-last memory, which is faster but not supported by `vmap`.

    Source: Shocher et al., "Zero-Shot" Super-Resolution using Deep Internal Learning (2018), for the size of the
    trunk; Shi et al., Real-Time Single Image and Video Super-Resolution (2016), for the LR grid.
    """

    def __init__(
        self, scale: int, features: int = 64, layers: int = 8, preprocessing: int = 32, *, channels_last: bool = True
    ) -> None:
        super().__init__()
        self.scale = scale
        self._channels_last = channels_last
        pixels = 3 * scale**2
        self.first: nn.ModuleList | None = _convolutions(pixels, preprocessing, 6) if preprocessing else None
        self.trunk = _convolutions(pixels, features, layers)

    @property
    def reach(self) -> int:
        """Receptive-field radius, in LR pixels."""
        chains = [len(chain) + _MEAN_RADIUS for chain in (self.first, self.trunk) if chain is not None]
        return sum(chains)

    def preprocess(self, images: Tensor) -> Tensor:
        """Applies the pre-processing module alone to images (N, 3, s·h, s·w)."""
        if self.first is None:
            return images
        return images + self._correction(self.first, images)

    def forward(self, images: Tensor) -> Tensor:
        """Corrects images (N, 3, s·h, s·w), not clamped."""
        prepared = self.preprocess(images)
        return prepared + self._correction(self.trunk, prepared)

    def _correction(self, layers: nn.ModuleList, images: Tensor) -> Tensor:
        pixels = F.pixel_unshuffle(images, self.scale)
        if self._channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        mean = F.avg_pool2d(pixels, 2 * _MEAN_RADIUS + 1, 1, _MEAN_RADIUS, count_include_pad=False)
        signal = F.relu(layers[0](pixels - mean))
        for layer in list(layers)[1:-1]:
            signal = signal + F.relu(layer(signal))
        return _GAIN * F.pixel_shuffle(layers[-1](signal), self.scale)


class ZeroShotNetwork(Network):
    """Bicubic upscaling followed by a `Refiner`, for training on tasks before the adaptation to one photograph.

    Args:
        scale: Factor s.
        channels: Always RGB.
        preprocessing: Channels of the pre-processing module; 0 leaves it out.

    Source: Soh et al., Meta-Transfer Learning for Zero-Shot Super-Resolution (2020), for the structure.
    """

    def __init__(self, scale: int, channels: Literal["rgb"] = "rgb", preprocessing: int = 32) -> None:
        super().__init__()
        self.scale = scale
        self.channels = channels
        self.refiner = Refiner(scale, preprocessing=preprocessing, channels_last=False)

    @property
    def receptive_field(self) -> int:
        """Receptive-field radius in LR pixels, of the refiner and bicubic upscaling together."""
        return self.refiner.reach + _BICUBIC_RADIUS

    @property
    def feature_layers(self) -> Mapping[str, str]:
        """The hidden layers of the trunk, in order."""
        return {f"trunk_{k + 1}": f"refiner.trunk.{k}" for k in range(len(self.refiner.trunk) - 1)}

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR (N, 3, h, w) to (N, 3, s·h, s·w), not clamped."""
        restored: Tensor = self.refiner(bicubic_upsample(lr, self.scale))
        return restored


def _convolutions(pixels: int, features: int, count: int) -> nn.ModuleList:
    """Builds a chain of 3x3 convolutions, the last of which is initialised with zeros."""
    widths = [pixels, *[features] * (count - 1), pixels]
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    for layer in layers[1:-1]:
        layer.weight.data.mul_(0.1)  # near the identity, so that the chain preserves the scale of its signal
    nn.init.zeros_(layers[-1].weight)
    return nn.ModuleList(layers)

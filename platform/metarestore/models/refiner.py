"""The network that is adapted to one photograph: it restores what enlarging, or back-projection, leaves.

It sees and returns images of HR size, but computes on the LR grid: s·s pixels are channels of one, which costs s·s
times less than convolutions at HR size, on which ZSSR spends its minutes.
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

# The network sees differences from the mean around a pixel, so that a change of brightness changes nothing else. With
# the brightness itself and without the gain, the first step of Adam moved images by 0.7 of their range (measured).
_MEAN_RADIUS = 3  # LR pixels
_GAIN = 0.03
_BICUBIC_REACH = 2  # LR pixels


class Refiner(nn.Module):
    """Adds a correction to images (N, 3, s·h, s·w); a new one adds nothing.

    A residual module comes first, the pre-processing: it restores what the additional degradation took from the images
    that are learned from. The trunk restores the rest.

    Args:
        scale: Factor s.
        features: Channels of the trunk.
        layers: Convolutions of the trunk, at least 3.
        preprocessing: Channels of the pre-processing module; 0 leaves it out.
        channels_last: Whether to compute in this order of memory, which is faster, but which `vmap` does not know.

    Source: Shocher et al., "Zero-Shot" Super-Resolution using Deep Internal Learning (2018), for the size of the
    trunk; Shi et al., Real-Time Single Image and Video Super-Resolution (2016), for the grid.
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
    """A `Refiner` of what bicubic upscaling makes of LR: learns from tasks before it is adapted to one photograph.

    Args:
        scale: Factor s.
        channels: Always RGB.
        preprocessing: Channels of the pre-processing module; 0 leaves it out.

    Source: Soh et al., Meta-Transfer Learning for Zero-Shot Super-Resolution (2020), whose network refines so, too.
    """

    def __init__(self, scale: int, channels: Literal["rgb"] = "rgb", preprocessing: int = 32) -> None:
        super().__init__()
        self.scale = scale
        self.channels = channels
        self.refiner = Refiner(scale, preprocessing=preprocessing, channels_last=False)

    @property
    def receptive_field(self) -> int:
        """Radius, in LR pixels: that of the refiner and of bicubic upscaling."""
        return self.refiner.reach + _BICUBIC_REACH

    @property
    def feature_layers(self) -> Mapping[str, str]:
        """The hidden layers of the trunk, in their order."""
        return {f"trunk_{k + 1}": f"refiner.trunk.{k}" for k in range(len(self.refiner.trunk) - 1)}

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR (N, 3, h, w)."""
        enlarged: Tensor = self.refiner(bicubic_upsample(lr, self.scale))
        return enlarged


def _convolutions(pixels: int, features: int, count: int) -> nn.ModuleList:
    """Makes a chain of 3x3 convolutions that begins with zeros at its end."""
    widths = [pixels, *[features] * (count - 1), pixels]
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    for layer in layers[1:-1]:
        layer.weight.data.mul_(0.1)  # near the identity, so that a chain neither grows nor shrinks its signal
    nn.init.zeros_(layers[-1].weight)
    return nn.ModuleList(layers)

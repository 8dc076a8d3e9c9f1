"""PISR's teacher: an encoder of HR, with the student's network as its decoder.

Source: Lee, Lee, Kim, Ham, Learning with Privileged Information for Efficient Image Super-Resolution (ECCV 2020),
section 3.1; layers as in the published code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from metarestore.models.network import Network

_STRIDED = 4
"""Receptive-field radius of the strided layer, in HR pixels."""


class PISRTeacher(Network):
    """Encodes HR images as images of LR size, and restores HR from them.

    Args:
        scale: Upscaling factor s.
        decoder: The network of the students; restores HR from the encoding.
        d: Channels of the encoder's first two layers.
        s: Channels of its third layer.
    """

    privileged = True

    def __init__(self, scale: int, decoder: Network, d: int, s: int) -> None:
        super().__init__()
        self.scale = scale
        self.channels = decoder.channels
        planes = 1 if decoder.channels == "y" else 3
        self.encoder = nn.Sequential(
            nn.Conv2d(planes, d, 5, padding=2),
            nn.PReLU(),
            nn.Conv2d(d, d, 5, stride=scale, padding=2),
            nn.PReLU(),
            nn.Conv2d(d, s, 3, padding=1),
            nn.PReLU(),
            nn.Conv2d(s, planes, 3, padding=1),
        )
        self.decoder = decoder

    @property
    def receptive_field(self) -> int | None:
        """Radius, in LR pixels, of the part of HR that an output pixel depends on."""
        sides = self.decoder.receptive_sides
        if sides is None:
            return None
        # The strided layer is asymmetric in LR pixels at x3, opposite to the decoder's transposed convolution.
        return 2 + max(sides[0] + math.ceil(_STRIDED / self.scale), sides[1] + _STRIDED // self.scale)

    @property
    def feature_layers(self) -> Mapping[str, str]:
        """The encoding and the features of the decoder."""
        decoder = {name: f"decoder.{layer}" for name, layer in self.decoder.feature_layers.items()}
        return {"encoding": "encoder", **decoder}

    def for_student(self) -> dict[str, Tensor]:
        """Returns the parameters of the decoder, by their names in a student."""
        return self.decoder.for_student()

    def forward(self, lr: Tensor, hr: Tensor | None = None) -> Tensor:
        """Restores HR (N, C, s·h, s·w) from its own encoding, not clamped; LR (N, C, h, w) is ignored.

        Raises:
            ValueError: HR is not given.
        """
        if hr is None:
            raise ValueError("a PISR teacher must be given the HR images; restore with a student")
        restored: Tensor = self.decoder(self.encoder(hr))
        return restored

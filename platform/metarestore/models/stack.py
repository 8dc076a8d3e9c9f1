"""What networks have in common that are one stack of 3×3 convolutions and PReLUs at LR size."""

from __future__ import annotations

from collections.abc import Mapping

from metarestore.models.network import Network


class ConvolutionStack(Network):
    """A network whose `body` alternates convolutions and PReLUs, and ends with a convolution.

    Attributes:
        hidden: Number of convolutions between the first and the last one.
    """

    hidden: int

    @property
    def receptive_field(self) -> int:
        """Receptive-field radius in LR pixels: 1 per convolution."""
        return self.hidden + 2

    @property
    def last_layer(self) -> str:
        """The last convolution, with its branches if it has any."""
        return f"body.{2 * (self.hidden + 1)}"

    @property
    def feature_layers(self) -> Mapping[str, str]:
        """The maps after the first, the middle and the last PReLU."""
        return {
            "first": "body.1",
            "middle": f"body.{2 * (self.hidden // 2) + 1}",
            "last": f"body.{2 * self.hidden + 1}",
        }

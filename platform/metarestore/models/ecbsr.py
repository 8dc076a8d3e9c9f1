"""ECBSR: plain 3×3 convolutions, each of which is trained as the sum of several branches.

Every branch is linear, so the sum is itself a 3×3 convolution. The sum is computed before it is applied, also during
training: images pass through one convolution per layer, and only the small kernels pass through the branches.

Source: Zhang, Zeng, Zhang, Edge-oriented Convolution Block for Real-time Super Resolution on Mobile Devices (ACM
Multimedia 2021), section 3.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarestore.models.network import Channels, Network
from metarestore.models.stack import ConvolutionStack

EDGES = {
    "horizontal": ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),
    "vertical": ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),
    "laplacian": ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),
}
"""Fixed kernels of the edge branches: Sobel filters and the Laplacian."""

_WIDER = 2
"""Channels between the two convolutions of the expanding branch, as a multiple of the output channels."""
_SMALL = 1e-3
"""Standard deviation of the initial scales and biases of the edge branches."""


class EdgeBranch(nn.Module):
    """A 1×1 convolution, then a fixed edge filter with a learned scale for each channel.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        edge: Name in `EDGES`.
    """

    edge: Tensor

    def __init__(self, inputs: int, outputs: int, edge: str) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, outputs, 1)
        self.scale = nn.Parameter(_SMALL * torch.randn(outputs))
        self.bias = nn.Parameter(_SMALL * torch.randn(outputs))
        self.register_buffer("edge", torch.tensor(EDGES[edge]), persistent=False)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Returns the kernel (O, I, 3, 3) and bias (O,) of the branch as one convolution."""
        taps = self.scale[:, None, None] * self.edge.to(self.scale)
        bias = self.bias if self.reduce.bias is None else self.bias + self.reduce.bias * taps.sum(dim=(1, 2))
        return self.reduce.weight * taps[:, None], bias


class ExpandingBranch(nn.Module):
    """A 1×1 convolution to more channels, then a 3×3 convolution.

    Args:
        inputs: Input channels.
        outputs: Output channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, _WIDER * outputs, 1)
        self.squeeze = nn.Conv2d(_WIDER * outputs, outputs, 3, padding=1)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Returns the kernel (O, I, 3, 3) and bias (O,) of the branch as one convolution."""
        kernel = torch.einsum("omyx,mi->oiyx", self.squeeze.weight, self.expand.weight[:, :, 0, 0])
        inner = self.squeeze.weight.sum(dim=(2, 3)) @ _bias(self.expand)
        return kernel, _bias(self.squeeze) + inner


class Branches(nn.Module):
    """ECB: the sum of a 3×3 convolution, an expanding branch and three edge branches.

    The first convolution of a branch is also applied to the zeros around the image, so its bias is the same at the
    border: otherwise the branches would not fold exactly.

    Args:
        inputs: Input channels.
        outputs: Output channels.

    Source: section 3.2, eqs. 1 to 8.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.plain = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.expanding = ExpandingBranch(inputs, outputs)
        self.edges = nn.ModuleList(EdgeBranch(inputs, outputs, edge) for edge in EDGES)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Returns the kernel (O, I, 3, 3) and bias (O,) of the sum."""
        kernel, bias = self.plain.weight, _bias(self.plain)
        for branch in (self.expanding, *self.edges):
            branch_kernel, branch_bias = branch.fold()
            kernel, bias = kernel + branch_kernel, bias + branch_bias
        return kernel, bias

    def forward(self, x: Tensor) -> Tensor:
        """Applies the folded convolution to maps (N, I, h, w)."""
        kernel, bias = self.fold()
        return F.conv2d(x, kernel, bias, padding=1)


class ECBSR(ConvolutionStack):
    """ECBSR with m hidden convolutions of c channels, PReLU, and a nearest-neighbour skip before the pixel shuffle.

    Args:
        scale: Upscaling factor s.
        m: Number of hidden convolutions.
        c: Channels of the hidden layers.
        channels: Whether images are luma (1 channel), as published, or RGB (3).
        branches: Whether each convolution is the sum of branches, or plain.
    """

    interchangeable: ClassVar[tuple[str, ...]] = ("branches",)

    def __init__(self, scale: int, m: int, c: int, channels: Channels, branches: bool) -> None:
        super().__init__()
        self.scale = scale
        self.channels = channels
        self.hidden, self.width = m, c
        planes = 1 if channels == "y" else 3
        layers: list[nn.Module] = []
        for inputs in (planes, *(c,) * m):
            layers += [_convolution(inputs, c, branches=branches), nn.PReLU(c)]
        self.body = nn.Sequential(*layers, _convolution(c, planes * scale**2, branches=branches))

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR images (N, C, h, w) in [0, 1] to (N, C, s·h, s·w), not clamped."""
        return F.pixel_shuffle(self.body(lr) + lr.repeat_interleave(self.scale**2, dim=1), self.scale)

    def simplified(self) -> ECBSR:
        """Returns the network with its branches folded into plain convolutions."""
        folded = ECBSR(self.scale, self.hidden, self.width, self.channels, branches=False)
        folded.load_state_dict(folded.started_from(self))
        return folded.train(self.training)

    def started_from(self, other: Network) -> dict[str, Tensor]:
        """Returns the parameters of another ECBSR, with its branches folded if this network has none.

        Raises:
            ValueError: The other network is not an ECBSR, or this network has branches and the other one has none.
        """
        if not isinstance(other, ECBSR):
            raise ValueError("an ECBSR can only start from an ECBSR")
        ours, theirs = (any(isinstance(layer, Branches) for layer in network.body) for network in (self, other))
        if ours == theirs:
            return super().started_from(other)
        if ours:
            raise ValueError("branches cannot be recovered from the convolutions that they were folded into")
        folded: dict[str, Tensor] = {}
        for index, layer in enumerate(other.body):
            if isinstance(layer, Branches):
                kernel, bias = layer.fold()
                folded |= {f"body.{index}.weight": kernel.detach(), f"body.{index}.bias": bias.detach()}
            else:
                folded |= {f"body.{index}.{name}": value.detach() for name, value in layer.named_parameters()}
        return folded


def _convolution(inputs: int, outputs: int, *, branches: bool) -> nn.Module:
    return Branches(inputs, outputs) if branches else nn.Conv2d(inputs, outputs, 3, padding=1)


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise TypeError("the convolutions of ECBSR need a bias")
    return layer.bias

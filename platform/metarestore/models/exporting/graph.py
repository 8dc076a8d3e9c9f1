"""The graph that is exported: RGB images in [0, 1] to RGB images in [0, 1], whatever the channels of the network."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from metarestore.errors import UserError
from metarestore.models.build import restore_rgb
from metarestore.models.kdsr import KDSR
from metarestore.models.low_frequencies import keep_low_frequencies
from metarestore.models.network import Network


class Graph(nn.Module):
    """Restores RGB (1, 3, h, w) in [0, 1] to (1, 3, s·h, s·w) in [0, 1], in float32, as `restore_rgb` does.

    The conversion of colours and the correction of low frequencies are part of it, in float32 also if `half`.

    Args:
        network: The network; it is copied.
        embedding: D (1, C), into whose kernels a KDSR is folded; its encoder is left out then.
        half: Whether weights and features have 16 bits.

    Raises:
        UserError: The network is a teacher and no embedding is given, or it is no KDSR and an embedding is given.
    """

    def __init__(self, network: Network, embedding: Tensor | None = None, *, half: bool = False) -> None:
        super().__init__()
        self.scale, self.channels, self.least = network.scale, network.channels, network.least
        self._keeps_low_frequencies = network.keeps_low_frequencies
        self.bits = 16 if half else 32
        inner = _inner(network, embedding)
        self.inner = (inner.half() if half else inner).eval().requires_grad_(False)

    @property
    def weights(self) -> int:
        """Number of stored values."""
        return sum(value.numel() for value in (*self.inner.parameters(), *self.inner.buffers()))

    def forward(self, lr: Tensor) -> Tensor:
        """Restores RGB images (1, 3, h, w) in [0, 1]."""
        return restore_rgb(self._restored, lr, scale=self.scale, channels=self.channels)

    def _restored(self, lr: Tensor) -> Tensor:
        """Restores images in the channels of the network, not clamped."""
        # The hook that keeps low frequencies is bypassed: it would compute the correction with 16 bits.
        restored: Tensor = self.inner.forward(lr.half() if self.bits == 16 else lr)
        restored = restored.to(lr.dtype)
        return keep_low_frequencies(restored, lr, self.scale) if self._keeps_low_frequencies else restored


class FixedKDSR(nn.Module):
    """A KDSR for one degradation: its encoder is left out, and its depthwise kernels are constants.

    Args:
        network: The network; it is copied.
        embedding: D (1, C).
    """

    embedding: Tensor

    def __init__(self, network: KDSR, embedding: Tensor) -> None:
        super().__init__()
        self.restorer = deepcopy(network.restorer)
        for block in self.restorer.blocks:
            with torch.no_grad():
                kernels = block.get_submodule("kernels")(embedding)
            block.add_module("kernels", _Constant(kernels))
        self.register_buffer("embedding", torch.zeros_like(embedding), persistent=False)  # no longer used

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR (1, 3, h, w) in [0, 1] to (1, 3, s·h, s·w), not clamped."""
        restored: Tensor = self.restorer(lr, self.embedding)
        return restored


class _Constant(nn.Module):
    """Returns a stored tensor, whatever its input."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, given: Tensor) -> Tensor:
        del given
        return self.value


def _inner(network: Network, embedding: Tensor | None) -> nn.Module:
    """Returns a copy of the network in its simplest form."""
    if embedding is not None and not isinstance(network, KDSR):
        raise UserError("--embedding: the network is no KDSR, so it has no degradation encoder; remove this option")
    if isinstance(network, KDSR) and network.estimator is None and embedding is None:
        embedding = torch.ones(1, network.features)
    if isinstance(network, KDSR) and embedding is not None:
        return FixedKDSR(network, embedding)
    if network.privileged:
        raise UserError("the network is a teacher, which needs the HR image as input; export a student")
    return deepcopy(network.simplified())

"""Networks of other projects, which spandrel recognises, as networks of this platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarestore.models.merged_convolution import MergedConvolution
from metarestore.models.network import Network
from metarestore.models.parameters import Layout
from metarestore.models.spandrel_library import Recognised

_TILE = 128
_PREFIX = "inner."
_DIFFERENTIABLE_IN_TRAINING = frozenset({"PLKConv2d", "RectSparsePLKConv2d", "MoELayer"})
"""Layers that in evaluation mode overwrite their input, or select experts for a single image; in training mode they
compute the same values, with gradients and for any number of images."""

_CONSTANT = frozenset({"MeanShift"})
"""Layers that the architecture means to freeze, whether or not its code does."""


class SpandrelNetwork(Network):
    """A network of another project: its parameters are trained, its buffers and frozen parameters are kept.

    Layers stay in evaluation mode, in which they do not depend on chance or on the other images of a batch.

    Args:
        recognised: The network.
    """

    interchangeable: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(self, recognised: Recognised) -> None:
        super().__init__()
        self.scale, self.channels = recognised.scale, recognised.channels
        self.foreign = recognised.architecture
        self.tile = -(-_TILE // recognised.multiple) * recognised.multiple
        self.least = max(self.least, recognised.minimum, recognised.multiple)
        self._call, self._padding, self._multiple = recognised.call, recognised.padding, recognised.multiple
        self.square = recognised.square
        self.inner = _with_frozen_buffers(_merged(recognised.module))
        self.train(self.training)

    @property
    def receptive_field(self) -> None:
        """Unknown, so that large photographs are restored in tiles."""

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the wrapper; the layers of the network stay in evaluation mode."""
        super().train(mode)
        self.inner.eval()
        for module in self.inner.modules():
            if type(module).__name__ in _DIFFERENTIABLE_IN_TRAINING:
                module.training = True  # its own mode only, not that of its layers
        return self

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR images (N, C, h, w) in [0, 1] to (N, C, s·h, s·w), not clamped."""
        height, width = lr.shape[-2:]
        restored = self._call(self.inner, self._padded(lr))
        return restored[..., : self.scale * height, : self.scale * width]

    def stored(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns all tensors under the names of the architecture, so that other tools can open the file."""
        tensors = dict(self.inner.state_dict())
        tensors |= {name.removeprefix(_PREFIX): value for name, value in params.items()}
        for path, module in self.inner.named_modules():
            if isinstance(module, MergedConvolution):
                layers = module.full_layout(tensors.pop(f"{path}.weight"), tensors.pop(f"{path}.bias"))
                tensors |= {f"{path}.{name}": value for name, value in layers.items()}
        return {name: value.clone() for name, value in tensors.items()}  # buffers may share memory

    def started_from(self, other: Network) -> dict[str, Tensor]:
        """Returns the parameters of a trained network of the same architecture and size.

        Raises:
            ValueError: It has another architecture or size.
        """
        if Layout.of(self) != Layout.of(other):
            raise ValueError(f"it has another architecture or size ({other.foreign}) than model.path ({self.foreign})")
        return super().started_from(other)

    def _padded(self, lr: Tensor) -> Tensor:
        """Extends images on the right and at the bottom to the size that the network requires, as spandrel does."""
        if torch.compiler.is_exporting():
            return _reflected(lr, self._multiple).clone()
        columns, rows = self._padding(lr.shape[-1], lr.shape[-2])
        if not columns and not rows:
            return lr.clone()  # some networks scale their input in place, e.g. RCAN
        # Reflection cannot add more than the image's side less 1.
        reflected = [min(columns, lr.shape[-1] - 1), min(rows, lr.shape[-2] - 1)]
        lr = F.pad(lr, (0, reflected[0], 0, reflected[1]), "reflect")
        return F.pad(lr, (0, columns - reflected[0], 0, rows - reflected[1]), "replicate")


def _reflected(images: Tensor, multiple: int) -> Tensor:
    """Extends images of any size by reflection, so that their sides are multiples of `multiple` ≤ h, w."""
    for axis in (-1, -2) if multiple > 1 else ():
        side = images.shape[axis]
        position = torch.arange((side + multiple - 1) // multiple * multiple, device=images.device)
        images = images.index_select(axis, torch.where(position < side, position, 2 * (side - 1) - position))
    return images


def _merged(network: nn.Module) -> nn.Module:
    """Replaces layers that are merged without gradients."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "Conv3XC":
                setattr(module, name, MergedConvolution(child))
    return network


def _with_frozen_buffers(network: nn.Module) -> nn.Module:
    """Turns parameters that the architecture does not train, e.g. a mean colour, into buffers."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad or type(module).__name__ in _CONSTANT:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
    return network

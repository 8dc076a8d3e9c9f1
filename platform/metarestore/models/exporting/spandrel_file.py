"""Files of weights under published names, which spandrel and the tools that use it open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from metarestore.errors import UserError
from metarestore.models.build import restore_rgb
from metarestore.models.compact import Compact
from metarestore.models.network import Network
from metarestore.models.spandrel_library import recognise
from metarestore.models.spandrel_network import SpandrelNetwork


def weights_by_name(network: Network, *, half: bool) -> dict[str, Tensor]:
    """Returns the tensors of a network of an architecture that spandrel knows.

    Args:
        network: The network.
        half: Whether to convert floating-point tensors to 16 bits.

    Raises:
        UserError: spandrel does not know the architecture, or weights alone do not describe the network.
    """
    if network.foreign is None and not isinstance(network, Compact):
        raise UserError(
            f"--to spandrel: spandrel knows no architecture {type(network).__name__}, only compact and networks of "
            "other projects; use --to onnx"
        )
    if network.keeps_low_frequencies:
        raise UserError(
            "--to spandrel: the network corrects low frequencies (keep_low_frequencies: both), which a file of weights "
            "cannot do; adapt with model: {keep_low_frequencies: hr}, or use --to onnx"
        )
    params = {name: parameter.detach() for name, parameter in network.named_parameters()}
    tensors = network.stored(params)
    return {
        name: (value.half() if half and value.is_floating_point() else value).contiguous()
        for name, value in tensors.items()
    }


def spandrel_file(tensors: dict[str, Tensor]) -> bytes:
    """Returns the content of a safetensors file of these tensors alone."""
    return save(tensors)


def spandrel_restore(file: Path, tensors: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Opens tensors with spandrel; returns the function of RGB images (1, 3, h, w) that they compute.

    Raises:
        UserError: spandrel is not installed, or does not recognise the tensors.
    """
    network = SpandrelNetwork(recognise(file, {name: value.clone() for name, value in tensors.items()})).eval()
    network = network.to(torch.float32)
    return lambda lr: restore_rgb(network, lr, scale=network.scale, channels=network.channels)

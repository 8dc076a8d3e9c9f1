"""Restores images of the types that people have: NumPy arrays, PyTorch tensors, Pillow images."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from metarestore.errors import UserError
from metarestore.models import checkpoint
from metarestore.models.choice import choose_network
from metarestore.models.network import Network
from metarestore.models.restore import image_restorer
from metarestore.models.shipped import recommended

ImageType = TypeVar("ImageType", NDArray[Any], Tensor, Image.Image)

_PLANAR = {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "I;16": "I;16", "1": "L", "PA": "RGBA"}
"""Modes of Pillow, and the modes in which they are restored; all others are restored as RGB."""


def load_model(path: str | os.PathLike[str]) -> Network:
    """Opens a trained network, as an `nn.Module` in evaluation mode.

    It maps LR images (N, C, h, w) in [0, 1] to (N, C, s·h, s·w), not clamped, with C = 1 (luma) or 3 (RGB) as
    `network.channels` says; `restore` converts colours by itself.

    Args:
        path: The folder of a run or a study, a file of weights (also one of another project that spandrel recognises),
            or the name of a shipped network. Of a run it is the adapted network, of a study that of the best arm.

    Raises:
        UserError: There is no such network, or it cannot be opened.
    """
    return checkpoint.load_model(choose_network(path).file)


def restore(
    image: ImageType,
    model: str | os.PathLike[str] | Network | None = None,
    *,
    scale: int | None = None,
    self_ensemble: bool = False,
) -> ImageType:
    """Restores an image with a trained network, and returns the same type.

    Args:
        image: A NumPy array (h, w), (h, w, 3) or with alpha (h, w, 2 or 4) of uint8, uint16, or float in [0, 1]; a
            tensor (C, h, w) or (N, C, h, w) in [0, 1] with C = 1 (gray) or 3 (RGB), on any device; or a Pillow image,
            whose colour profile is kept.
        model: As for `load_model`, or a network; None selects the shipped network of the scale with the highest gain.
        scale: Upscaling factor, if no model is given.
        self_ensemble: Whether to average the restorations of eight orientations: better, 8 times the work.

    Returns:
        The restored image, s times as large.

    Raises:
        UserError: The image has other values or another shape, or neither a model nor a scale is given.
    """
    restored = image_restorer(_network(model, scale), ensemble=self_ensemble)
    if isinstance(image, Tensor):
        return _tensor(image, restored)
    if isinstance(image, Image.Image):
        return _pillow(image, restored)
    return restored(image)


def _network(model: str | os.PathLike[str] | Network | None, scale: int | None) -> Network:
    if model is None and scale is None:
        raise UserError("restore: give a model, or a scale to use a shipped network, e.g. scale=4")
    network = model if isinstance(model, Network) else load_model(model or recommended(scale or 0).file)
    if model is not None and scale not in (None, network.scale):
        raise UserError(f"restore: the model is for scale {network.scale}, got scale={scale}; leave scale out")
    return network


def _tensor(image: Tensor, restored: Any) -> Tensor:
    """Restores (C, h, w) or (N, C, h, w) in [0, 1]."""
    if image.dim() not in (3, 4) or image.shape[-3] not in (1, 3) or not image.is_floating_point():
        shape = "x".join(map(str, image.shape))
        raise UserError(
            f"restore: the tensor is {image.dtype} of shape {shape}; give float values in [0, 1], (C, h, w) or "
            "(N, C, h, w) with C = 1 or 3"
        )
    if image.dim() == 4:
        return torch.stack([_tensor(one, restored) for one in image])
    pixels = image.detach().permute(1, 2, 0).cpu().double().numpy()
    found: NDArray[Any] = restored(np.ascontiguousarray(pixels))
    return torch.from_numpy(found).permute(2, 0, 1).to(image)


def _pillow(image: Image.Image, restored: Any) -> Image.Image:
    """Restores an image of any mode; palettes and CMYK are restored as RGB."""
    transparent = image.mode == "P" and "transparency" in image.info
    mode = "RGBA" if transparent else _PLANAR.get(image.mode, "RGB")
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    found = Image.fromarray(restored(pixels))
    if profile := image.info.get("icc_profile") if image.mode == mode else None:
        found.info["icc_profile"] = profile
    return found

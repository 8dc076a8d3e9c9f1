"""Restoring whole photographs with a trained network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.models.build import restore_rgb
from metarestore.models.fsrcnn import FSRCNN

Pixels = NDArray[np.uint8]

_STRIP = 2**19
"""LR pixels that are restored at once: what a network of 64 channels holds of them fits some hundred MiB."""


def image_restorer(network: FSRCNN, strip: int = _STRIP) -> Callable[[Pixels], Pixels]:
    """Returns a function from 8-bit RGB pixels (h, w, 3) to restored ones (s·h, s·w, 3).

    Large photographs are restored in horizontal strips that overlap by what the network sees around a pixel, so the
    strips do not show.

    Args:
        network: The network.
        strip: LR pixels of a strip, about.
    """
    margin = network.reach

    def restore(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        rows = max(strip // width, 1)
        strips = []
        for top in range(0, height, rows):
            first, last = max(top - margin, 0), min(top + rows + margin, height)
            restored = restore_rgb(network, _tensor(pixels[first:last]), scale=network.scale, channels=network.channels)
            inner = restored[..., (top - first) * network.scale :, :][..., : rows * network.scale, :]
            strips.append(_pixels(inner[0]))
        return np.concatenate(strips)

    return restore


def _tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].to(torch.float32) / 255.0


def _pixels(image: Tensor) -> Pixels:
    rounded: Pixels = (image * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return rounded

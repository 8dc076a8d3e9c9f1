"""Restoring whole photographs with a trained network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from metarestore.models.build import restore_rgb
from metarestore.models.fsrcnn import FSRCNN

Pixels = NDArray[np.uint8]


def image_restorer(network: FSRCNN) -> Callable[[Pixels], Pixels]:
    """Returns a function from 8-bit RGB pixels (h, w, 3) to restored ones (s·h, s·w, 3)."""

    def restore(pixels: Pixels) -> Pixels:
        lr = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].to(torch.float32) / 255.0
        restored = restore_rgb(network, lr, scale=network.scale, channels=network.channels)
        result: Pixels = (restored[0] * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return result

    return restore

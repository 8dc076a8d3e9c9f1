"""Restoring whole photographs with a trained network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.errors import UserError
from metarestore.models.build import restore_rgb, to_channels
from metarestore.models.kdsr import KDSR
from metarestore.models.network import Network, Restore
from metarestore.models.self_ensemble import self_ensemble
from metarestore.models.tiles import tiled

Pixels = NDArray[np.uint8]

_STRIP = 2**19
"""LR pixels that are restored at once: what a network of 64 channels holds of them fits some hundred MiB."""


def image_restorer(
    network: Network,
    strip: int = _STRIP,
    crop: int | None = None,
    embedding: Tensor | None = None,
    *,
    ensemble: bool = False,
) -> Callable[[Pixels], Pixels]:
    """Returns a function from 8-bit RGB pixels (h, w, 3) to restored ones (s·h, s·w, 3).

    Large photographs are restored in horizontal strips that overlap by what the network sees around a pixel, so the
    strips do not show; what a network computes from the whole image is computed once for all strips. A network without
    a receptive field restores overlapping tiles of its stated size, which fade into each other.

    Args:
        network: The network.
        strip: LR pixels of a strip, about.
        crop: Estimates the degradation on the middle `crop` by `crop` LR pixels alone: faster, an approximation.
        embedding: D (1, C) for every photograph, in place of what a KDSR's estimator says of it; even a teacher can
            restore with one.
        ensemble: Restores in eight orientations and takes the mean, see `self_ensemble`; what is computed once for the
            whole image is computed of it as it is.

    Raises:
        UserError: The network restores from the HR image (a teacher), takes no such embedding, or estimates nothing
            that a crop could be for.
    """
    given = None if embedding is None else _with_embedding(network, embedding)
    if network.privileged and given is None:
        raise UserError("the network is a teacher, which sees the HR image itself; restore with a student")
    if crop is not None and not (isinstance(network, KDSR) and network.estimator is not None):
        raise UserError("--estimate-on: the network has no estimator of the degradation; leave it out, or give a KDSR")

    def restore(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        rows = max(strip // width, 1)
        image, strips = to_image(pixels), []
        part = given or network.for_image(to_channels(image, network.channels), crop)
        part = self_ensemble(part) if ensemble else part
        margin = network.receptive_field
        if margin is None:
            part, margin, rows = tiled(part, network.tile, network.scale), 0, height
        for top in range(0, height, rows):
            first, last = max(top - margin, 0), min(top + rows + margin, height)
            restored = restore_rgb(part, image[..., first:last, :], scale=network.scale, channels=network.channels)
            inner = restored[..., (top - first) * network.scale :, :][..., : rows * network.scale, :]
            strips.append(to_pixels(inner[0]))
        return np.concatenate(strips)

    return restore


def _with_embedding(network: Network, embedding: Tensor) -> Restore:
    if not isinstance(network, KDSR):
        raise UserError("the network takes no embedding, as it has no estimator of the degradation; give a KDSR")
    if embedding.shape != (1, network.features):
        given = "x".join(map(str, embedding.shape))
        raise UserError(f"the embedding is {given}, but that of this network is 1x{network.features}; describe with it")
    return partial(network.restorer, embedding=embedding)


def to_image(pixels: Pixels) -> Tensor:
    """Maps 8-bit RGB pixels (h, w, 3) to an image (1, 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].to(torch.float32) / 255.0


def to_pixels(image: Tensor) -> Pixels:
    """Maps an image (3, h, w) in [0, 1] to 8-bit RGB pixels (h, w, 3)."""
    rounded: Pixels = (image * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return rounded

"""Restores whole photographs with a trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.errors import UserError
from metarestore.models.build import restore_rgb, to_channels
from metarestore.models.colour import rgb_to_gray
from metarestore.models.kdsr import KDSR
from metarestore.models.network import Network, Restore
from metarestore.models.self_ensemble import self_ensemble
from metarestore.models.tiles import tiled

Pixels = NDArray[np.uint8]

_STRIP = 2**19
"""LR pixels that are restored at once: the features of a network of 64 channels then take a few hundred MiB."""

_PEAKS = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}
"""The value of white, by array type."""

ACCEPTED = (
    "give uint8 values of 0..255, uint16 values of 0..65535, or float32 or float64 values in [0, 1], of shape (H, W), "
    "(H, W, 3), or with alpha (H, W, 2) or (H, W, 4)"
)


def image_restorer(
    network: Network,
    strip: int = _STRIP,
    crop: int | None = None,
    embedding: Tensor | None = None,
    *,
    ensemble: bool = False,
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Returns a function that restores photographs (h, w, ...) to arrays (s·h, s·w, ...) of the same type.

    It takes uint8 values of 0..255, uint16 values of 0..65535, or float32 or float64 values in [0, 1]. The shape is
    (h, w) or (h, w, 1) for gray, (h, w, 2) for gray and alpha, (h, w, 3) for RGB, (h, w, 4) for RGB and alpha. Gray
    stays gray; alpha is restored as a separate gray image. Any other input raises a `UserError`.

    Large photographs are restored in horizontal strips that overlap by the receptive field, so no seams are visible;
    values that depend on the whole image are computed once for all strips. A network without a limited receptive
    field restores overlapping tiles, which are blended.

    Args:
        network: The network.
        strip: Approximate number of LR pixels in a strip.
        crop: Estimates the degradation from the central `crop` by `crop` LR pixels only, a faster approximation.
        embedding: D (1, C) for every photograph, used instead of the output of a KDSR's encoder; with an embedding,
            even a teacher can restore.
        ensemble: Restores in eight orientations and averages the results, see `self_ensemble`; values that depend on
            the whole image are computed in its original orientation.

    Raises:
        UserError: The network needs the HR image (a teacher), does not accept the embedding, or has no encoder that
            `crop` could apply to.
    """
    given = None if embedding is None else _with_embedding(network, embedding)
    if network.privileged and given is None:
        raise UserError("the network is a teacher, which needs the HR image as input; use a student to restore")
    if crop is not None and not (isinstance(network, KDSR) and network.estimator is not None):
        raise UserError("--estimate-on: the network has no degradation encoder; remove this option, or give a KDSR")

    def restore(pixels: NDArray[Any]) -> NDArray[Any]:
        planes = _checked(pixels)
        channels = planes.shape[2]
        gray, alpha = channels < 3, channels in (2, 4)
        colours = planes[..., :1].repeat(3, axis=2) if gray else planes[..., :3]
        image = to_image(colours)
        part = network.kept(given) if given else network.restoring(to_channels(image, network.channels), crop)
        part = self_ensemble(part) if ensemble else part
        restored = _by_strips(part, network, image, strip, planes.dtype, gray=gray)
        if alpha:
            opacity = to_image(planes[..., -1:].repeat(3, axis=2))
            plane = _by_strips(part, network, opacity, strip, planes.dtype, gray=True)
            # A network need not map 1 to 1, but an opaque image must stay opaque.
            plane = np.full_like(plane, planes[0, 0, -1]) if np.ptp(planes[..., -1]) == 0 else plane
            restored = np.dstack([restored, plane])
        return restored[..., 0] if pixels.ndim == 2 else restored

    return restore


def _by_strips(
    part: Restore, network: Network, image: Tensor, strip: int, dtype: np.dtype[Any], *, gray: bool
) -> NDArray[Any]:
    """Restores an image (1, 3, h, w) to values of `dtype`, (s·h, s·w, 3), or (s·h, s·w, 1) if `gray`."""
    strips = restored_strips(part, network, image, strip)
    return np.concatenate([_values(rgb_to_gray(rows) if gray else rows, dtype) for rows in strips])


def restored_strips(part: Restore, network: Network, image: Tensor, strip: int = _STRIP) -> Iterator[Tensor]:
    """Yields the restored image (3, s·h, s·w) in horizontal strips (3, rows, s·w), from top to bottom, in [0, 1].

    Args:
        part: Restores images in the channels of the network.
        network: The network.
        image: (1, 3, h, w) in [0, 1].
        strip: Approximate number of LR pixels in a strip.
    """
    height, width = image.shape[-2:]
    rows, margin = max(strip // width, 1), network.margin
    if margin is None:
        part, margin, rows = tiled(part, network.tile, network.scale), 0, height
    for top in range(0, height, rows):
        first, last = max(top - margin, 0), min(top + rows + margin, height)
        restored = restore_rgb(part, image[..., first:last, :], scale=network.scale, channels=network.channels)
        yield restored[0, ..., (top - first) * network.scale :, :][..., : rows * network.scale, :]


def _checked(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns the pixels as (h, w, 1 to 4), or raises a `UserError` that describes the problem."""
    if not isinstance(pixels, np.ndarray):
        raise UserError(f"restore: the photograph must be a NumPy array, got {type(pixels).__name__}; {ACCEPTED}")
    if pixels.dtype.name not in _PEAKS:
        raise UserError(f"restore: the photograph has {pixels.dtype} values; {ACCEPTED}")
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    if planes.ndim != 3 or not 1 <= planes.shape[2] <= 4 or not planes.size:
        raise UserError(f"restore: the photograph has the shape {pixels.shape}; {ACCEPTED}")
    if planes.dtype.kind == "f":
        low, high = float(planes.min()), float(planes.max())
        if not (low >= 0 and high <= 1):  # false for NaN as well
            raise UserError(f"restore: the photograph has values from {low:g} to {high:g}; {ACCEPTED}")
    return planes.astype(planes.dtype.newbyteorder("="), copy=False)


def _with_embedding(network: Network, embedding: Tensor) -> Restore:
    if not isinstance(network, KDSR):
        raise UserError("the network does not accept an embedding, because it has no degradation encoder; give a KDSR")
    if embedding.shape != (1, network.features):
        given = "x".join(map(str, embedding.shape))
        raise UserError(
            f"the embedding has shape {given}, but this network needs 1x{network.features}; describe with it"
        )
    return partial(network.restorer, embedding=embedding)


def to_image(pixels: NDArray[Any]) -> Tensor:
    """Maps RGB values (h, w, 3) of 0..255 (uint8), 0..65535 (uint16) or [0, 1] to an image (1, 3, h, w) in [0, 1]."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if planes.dtype == np.uint16:
        planes = planes.astype(np.float32)
    return torch.from_numpy(planes)[None].to(torch.float32) / _PEAKS[pixels.dtype.name]


def to_pixels(image: Tensor) -> Pixels:
    """Maps an image (C, h, w) in [0, 1] to 8-bit values (h, w, C)."""
    return _values(image, np.dtype(np.uint8))


def _values(image: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Maps an image (C, h, w) in [0, 1] to values of `dtype`, (h, w, C)."""
    scaled = image * _PEAKS[dtype.name]
    values = scaled if dtype.kind == "f" else scaled.round()
    pixels: NDArray[Any] = values.permute(1, 2, 0).cpu().numpy().astype(dtype)
    return pixels

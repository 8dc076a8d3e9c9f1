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
from metarestore.models.other_scale import MARGIN, at_scale
from metarestore.models.self_ensemble import self_ensemble
from metarestore.models.tiles import tiled

Pixels = NDArray[np.uint8]

STRIP = 2**19
"""LR pixels that are restored at once: the features of a network of 64 channels then take a few hundred MiB."""

_PEAKS = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}
"""The value of white, by array type."""

ACCEPTED = (
    "give uint8 values of 0..255, uint16 values of 0..65535, or float32 or float64 values in [0, 1], of shape (H, W), "
    "(H, W, 3), or with alpha (H, W, 2) or (H, W, 4)"
)


def image_restorer(
    network: Network,
    strip: int = STRIP,
    crop: int | None = None,
    embedding: Tensor | None = None,
    *,
    ensemble: bool = False,
    scale: int | None = None,
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
        scale: Factor s, if it is less than that of the network, whose output is then downsampled, see `at_scale`.

    Raises:
        UserError: The network needs the HR image (a teacher), does not accept the embedding, has no encoder that
            `crop` could apply to, or upscales by less than `scale`.
    """
    strips = strip_restorer(network, strip, crop, embedding, ensemble=ensemble, scale=scale)
    factor = network.scale if scale is None else scale

    def restore(pixels: NDArray[Any]) -> NDArray[Any]:
        rows = strips(pixels)  # checks them
        height, width, channels = (*pixels.shape, 1)[:3]
        restored = np.empty((factor * height, factor * width, channels), pixels.dtype.newbyteorder("="))
        top = 0
        for strip_rows in rows:
            restored[top : top + len(strip_rows)] = strip_rows
            top += len(strip_rows)
        return restored[..., 0] if pixels.ndim == 2 else restored

    return restore


def strip_restorer(
    network: Network,
    strip: int = STRIP,
    crop: int | None = None,
    embedding: Tensor | None = None,
    *,
    ensemble: bool = False,
    scale: int | None = None,
) -> Callable[[NDArray[Any]], Iterator[NDArray[Any]]]:
    """Returns a function that restores photographs to strips (n, s·w, C) from top to bottom, so that few are in memory.

    Arguments, input and errors are those of `image_restorer`; C is 1 for gray.
    """
    factor = network.scale if scale is None else scale
    if factor > network.scale:
        raise UserError(
            f"--scale: the network upscales by {network.scale}, not by {factor}; write --scale {network.scale}"
        )
    given = None if embedding is None else _with_embedding(network, embedding)
    if network.privileged and given is None:
        raise UserError("the network is a teacher, which needs the HR image as input; use a student to restore")
    if crop is not None and not (isinstance(network, KDSR) and network.estimator is not None):
        raise UserError("--estimate-on: the network has no degradation encoder; remove this option, or give a KDSR")

    def part_for(colours: NDArray[Any]) -> Restore:
        if given is not None:
            part = network.kept(given)
        elif type(network).for_image is Network.for_image:
            part = network  # nothing depends on the whole image, which need not be in memory as floats
        else:
            part = network.restoring(to_channels(to_image(colours), network.channels), crop)
        return at_scale(self_ensemble(part) if ensemble else part, network.scale, factor)

    def strips(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
        planes = _checked(pixels)
        colours, opacity = _split(planes)
        part = part_for(_three(colours))
        restored = _by_strips(part, network, colours, strip, factor)
        if opacity is None:
            return restored
        if np.ptp(opacity) == 0:  # a network need not map 1 to 1, but an opaque image must stay opaque
            return (np.dstack([rows, np.full_like(rows[..., 0], opacity[0, 0, 0])]) for rows in restored)
        return map(np.dstack, zip(restored, _by_strips(part, network, opacity, strip, factor), strict=True))

    return strips


def _split(planes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Returns the colours (h, w, 1 or 3) and the alpha channel (h, w, 1) of (h, w, 1 to 4)."""
    return (planes[..., :-1], planes[..., -1:]) if planes.shape[2] in (2, 4) else (planes, None)


def _three(colours: NDArray[Any]) -> NDArray[Any]:
    return colours.repeat(3, axis=2) if colours.shape[2] == 1 else colours


def _by_strips(
    part: Restore, network: Network, colours: NDArray[Any], strip: int, scale: int
) -> Iterator[NDArray[Any]]:
    """Yields the strips of restored colours (h, w, 1 or 3), of the same type and channels."""
    gray = colours.shape[2] == 1

    def image_rows(first: int, last: int) -> Tensor:
        return to_image(_three(colours[first:last]))

    for rows in _strips(part, network, image_rows, colours.shape[:2], strip, scale):
        yield _values(rgb_to_gray(rows) if gray else rows, colours.dtype)


def restored_strips(part: Restore, network: Network, image: Tensor, strip: int = STRIP) -> Iterator[Tensor]:
    """Yields the restored image (3, s·h, s·w) in horizontal strips (3, rows, s·w), from top to bottom, in [0, 1].

    Args:
        part: Restores images in the channels of the network.
        network: The network.
        image: (1, 3, h, w) in [0, 1].
        strip: Approximate number of LR pixels in a strip.
    """
    height, width = image.shape[-2:]
    return _strips(part, network, lambda first, last: image[..., first:last, :], (height, width), strip, network.scale)


def _strips(
    part: Restore,
    network: Network,
    image_rows: Callable[[int, int], Tensor],
    size: tuple[int, ...],
    strip: int,
    scale: int,
) -> Iterator[Tensor]:
    """Yields the restored strips of an image of which rows are available as (1, 3, n, w) in [0, 1]."""
    height, width = size
    rows, margin = max(strip // width, 1), network.margin
    if margin is None:
        part, margin, rows = tiled(part, network.tile, scale), 0, height
    elif scale != network.scale:
        margin += MARGIN
    for top in range(0, height, rows):
        first, last = max(top - margin, 0), min(top + rows + margin, height)
        restored = restore_rgb(part, image_rows(first, last), scale=scale, channels=network.channels)
        yield restored[0, ..., (top - first) * scale :, :][..., : rows * scale, :]


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

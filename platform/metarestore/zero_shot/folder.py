"""Jobs that restore photographs from themselves, or estimate their kernels: one photograph each, for any engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.degradations.kernels import Kernel
from metarestore.degradations.resample import bicubic_upsample
from metarestore.errors import SYSTEM_ERRORS, UserError
from metarestore.models.checkpoint import load_model
from metarestore.models.colour import rgb_to_gray
from metarestore.models.restore import to_image
from metarestore.restoration.colour import MeanColour, bicubic_mean, colour_shift
from metarestore.restoration.outcome import Failed, failed
from metarestore.tasks.photographs import Picture, read_picture
from metarestore.zero_shot.kernel import KernelEstimate, estimate_kernel
from metarestore.zero_shot.network import NetworkOptions, restore_adapted
from metarestore.zero_shot.options import ZeroShotOptions, ZeroShotResult
from metarestore.zero_shot.restore import restore_zero_shot

MOST_PIXELS = 2**25
"""Maximum number of pixels of a restored photograph; peak memory is 140 to 180 bytes per pixel (measured)."""

_PEAKS = {"uint8": 255.0, "uint16": 65535.0}

Levels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Restored:
    """A photograph that was restored from itself.

    Attributes:
        pixels: Restored values (s·h, s·w, ...), with the type and channels of the photograph.
        icc: The colour profile of the photograph.
        before: The photograph itself, 8-bit RGB (h, w, 3).
        kernel: The kernel used for the restoration.
        record: Inputs, settings and diagnostics, as JSON data.
    """

    pixels: Levels
    icc: bytes | None
    before: NDArray[np.uint8]
    kernel: KernelEstimate
    record: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Estimated:
    """The kernel of a photograph.

    Attributes:
        kernel: The estimate.
        record: Inputs and diagnostics, as JSON data.
    """

    kernel: KernelEstimate
    record: Mapping[str, Any]


@dataclass(frozen=True)
class RestoreJob:
    """Restores one photograph.

    Attributes:
        path: The photograph.
        scale: Factor s.
        options: Options of the restoration, those of adapting `network` if it is given.
        network: File of a trained network that is adapted to the photograph; if None, a new one learns from it.
    """

    path: Path
    scale: int
    options: ZeroShotOptions | NetworkOptions
    network: Path | None = None

    def run(self, device: torch.device) -> Restored | Failed:
        """Reads and restores the photograph; a problem is returned, so that the other jobs go on."""
        try:
            picture = read_picture(self.path)
            _require_room(self.path, picture, self.scale)
            image = _image(picture.pixels)
            result = self._restored(image.to(device))
        except (UserError, *SYSTEM_ERRORS) as error:
            return failed(self.path, error)
        pixels = _in_format_of(picture.pixels, result.image.cpu(), self.scale)
        mean = MeanColour()
        mean.add(pixels)
        record = {
            **_origin(self.path, picture, self.scale),
            "kernel": kernel_record(result.kernel),
            **_adaptation_record(result, self.options),
            "network": None if self.network is None else self.network.stem,
            "colour_shift": round(colour_shift(mean.value, bicubic_mean(picture.pixels, self.scale)), 4),
        }
        return Restored(pixels, picture.icc, _eight_bit(image), result.kernel, record)

    def _restored(self, image: Tensor) -> ZeroShotResult:
        if isinstance(self.options, NetworkOptions) and self.network is not None:
            return restore_adapted(image, load_model(self.network).to(image.device), self.options)
        if isinstance(self.options, ZeroShotOptions) and self.network is None:
            return restore_zero_shot(image, self.scale, self.options)
        raise TypeError("a network needs NetworkOptions, and learning without one ZeroShotOptions")


@dataclass(frozen=True)
class EstimateJob:
    """Estimates the kernel of one photograph.

    Attributes:
        path: The photograph.
        scale: Factor s.
    """

    path: Path
    scale: int

    def run(self, device: torch.device) -> Estimated | Failed:
        """Reads the photograph and estimates its kernel; a problem is returned, so that the other jobs go on."""
        try:
            picture = read_picture(self.path)
            estimate = estimate_kernel(_image(picture.pixels).to(device), self.scale)
        except (UserError, *SYSTEM_ERRORS) as error:
            return failed(self.path, error)
        return Estimated(estimate, {**_origin(self.path, picture, self.scale), "kernel": kernel_record(estimate)})


def kernel_hash(kernel: Kernel) -> str:
    """Returns a hash (16 hex digits) of a kernel's size and values."""
    sides = "x".join(map(str, kernel.shape)).encode()
    return hashlib.blake2b(sides + np.ascontiguousarray(kernel, dtype="<f4").tobytes(), digest_size=8).hexdigest()


def kernel_record(estimate: KernelEstimate) -> dict[str, Any]:
    """Returns an estimate as JSON data; the weights are rounded to the precision of float32."""
    return {
        "source": estimate.source,
        "confidence": round(estimate.confidence, 4),
        "reason": estimate.reason,
        "hash": kernel_hash(estimate.kernel),
        "weights": [[float(f"{value:.8g}") for value in row] for row in estimate.kernel],
        "diagnostics": {name: round(float(value), 6) for name, value in estimate.diagnostics.items()},
    }


def _require_room(path: Path, picture: Picture, scale: int) -> None:
    height, width = picture.pixels.shape[:2]
    if height * width * scale**2 > MOST_PIXELS:
        most = int((MOST_PIXELS / scale**2) ** 0.5)
        raise UserError(
            f"{path}: is {width}x{height}, too large for zero-shot adaptation at x{scale}; crop it to at most "
            f"{most}x{most}, or restore it with --model and without --adapt"
        )


def _image(pixels: Levels) -> Tensor:
    """Returns a photograph as an image in [0, 1] without alpha: (3, h, w), or (1, h, w) if it is gray."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    gray = planes.shape[2] < 3
    image = to_image(planes[..., :1].repeat(3, axis=2) if gray else planes[..., :3])[0]
    return image[:1] if gray else image


def _in_format_of(pixels: Levels, restored: Tensor, scale: int) -> Levels:
    """Converts a restored image (3, s·h, s·w) to the type and channels of the photograph, with upscaled alpha."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    colours = rgb_to_gray(restored) if planes.shape[2] < 3 else restored
    if planes.shape[2] in (2, 4):
        opacity = to_image(planes[..., -1:].repeat(3, axis=2))[:, :1]
        colours = torch.cat([colours, bicubic_upsample(opacity, scale)[0].clamp(0, 1)])
    levels = (colours * _PEAKS[pixels.dtype.name]).round().permute(1, 2, 0).numpy()
    values = cast("Levels", levels.astype(pixels.dtype))
    converted: Levels = values[..., 0] if pixels.ndim == 2 else values
    return converted


def _eight_bit(image: Tensor) -> NDArray[np.uint8]:
    levels = (image.expand(3, -1, -1) * 255).round().permute(1, 2, 0)
    return np.ascontiguousarray(levels.numpy().astype(np.uint8))


def _origin(path: Path, picture: Picture, scale: int) -> dict[str, Any]:
    height, width = picture.pixels.shape[:2]
    return {"photograph": path.name, "height": height, "width": width, "scale": scale}


def _adaptation_record(result: ZeroShotResult, options: ZeroShotOptions | NetworkOptions) -> dict[str, Any]:
    return {
        "confidence": round(result.kernel.confidence, 4),
        "steps": dict(result.steps),
        "seconds": round(result.seconds, 2),
        "budget": options.budget,
        "seed": options.seed,
        "skipped": list(result.skipped),
        "noise_level": round(float(result.diagnostics["noise_level"]), 4),
    }

"""PSNR-Y and SSIM-Y on a folder of photographs by the standard protocol (Set5, Set14, BSD100, Urban100, ...)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.degradations.resample import bicubic_downsample, bicubic_upsample
from metarestore.errors import UserError
from metarestore.evaluation.colour import colour_metrics
from metarestore.evaluation.metrics import SSIM_WINDOW, counted_inside, inside, luma, psnr_y, ssim_y
from metarestore.tasks.photographs import list_photographs, read_image

Restore = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Maps an LR image, uint8 RGB (h, w, 3), to its restoration, uint8 RGB (scale·h, scale·w, 3)."""

Degrade = Callable[[str, NDArray[np.uint8]], NDArray[np.uint8]]
"""Maps a photograph's name and its HR image, uint8 RGB (H, W, 3), to an LR image, uint8 RGB (H/scale, W/scale, 3)."""

Masks = Callable[[str, NDArray[np.uint8]], NDArray[np.bool_] | None]
"""Maps a photograph's name and its HR image, uint8 RGB (H, W, 3), to the pixels that count, (H, W); None for all."""

Progress = Callable[[str, int, int], None]
"""Called after each photograph with its name, the number done, and the total."""

PROTOCOL = (
    "HR cut at the bottom and right to a multiple of the scale; LR = MATLAB bicubic of 8-bit RGB, rounded to 8 bit; "
    "Y of BT.601 limited range, rounded to 8 bit (a single-channel file is its own Y); border = scale; peak 255; "
    "SSIM of Wang et al. 2004, 11x11 Gaussian window; PSNR of an exact restoration counts as 100 dB"
)


class Metrics(TypedDict):
    """The metrics of one photograph: PSNR-Y in dB, SSIM-Y, and those of `ColourMetrics`."""

    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    colour_error: float
    psnr_y_matched: float


@dataclass(frozen=True)
class FolderReport:
    """The metrics of a folder of photographs.

    Attributes:
        scale: The scale that was restored.
        images: Metrics by photograph.
    """

    scale: int
    images: Mapping[str, Metrics]

    @property
    def means(self) -> Metrics:
        """The mean of each metric over the photographs."""
        return mean_metrics(self.images.values())

    @property
    def psnr_y(self) -> float:
        """Mean over the photographs, in dB."""
        return self.means["psnr_y"]

    @property
    def ssim_y(self) -> float:
        """Mean over the photographs."""
        return self.means["ssim_y"]

    def to_json(self) -> dict[str, object]:
        """Returns the report as plain data."""
        return {
            **self.means,
            "images": {name: dict(metrics) for name, metrics in self.images.items()},
            "scale": self.scale,
            "protocol": PROTOCOL,
        }


def mean_metrics(images: Iterable[Metrics]) -> Metrics:
    """Returns the mean of each metric."""
    rows = np.asarray([tuple(metrics.values()) for metrics in images], np.float64)
    return cast("Metrics", dict(zip(Metrics.__annotations__, rows.mean(axis=0).tolist(), strict=True)))


def evaluate_folder(
    folder: Path, scale: int, restore: Restore, progress: Progress | None = None, degrade: Degrade | None = None
) -> FolderReport:
    """Degrades each photograph of a folder, restores it, and compares; all files are checked before the first.

    Args:
        folder: Folder of HR photographs.
        scale: Upscaling factor.
        restore: The restoration to measure.
        progress: Called after each photograph.
        degrade: Creates the LR images; defaults to bicubic downsampling.

    Raises:
        UserError: The folder is missing or empty, or holds files that are no photographs or are too small.
        ValueError: `restore` returns another type or size.
    """
    return evaluate_files(list_photographs(folder), scale, restore, progress, degrade)


def evaluate_files(
    files: Mapping[str, Path],
    scale: int,
    restore: Restore,
    progress: Progress | None = None,
    degrade: Degrade | None = None,
    masks: Masks | None = None,
) -> FolderReport:
    """Evaluates photographs given by name, like `evaluate_folder`; only the pixels that `masks` returns count.

    Raises:
        UserError: Some files are no photographs or are too small.
        ValueError: `restore` returns another type or size.
    """
    _check(files, scale)
    images: dict[str, Metrics] = {}
    for done, (name, path) in enumerate(files.items(), start=1):
        photograph = read_image(path)
        hr = modcrop(photograph.pixels, scale)
        lr = bicubic_lr(hr, scale) if degrade is None else degrade(name, hr)
        mask = None if masks is None else masks(name, hr)
        images[name] = _compare(restore(lr), hr, scale, gray=photograph.gray, mask=mask)
        if progress is not None:
            progress(name, done, len(files))
    return FolderReport(scale, images)


def bicubic_restore(scale: int) -> Restore:
    """Returns bicubic upsampling, the standard baseline."""

    def restore(lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return _to_uint8(bicubic_upsample(_to_tensor(lr), scale))

    return restore


def modcrop(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Crops (H, W, 3) at the bottom and right to multiples of the scale."""
    height, width = (side - side % scale for side in image.shape[:2])
    return image[:height, :width]


def bicubic_lr(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Returns the LR image of the protocol, uint8 (H/scale, W/scale, 3)."""
    return _to_uint8(bicubic_downsample(_to_tensor(hr), scale))


def _check(files: Mapping[str, Path], scale: int) -> None:
    """Raises `UserError` naming every file that cannot be decoded or is too small to be compared."""
    least = SSIM_WINDOW + 2 * scale
    problems: list[str] = []
    for path in files.values():
        try:
            height, width = modcrop(read_image(path).pixels, scale).shape[:2]
        except UserError as error:
            problems += error.problems
            continue
        if min(height, width) < least:
            problems.append(
                f"{path}: is {height}x{width} (height x width) once cut to a multiple of {scale}; "
                f"x{scale} evaluation needs at least {least}x{least}, so remove it"
            )
    if problems:
        raise UserError(problems)


def _compare(
    sr: NDArray[np.uint8], hr: NDArray[np.uint8], scale: int, *, gray: bool, mask: NDArray[np.bool_] | None
) -> Metrics:
    if sr.dtype != np.uint8 or sr.shape != hr.shape:
        raise ValueError(f"a restoration must be uint8 {hr.shape}, got {sr.dtype} {sr.shape}")
    rgb, rgb_hr = (inside(image.astype(np.float64).transpose(2, 0, 1), scale)[None] for image in (sr, hr))
    y, y_hr = (inside(luma(image, gray=gray), scale)[None] for image in (sr, hr))
    counted = counted_inside(mask, hr, scale)
    # Of the metrics of colour, which do not depend on positions, one row of the pixels that count has the same values.
    rgb, rgb_hr = (image[:, :, counted][:, :, None] for image in (rgb, rgb_hr))
    y, y_hr = (image[:, counted][:, None] for image in (y, y_hr))
    colour = colour_metrics(rgb, rgb_hr, y, y_hr, [""])
    return Metrics(
        psnr_y=psnr_y(sr, hr, scale, gray=gray, mask=mask),
        ssim_y=ssim_y(sr, hr, scale, gray=gray, mask=mask),
        psnr_rgb=float(colour.psnr_rgb[0]),
        colour_error=float(colour.colour_error[0]),
        psnr_y_matched=float(colour.psnr_y_matched[0]),
    )


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Maps uint8 (H, W, 3) to float64 (1, 3, H, W), still in grey levels."""
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float64))[None]


def _to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Maps (1, 3, H, W) in grey levels to uint8 (H, W, 3), rounding halves up as MATLAB does."""
    levels = torch.floor(images[0] + 0.5).clamp(0, 255)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy().astype(np.uint8))

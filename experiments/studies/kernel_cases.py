"""Blurred photographs with known kernels, for the studies of kernel estimation and of zero-shot restoration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.fitting.kernel import synthesise
from metarestore.seeds import generator
from metarestore.zero_shot.shapes import gaussian_of

Pixels = NDArray[np.uint8]

SIGMA = (0.8, 2.5)
"""Standard deviations of the Gaussian kernels along both axes, in HR pixels at scale 2."""


@dataclass(frozen=True)
class Corruption:
    """What happens to LR after blurring and downsampling.

    Attributes:
        noise: Standard deviation of white noise, in grey levels.
        quality: Quality of JPEG; none if it is None.
    """

    noise: float = 0.0
    quality: int | None = None

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"JPEG {self.quality}" if self.quality else f"noise {self.noise:g}" if self.noise else "clean"


CORRUPTIONS = (Corruption(), Corruption(2), Corruption(5), Corruption(quality=90), Corruption(quality=75))


def photographs(folder: Path) -> list[Path]:
    """Returns the photographs of a folder by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in {".png", ".jpg"})


def read(path: Path, multiple: int) -> Pixels:
    """Reads RGB pixels (H, W, 3), cropped to a multiple of the scale."""
    pixels = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width = (length // multiple * multiple for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[:height, :width], dtype=np.uint8)


def random_covariance(*seed: int | str, scale: int = 2) -> NDArray[np.float64]:
    """Draws an anisotropic Gaussian: its covariance (2, 2), in HR pixels squared; wider at larger scales."""
    rng = generator(*seed)
    variances, angle = (rng.uniform(*SIGMA, 2) * scale / 2) ** 2, rng.uniform(0, math.pi)
    axes = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.asarray(axes @ np.diag(variances) @ axes.T)


def random_kernel(*seed: int | str, scale: int = 2) -> NDArray[np.float32]:
    """Draws an anisotropic Gaussian kernel."""
    return gaussian_of(random_covariance(*seed, scale=scale), scale)


def degraded(hr: Pixels, kernel: NDArray[np.float32], scale: int, corruption: Corruption, *seed: int | str) -> Pixels:
    """Blurs, shrinks and corrupts a photograph, and rounds it to 8 bits."""
    lr = synthesise(hr.astype(np.float64), kernel.astype(np.float64), scale)
    if corruption.noise:
        lr = lr + generator(*seed, "noise").normal(0, corruption.noise, lr.shape)
    pixels = np.clip(np.round(lr), 0, 255).astype(np.uint8)
    if corruption.quality is None:
        return pixels
    options = [cv2.IMWRITE_JPEG_QUALITY, corruption.quality]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def middle(pixels: Pixels, side: int) -> Pixels:
    """Cuts the middle of pixels (h, w, 3), at most `side` high and wide."""
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def as_image(pixels: Pixels) -> Tensor:
    """Maps 8-bit pixels (h, w, 3) to an image (3, h, w) in [0, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32) / 255

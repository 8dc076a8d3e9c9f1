"""Estimates the JPEG compression of LR, from the tables of the file or from traces in the pixels.

In a decoded JPEG, the cosine coefficients of each block of 8x8 pixels are close to multiples of the steps of its
quantisation table. The quality with the maximum likelihood is selected.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from metarestore.fitting.equations import lit_channels
from metarestore.fitting.pairs import Floats

_STANDARD = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""Luma table of ITU-T T.81, annex K.1."""

_LUMA = np.array([0.299, 0.587, 0.114])
_SAMPLINGS: dict[int, Literal[444, 422, 420]] = {0: 444, 1: 422, 2: 420}
_LARGEST = 512
"""Side of the part of an image that is analysed."""
_ERROR = 0.35
"""Standard deviation of a coefficient after decoding: luma and the channels are rounded to whole grey levels."""
_OUTLIERS = 0.02
"""Fraction of coefficients that are outliers."""
_LEAST_EVIDENCE = 30.0
"""Natural logarithm of a likelihood ratio, below which there is no sign of JPEG."""
_LEAST_SHARE = 0.2
"""Minimum fraction of the evidence expected from a JPEG of that quality."""


@dataclass(frozen=True)
class JpegFit:
    """The JPEG compression of one LR image.

    Attributes:
        quality: On the scale of the Independent JPEG Group, 1..100; None if there is no sign of JPEG.
        confidence: In [0, 1]: 1 if stated by the file, else the fraction of the evidence that is expected from a JPEG
            of that quality.
        subsampling: Chroma subsampling, if stated by the file.
    """

    quality: int | None
    confidence: float
    subsampling: Literal[444, 422, 420] | None = None


def jpeg_of_file(path: Path) -> JpegFit | None:
    """Returns the compression that a JPEG file states, or None for files of other kinds."""
    with Image.open(path) as image:
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            return None
        table = np.array(image.quantization[0]).reshape(8, 8)
        sampling = _SAMPLINGS.get(JpegImagePlugin.get_sampling(image))
    distances = [float(np.abs(np.log(table / ijg_table(quality))).mean()) for quality in range(1, 101)]
    quality = 1 + int(np.argmin(distances))
    return JpegFit(quality, math.exp(-distances[quality - 1]), sampling)


def jpeg_of_pixels(lr: Floats) -> JpegFit:
    """Detects traces of JPEG in decoded pixels (h, w, 3), in grey levels.

    They are lost if the image was resized or much noise was added afterwards; at qualities above about 95 the steps
    are too small to be detected.

    Source: Fan and de Queiroz, Identification of Bitmap Compression History: JPEG Detection and Quantizer Estimation
    (2003), with the table restricted to those of the Independent JPEG Group.
    """
    top, left = ((side - min(side, _LARGEST)) // 2 // 8 * 8 for side in lr.shape[:2])
    part = lr[top : top + _LARGEST, left : left + _LARGEST]
    lit = lit_channels(part)
    outside = (part <= 0) | (part >= 255)
    clipped = np.asarray(np.any(outside[..., lit] if lit.any() else outside, axis=-1))
    luma = part @ _LUMA - 128.0
    grids = dict.fromkeys([(0, 0), _likely_grid(luma)])
    # Clipping moves the coefficients of a block away from the multiples.
    whole = (_coefficients(luma, *grid)[~_blocks(clipped, *grid).any(axis=(1, 2))] for grid in grids)
    return max((_best_quality(coefficients) for coefficients in whole), key=lambda fit: fit.confidence)


@functools.cache
def ijg_table(quality: int) -> NDArray[np.int64]:
    """Returns the luma quantisation table (8, 8) of libjpeg at a quality of 1..100."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.asarray(np.clip((_STANDARD * percent + 50) // 100, 1, 255))


def _cosines() -> Floats:
    """Returns the orthonormal cosine transform of 8 values (8, 8)."""
    order, position = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    table = np.cos((2 * position + 1) * order * np.pi / 16) / 2
    table[0] /= math.sqrt(2)
    return table


def _blocks(image: NDArray[Any], top: int, left: int) -> NDArray[Any]:
    """Returns the blocks (N, 8, 8) of a grid that begins at `top`, `left`."""
    rows, columns = (image.shape[0] - top) // 8, (image.shape[1] - left) // 8
    part = image[top : top + 8 * rows, left : left + 8 * columns]
    return part.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)


def _coefficients(luma: Floats, top: int, left: int) -> Floats:
    """Returns the coefficients (N, 8, 8) of the blocks of a grid."""
    cosines = _cosines()
    return np.asarray(cosines @ _blocks(luma, top, left) @ cosines.T)


def _likely_grid(luma: Floats) -> tuple[int, int]:
    """Returns the grid on which most coefficients vanish."""
    grids = [(top, left) for top in range(8) for left in range(8)]
    vanishing = [float((np.abs(_coefficients(luma, *grid)) < 1).mean()) for grid in grids]
    return grids[int(np.argmax(vanishing))]


def _best_quality(coefficients: Floats) -> JpegFit:
    """Returns the quality that explains the coefficients best, if there is any."""
    evidence = [_evidence(coefficients, ijg_table(quality)) for quality in range(1, 101)]
    best = int(np.argmax([observed for observed, _ in evidence]))
    observed, expected = evidence[best]
    if observed < _LEAST_EVIDENCE or observed < _LEAST_SHARE * expected:
        return JpegFit(None, 0.0)
    return JpegFit(best + 1, min(1.0, observed / expected))


def _evidence(coefficients: Floats, table: NDArray[np.int64]) -> tuple[float, float]:
    """Compares two explanations of the coefficients: multiples of the steps with an error, or any numbers.

    Coefficients that round to 0 are ignored, because they are small in any image.

    Returns:
        Logarithm of the likelihood ratio, and its expectation if the table is right.
    """
    multiples = np.rint(coefficients / table)
    error = coefficients - multiples * table
    steps = np.broadcast_to(table, coefficients.shape)[multiples != 0].astype(np.float64)
    ratio = _density_ratio(error[multiples != 0], steps)
    observed = float(np.log(_OUTLIERS + (1 - _OUTLIERS) * ratio).sum())
    counts = (multiples != 0).sum(axis=0)
    return observed, float((counts * np.vectorize(_expected_evidence)(table)).sum())


def _density_ratio(error: Floats, steps: Floats) -> Floats:
    """Returns the density of an error in ±step/2, over that of a uniform one."""
    wrapped = [np.exp(-0.5 * ((error - k * steps) / _ERROR) ** 2) for k in (-1, 0, 1)]
    return np.asarray(steps / (_ERROR * math.sqrt(2 * math.pi)) * sum(wrapped))


@functools.cache
def _expected_evidence(step: int) -> float:
    """Returns the mean evidence of one coefficient that is a multiple of `step`."""
    error = np.linspace(-step / 2, step / 2, 201)
    ratio = _density_ratio(error, np.full_like(error, step))
    weight = ratio / ratio.sum()
    return float((weight * np.log(_OUTLIERS + (1 - _OUTLIERS) * ratio)).sum())

"""Estimates the degradation of a camera, pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarestore.decibels import decibels
from metarestore.errors import UserError
from metarestore.fitting.alignment import bicubic_lr, shift_between
from metarestore.fitting.equations import aligned_pixels, border, kernel_size, pair_sums
from metarestore.fitting.gaussian import Gaussian
from metarestore.fitting.jpeg import JpegFit, jpeg_of_file, jpeg_of_pixels
from metarestore.fitting.kernel import ColourLine, fit_kernel, synthesise
from metarestore.fitting.noise import NoiseFit, before_jpeg, fit_noise
from metarestore.fitting.pairs import Floats, Pair, check_pairs, list_pairs, read_pair
from metarestore.fitting.spread import Spread, spread, together
from metarestore.tasks.pair_files import PairFiles, PairFolder

Progress = Callable[[str, int, int], None]
"""Called after each pair with its name, the number done, and the total."""

_WORSE = 0.5
"""Maximum loss of a fit relative to bicubic downsampling, in dB."""
_DECIMALS = 6
"""Decimals of the values of a kernel: further digits depend on the number of threads."""


@dataclass(frozen=True, eq=False)
class PairFit:
    """The degradation estimated from one pair.

    Attributes:
        name: The files' common name.
        shift: Shift of the content of LR pixels in HR, relative to the centre-aligned position: (down, right) in HR
            pixels, by registration. The centre of the Gaussian is an independent estimate of it.
        kernel: Blur kernel (K, K) of sum 1, in HR pixels.
        gaussian: The Gaussian blur that explains the pair best.
        colour: Gains and offsets from blurred HR to LR.
        noise: Noise of LR.
        jpeg: Compression of LR.
        psnr_bicubic: PSNR in dB (RGB) of bicubically downsampled HR relative to LR.
        psnr_fitted: The same for HR downsampled with the kernel and the colour map.
        content: Hash of the pair's pixels; empty for a pair that was not read from files.
    """

    name: str
    shift: tuple[float, float]
    kernel: Floats
    gaussian: Gaussian
    colour: ColourLine
    noise: NoiseFit
    jpeg: JpegFit
    psnr_bicubic: float
    psnr_fitted: float
    content: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the fit as JSON data."""
        data: dict[str, Any] = _rounded({**asdict(self), "kernel": self.kernel.tolist()})
        return data


@dataclass(frozen=True, eq=False)
class CameraFit:
    """The degradation of a camera, estimated from a folder of pairs.

    Attributes:
        source: The folder, as it was given.
        scale: Ratio of HR side to LR side.
        pairs: One fit for each pair, sorted by name.
        count: Number of requested pairs of the folder; None for all.
    """

    source: str
    scale: int
    pairs: tuple[PairFit, ...]
    count: int | None = None

    @property
    def kept(self) -> tuple[PairFit, ...]:
        """The pairs whose blur is not an outlier: e.g. a wall without detail does not determine a kernel."""
        close = together([pair.gaussian.sigma for pair in self.pairs])
        return tuple(pair for pair, kept in zip(self.pairs, close, strict=True) if kept)

    def figure(self, of: Callable[[PairFit], float]) -> Spread:
        """Returns the statistics of a quantity over the pairs."""
        return spread([of(pair) for pair in self.pairs])

    def to_json(self) -> dict[str, Any]:
        """Returns the fit as JSON data."""
        return {"source": self.source, "scale": self.scale, "pairs": [pair.to_json() for pair in self.pairs]}

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the fit as a table of text, headings first."""
        return [_HEADINGS, *(_cells(pair) for pair in self.pairs)]


_HEADINGS = ("pair", "PSNR bicubic → fitted", "blur σ", "axes", "shift", "gain R G B", "noise σ", "JPEG")


def fit_camera(
    pairs: Path | PairFolder, *, count: int | None = None, source: str = "", progress: Progress | None = None
) -> CameraFit:
    """Estimates the degradation of a camera from aligned pairs.

    Args:
        pairs: The pairs; in a folder, LR images in `lr/` and HR images in `hr/`, 2, 3 or 4 times as large.
        count: Number of pairs to use, the first by name; the others are not read. Defaults to all.
        source: Name of the pairs in the result; defaults to the path of the folder.
        progress: Called after each pair.

    Raises:
        UserError: A folder or a partner is missing, sizes do not match, an image has no content, or no
            plausible degradation explains a pair.
    """
    there = list_pairs(pairs)
    files = first_pairs(there, count)
    scale = check_pairs(files, there[len(files) :])
    fits = []
    for done, each in enumerate(files, start=1):
        fits.append(fit_pair(read_pair(each), jpeg_of_file(each.lr)))
        if progress is not None:
            progress(each.name, done, len(files))
    called = source or (pairs.as_posix() if isinstance(pairs, Path) else pairs.lr.parent.as_posix())
    fit = CameraFit(called, scale, tuple(fits), count)
    if problems := implausible(fit):
        raise UserError([f"{files[0].lr.parent}: {problem}" for problem in problems])
    return fit


def first_pairs(files: Sequence[PairFiles], count: int | None) -> Sequence[PairFiles]:
    """Returns the first pairs by name, which a study may use for learning.

    Raises:
        UserError: There are fewer pairs.
    """
    if count is not None and count > len(files):
        raise UserError(f"--count: {count} pairs are requested, but there are only {len(files)}; write {len(files)}")
    return files[:count]


def implausible(fit: CameraFit) -> list[str]:
    """Returns one line for each pair with an implausible fit.

    Pairs whose blur is an outlier are excluded from the kernels, so their kernel is not checked.
    """
    side = kernel_size(fit.scale)
    radius = side / 2 - fit.scale
    problems = []
    for pair in fit.pairs:
        apart = max(map(abs, (*pair.shift, *pair.gaussian.centre)))
        reasons = []
        if pair.psnr_fitted < pair.psnr_bicubic - _WORSE:
            reasons.append(
                f"HR shrunk by the fit has {pair.psnr_fitted:.1f} dB relative to LR, less than the "
                f"{pair.psnr_bicubic:.1f} dB of bicubic"
            )
        if min(pair.colour.gains) <= 0:
            reasons.append(f"LR is dark where HR is bright (gains {' '.join(f'{g:.2f}' for g in pair.colour.gains)})")
        if pair in fit.kept and apart > radius:
            reasons.append(
                f"LR and HR are {apart:.1f} HR pixels apart, beyond the radius of the kernel ({radius:.0f}); align them"
            )
        if pair in fit.kept and pair.gaussian.sigma > side / 3:
            reasons.append(
                f"its blur (sigma {pair.gaussian.sigma:.1f} HR pixels) is wider than the {side}x{side} kernel"
            )
        if reasons:
            problems.append(f"pair '{pair.name}' cannot be fitted: {'; '.join(reasons)}; remove it, or fix the pair")
    return problems


def fit_pair(pair: Pair, stated: JpegFit | None = None) -> PairFit:
    """Estimates the degradation of one pair.

    Args:
        pair: The pair.
        stated: The compression stated in the LR file, if it is a JPEG.

    Raises:
        UserError: LR is flat or saturated.
    """
    fit = fit_kernel([pair_sums(pair)])
    kernel = np.round(fit.kernel, _DECIMALS)
    edge = border(pair.scale)
    inside = (slice(edge, -edge), slice(edge, -edge))
    lr, blurred = pair.lr[inside], synthesise(pair.hr, kernel, pair.scale)[inside]
    aligned = aligned_pixels(pair)[inside]
    colour = ColourLine.between(blurred[aligned], lr[aligned])
    model = colour.apply(blurred)
    jpeg = stated or jpeg_of_pixels(pair.lr)
    # Where the pair is not aligned, the residual is not noise.
    noise = before_jpeg(fit_noise(np.where(aligned[..., None], lr, model), model), model, jpeg)
    bicubic = psnr_rgb(bicubic_lr(pair)[inside][aligned], lr[aligned])
    fitted = psnr_rgb(model[aligned], lr[aligned])
    shift = shift_between(pair)
    return PairFit(pair.name, shift, kernel, fit.gaussian, colour, noise, jpeg, bicubic, fitted, content=pair.content)


def psnr_rgb(image: Floats, truth: Floats) -> float:
    """Returns the PSNR in dB of images (h, w, 3) in grey levels; `image` is clipped to 0..255 first."""
    return float(decibels(np.mean((np.clip(image, 0, 255) - truth) ** 2), peak=255))


def _rounded(data: Any) -> Any:
    """Rounds numbers in JSON data, because their last digits depend on the machine."""
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_rounded(value) for value in data]
    return float(f"{data:.6g}") if isinstance(data, float) else data


def _cells(pair: PairFit) -> tuple[str, ...]:
    down, right = pair.shift
    return (
        pair.name,
        f"{pair.psnr_bicubic:.1f} → {pair.psnr_fitted:.1f} dB",
        f"{pair.gaussian.sigma:.2f} px",
        f"{pair.gaussian.ratio:.2f}",
        f"{down:+.2f} {right:+.2f}",
        " ".join(f"{gain:.2f}" for gain in pair.colour.gains),
        f"{pair.noise.sigma:.2f}",
        "none" if pair.jpeg.quality is None else f"{pair.jpeg.quality} ({pair.jpeg.confidence:.0%})",
    )

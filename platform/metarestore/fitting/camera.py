"""A camera's degradation, pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarestore.decibels import decibels
from metarestore.errors import UserError
from metarestore.fitting.alignment import bicubic_lr, shift_between
from metarestore.fitting.equations import border, kernel_size, pair_sums
from metarestore.fitting.gaussian import Gaussian
from metarestore.fitting.jpeg import JpegFit, jpeg_of_file, jpeg_of_pixels
from metarestore.fitting.kernel import ColourLine, fit_kernel, synthesise
from metarestore.fitting.noise import NoiseFit, before_jpeg, fit_noise
from metarestore.fitting.pairs import Floats, Pair, check_pairs, list_pairs, read_pair
from metarestore.fitting.spread import Spread, spread, together
from metarestore.tasks.pair_files import PairFiles, PairFolder

Progress = Callable[[str, int, int], None]
"""Is told the name of a pair that is done, how many are, and of how many."""

_WORSE = 0.5
"""dB that a fit may be below bicubic downsampling."""
_DECIMALS = 6
"""Decimals of a kernel's values: numbers of threads change the digits behind."""


@dataclass(frozen=True, eq=False)
class PairFit:
    """What one pair shows of the camera.

    Attributes:
        name: The files' common name.
        shift: Where HR shows what an LR pixel shows, against the centre-aligned place: (down, right) in HR pixels, by
            registration. The Gaussian's centre says the same by way of the kernel.
        kernel: Blur kernel (K, K) of sum 1, in HR pixels.
        gaussian: The Gaussian blur that explains the pair best.
        colour: Gains and offsets from blurred HR to LR.
        noise: Noise of LR.
        jpeg: Compression of LR.
        psnr_bicubic: PSNR in dB of HR shrunk by MATLAB's bicubic against LR, RGB.
        psnr_fitted: The same of HR shrunk by the kernel, with the colour line.
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
        figures: dict[str, Any] = _rounded({**asdict(self), "kernel": self.kernel.tolist()})
        return figures


@dataclass(frozen=True, eq=False)
class CameraFit:
    """What a folder of pairs shows of one camera.

    Attributes:
        source: The folder, as it was given.
        scale: HR side over LR side.
        pairs: One fit for each pair, sorted by name.
        count: How many of the folder's pairs were asked for; None for all of them.
    """

    source: str
    scale: int
    pairs: tuple[PairFit, ...]
    count: int | None = None

    @property
    def kept(self) -> tuple[PairFit, ...]:
        """The pairs whose blur does not stand apart: a wall without detail shows no kernel."""
        close = together([pair.gaussian.sigma for pair in self.pairs])
        return tuple(pair for pair, kept in zip(self.pairs, close, strict=True) if kept)

    def figure(self, of: Callable[[PairFit], float]) -> Spread:
        """Returns how a figure varies over the pairs."""
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
        pairs: Where the pairs are; of a folder, LR images in `lr/` and HR images in `hr/`, 2, 3 or 4 times as large.
        count: How many pairs are used, the first by name; the others are not even read. All if left out.
        source: How the pairs are called in the result; the folder's path if left out.
        progress: Is told of each pair that is done.

    Raises:
        UserError: A folder or a partner is missing, sizes do not fit, an image shows nothing, or a pair cannot be
            explained as one camera's LR and HR; nothing can be learned from such a fit.
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
    """Returns the first pairs by name: those that a study may learn from.

    Raises:
        UserError: There are fewer.
    """
    if count is not None and count > len(files):
        raise UserError(f"--count: {count} pairs are asked for, but there are only {len(files)}; write {len(files)}")
    return files[:count]


def implausible(fit: CameraFit) -> list[str]:
    """Returns a line for each pair whose fit is no camera's degradation.

    Pairs whose blur stands apart are left out of the kernels, so that theirs does not matter.
    """
    side = kernel_size(fit.scale)
    reach = side / 2 - fit.scale
    problems = []
    for pair in fit.pairs:
        apart = max(map(abs, (*pair.shift, *pair.gaussian.centre)))
        reasons = []
        if pair.psnr_fitted < pair.psnr_bicubic - _WORSE:
            reasons.append(
                f"HR shrunk by the fit has {pair.psnr_fitted:.1f} dB against LR, less than the "
                f"{pair.psnr_bicubic:.1f} dB of bicubic"
            )
        if min(pair.colour.gains) <= 0:
            reasons.append(f"LR is dark where HR is bright (gains {' '.join(f'{g:.2f}' for g in pair.colour.gains)})")
        if pair in fit.kept and apart > reach:
            reasons.append(
                f"LR and HR are {apart:.1f} HR pixels apart, beyond the kernel, which reaches {reach:.0f}; align them"
            )
        if pair in fit.kept and pair.gaussian.sigma > side / 3:
            reasons.append(
                f"its blur (sigma {pair.gaussian.sigma:.1f} HR pixels) is wider than the {side}x{side} kernel"
            )
        if reasons:
            problems.append(f"pair '{pair.name}' cannot be fitted: {'; '.join(reasons)}; remove it, or mend the pair")
    return problems


def fit_pair(pair: Pair, stated: JpegFit | None = None) -> PairFit:
    """Estimates what one pair shows.

    Args:
        pair: The pair.
        stated: The JPEG compression that LR's file states, if it is a JPEG.

    Raises:
        UserError: LR is flat or saturated.
    """
    found = fit_kernel([pair_sums(pair)])
    kernel = np.round(found.kernel, _DECIMALS)
    edge = border(pair.scale)
    inside = (slice(edge, -edge), slice(edge, -edge))
    lr, blurred = pair.lr[inside], synthesise(pair.hr, kernel, pair.scale)[inside]
    colour = ColourLine.between(blurred, lr)
    model = colour.apply(blurred)
    jpeg = stated or jpeg_of_pixels(pair.lr)
    noise = before_jpeg(fit_noise(lr, model), model, jpeg)
    fitted, bicubic = psnr_rgb(model, lr), psnr_rgb(bicubic_lr(pair)[inside], lr)
    shift = shift_between(pair)
    return PairFit(pair.name, shift, kernel, found.gaussian, colour, noise, jpeg, bicubic, fitted, content=pair.content)


def psnr_rgb(image: Floats, truth: Floats) -> float:
    """Returns the PSNR in dB of images (h, w, 3) in grey levels; `image` is clipped to 0..255 first."""
    return float(decibels(np.mean((np.clip(image, 0, 255) - truth) ** 2), peak=255))


def _rounded(data: Any) -> Any:
    """Rounds the numbers in JSON data: their last digits depend on the machine."""
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

"""Measures how well `metarestore tasks fit` imitates real cameras: real LR against LR made from HR.

The data are not part of this repository: PAIRS holds a folder <camera>/{lr,hr} with aligned pairs for each camera, such
as those of RealSR and DRealSR.

Run:     python experiments/studies/fit_real_cameras.py PAIRS --camera NAME ...
Results: experiments/results/fit_real_cameras.md
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from metarestore.degradations import DegradationDraw, replay
from metarestore.fitting.camera import CameraFit, PairFit, fit_pair, psnr_rgb
from metarestore.fitting.equations import border, pair_sums
from metarestore.fitting.kernel import ColourLine, fit_kernel, synthesise
from metarestore.fitting.pairs import Pair, list_pairs, read_pair
from metarestore.fitting.write import write_task
from metarestore.project import read_task
from metarestore.tasks.synthetic import SyntheticSpec

CAMERAS = (
    "realsr_canon5d3",
    "realsr_nikond810",
    "drealsr_canon",
    "drealsr_dsc",
    "drealsr_img",
    "drealsr_panasonic",
)
SHOTS, DRAWS = 5, 8


@dataclass(frozen=True)
class Row:
    """Figures of one camera, dB against the real LR (RGB) unless said otherwise."""

    camera: str
    pairs: int
    bicubic: float
    own: float
    others: float
    sigma: tuple[float, float]
    shots: int
    tested: int
    sampled: float
    coloured: float
    blurred: float
    sampled_sigma: tuple[float, float]
    tested_sigma: tuple[float, float]
    seconds: float


def inside(image: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    edge = border(scale)
    return image[edge:-edge, edge:-edge]


def with_line(made: NDArray[np.float64], pair: Pair) -> float:
    """PSNR after a gain and an offset per channel, which are the photograph's own and no one can foresee."""
    source, target = inside(made, pair.scale), inside(pair.lr, pair.scale)
    return psnr_rgb(ColourLine.between(source, target).apply(source), target)


def from_the_others(pairs: list[Pair]) -> list[float]:
    """PSNR of each pair by one kernel that all other pairs of the camera share."""
    sums = [pair_sums(pair) for pair in pairs]
    results = []
    for index, pair in enumerate(pairs):
        kernel = fit_kernel(sums[:index] + sums[index + 1 :]).kernel
        results.append(with_line(synthesise(pair.hr, kernel, pair.scale), pair))
    return results


def from_the_task(fits: list[PairFit], pairs: list[Pair], shots: int) -> tuple[list[float], ...]:
    """Draws from the YAML fitted to the first pairs, and applies the draws to the others.

    Returns:
        PSNR as drawn, with the pair's own colour line, and without noise besides; widths of the drawn kernels.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tasks" / "camera.yaml"
        fit = CameraFit("pairs", pairs[0].scale, tuple(fits[:shots]))
        write_task(fit, out)
        spec = read_task(out)
        assert isinstance(spec, SyntheticSpec)
        draws = [spec.pipeline.draw(("measure", k), spec.scale) for k in range(DRAWS)]
    kernels = [next(one for one in draw if one.op == "kernel_file") for draw in draws]
    sigmas = [fit.kept[int(kernel.params["index"])].gaussian.sigma for kernel in kernels]  # type: ignore[arg-type]
    plain, coloured, blurred = [], [], []
    for number, pair in enumerate(pairs[shots:]):
        for draw in draws:
            made = drawn_lr(pair, draw, number)
            plain.append(psnr_rgb(inside(made, pair.scale), inside(pair.lr, pair.scale)))
            coloured.append(with_line(made, pair))
            silent = [one for one in draw if one.op not in {"gaussian_noise", "poisson_noise"}]
            blurred.append(with_line(drawn_lr(pair, silent, number), pair))
    return plain, coloured, blurred, sigmas


def drawn_lr(pair: Pair, draw: Sequence[DegradationDraw], seed: int) -> NDArray[np.float64]:
    hr = torch.from_numpy(np.ascontiguousarray(pair.hr.transpose(2, 0, 1))).float()[None] / 255
    made = replay(hr, draw, [seed], "opencv")[0].permute(1, 2, 0).numpy().astype(np.float64)
    return np.asarray(made * 255)


def measure(folder: Path) -> Row:
    pairs = [read_pair(files) for files in list_pairs(folder)]
    start = time.perf_counter()
    fits = [fit_pair(pair) for pair in pairs]
    seconds = (time.perf_counter() - start) / len(pairs)
    bicubic = [fit.psnr_bicubic for fit in fits]
    shots = min(SHOTS, len(pairs) // 2)
    plain, coloured, blurred, sigmas = from_the_task(fits, pairs, shots)
    return Row(
        camera=folder.name,
        pairs=len(pairs),
        bicubic=mean(bicubic),
        own=mean(fit.psnr_fitted for fit in fits),
        others=mean(from_the_others(pairs)),
        sigma=spread([fit.gaussian.sigma for fit in fits]),
        shots=shots,
        tested=len(pairs) - shots,
        sampled=mean(plain) - mean(bicubic[shots:]),
        coloured=mean(coloured) - mean(bicubic[shots:]),
        blurred=mean(blurred) - mean(bicubic[shots:]),
        sampled_sigma=spread(sigmas),
        tested_sigma=spread([fit.gaussian.sigma for fit in fits[shots:]]),
        seconds=seconds,
    )


def spread(values: list[float]) -> tuple[float, float]:
    return mean(values), stdev(values)


def table(rows: list[Row]) -> str:
    lines = [
        "| camera | pairs | bicubic | own kernel | kernel of the others | σ of the blur, HR px | s per pair |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for row in rows:
        gains = (f"{row.own - row.bicubic:+.2f}", f"{row.others - row.bicubic:+.2f}")
        sigma = f"{row.sigma[0]:.2f} ± {row.sigma[1]:.2f}"
        cells = (row.camera, row.pairs, f"{row.bicubic:.2f}", *gains, sigma, f"{row.seconds:.2f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    bicubic = mean(row.bicubic for row in rows)
    own, others = mean(row.own for row in rows) - bicubic, mean(row.others for row in rows) - bicubic
    lines.append(f"| **mean over cameras** | | {bicubic:.2f} | **{own:+.2f}** | **{others:+.2f}** | | |")
    return "\n".join(lines)


def sampled_table(rows: list[Row]) -> str:
    lines = [
        "| camera | fitted to | tested on | as drawn | own colours | blur alone | σ drawn | σ of the tested pairs |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in rows:
        sigmas = (f"{centre:.2f} ± {width:.2f}" for centre, width in (row.sampled_sigma, row.tested_sigma))
        cells = (
            row.camera,
            row.shots,
            row.tested,
            f"{row.sampled:+.2f}",
            f"{row.coloured:+.2f}",
            f"{row.blurred:+.2f}",
            *sigmas,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    gains = (mean(getattr(row, name) for row in rows) for name in ("sampled", "coloured", "blurred"))
    lines.append(f"| **mean over cameras** | | | {' | '.join(f'**{gain:+.2f}**' for gain in gains)} | | |")
    return "\n".join(lines)


PAGE = """\
# Real cameras, imitated by a fitted task distribution

How close LR made from HR comes to the camera's own LR: PSNR over RGB in dB, without {edge} LR pixels at the border;
gains are over MATLAB's bicubic downsampling of the same HR. No network is involved.

Command: `python experiments/studies/fit_real_cameras.py PAIRS{cameras}`, with the x4 pairs of RealSR and DRealSR
(LR 128x128, HR 512x512) in PAIRS. Images are not part of this repository.
Kernels are {side}x{side} HR pixels; one thread.

## Fitted

*Own kernel*: kernel and colour line (gain and offset per channel) fitted to the pair itself: what the model can say.
*Kernel of the others*: one kernel fitted to all other pairs of the camera, with the pair's own colour line: what a
camera's pairs foretell of the next photograph.

{fitted}

## Drawn from the written task file

The YAML fitted to the first pairs by name ({shots}, or half of them); {draws} draws of it are applied to the HR of each
other pair. A drawn LR has the blur and the misalignment of one pair, the colours of another, and noise of its own,
so its PSNR is below that of a fitted kernel. *Own colours*: with the gains and offsets of the tested pair instead of
the drawn ones. *Blur alone*: without noise besides.

{sampled}
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--camera", nargs="*", default=CAMERAS)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/fit_real_cameras.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = []
    for camera in options.camera:
        rows.append(measure(options.pairs / camera))
        print(rows[-1])
    chosen = "" if tuple(options.camera) == CAMERAS else f" --camera {' '.join(options.camera)}"
    side = len(fit_pair(read_pair(list_pairs(options.pairs / options.camera[0])[0])).kernel)
    page = PAGE.format(
        edge=border(4),
        cameras=chosen,
        side=side,
        fitted=table(rows),
        shots=SHOTS,
        draws=DRAWS,
        sampled=sampled_table(rows),
    )
    options.out.write_text(page, encoding="utf-8")

"""How well is a photograph's blur kernel estimated from the photograph alone?

Every photograph of DATA/valid is blurred by random anisotropic Gaussian kernels, shrunk, and left clean or corrupted by
noise or JPEG; and once shrunk bicubically. Nothing was tuned or calibrated on these photographs. Finished photographs
are kept in OUT, so that an interrupted study resumes.

Run:     python experiments/studies/kernel_estimation.py DATA --kernels 20
Results: experiments/results/kernel_estimation.md, experiments/results/kernel_estimation.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from kernel_cases import CORRUPTIONS, Corruption, as_image, degraded, middle, photographs, random_kernel, read
from scipy.stats import spearmanr

from metarestore.zero_shot.kernel import estimate_kernel
from metarestore.zero_shot.shapes import bicubic_kernel, relative_error

RESULTS = Path("experiments/results")
BICUBIC = "bicubic LR"
METHODS = ("spectra", "patches")


@dataclass(frozen=True)
class Row:
    """One estimate: relative errors of it and of the bicubic default, its confidence and its CPU seconds."""

    photograph: str
    scale: int
    side: int
    corruption: str
    kernel: int
    method: str
    error: float
    default: float
    confidence: float
    source: str
    seconds: float


def rows_of(path: Path, scale: int, side: int, kernels: int, methods: Sequence[str]) -> list[Row]:
    """Estimates the kernels of one photograph."""
    hr, rows = read(path, scale), []
    cases = [(c.name, c, k) for c in CORRUPTIONS for k in range(kernels)] + [(BICUBIC, Corruption(), -1)]
    for name, corruption, index in cases:
        seed = ("kernel estimation", path.stem, scale, index)
        kernel = bicubic_kernel(scale) if index < 0 else random_kernel(*seed, scale=scale)
        lr = as_image(middle(degraded(hr, kernel, scale, corruption, *seed), side))
        for method in methods:
            start = time.process_time()
            found = estimate_kernel(lr, scale, method)
            seconds = time.process_time() - start
            errors = (relative_error(found.kernel, kernel), relative_error(bicubic_kernel(scale), kernel))
            numbers = (*errors, found.confidence, found.source, seconds)
            rows.append(Row(path.stem, scale, side, name, index, method, *numbers))
    return rows


def study(data: Path, scale: int, side: int, kernels: int, methods: Sequence[str], out: Path) -> list[Row]:
    """Runs what is not in `out` yet, one file for each photograph."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in photographs(data / "valid"):
        file = out / f"{path.stem}_x{scale}_{side}_{kernels}_{'_'.join(methods)}.json"
        if not file.is_file():
            save(file, json.dumps([asdict(row) for row in rows_of(path, scale, side, kernels, methods)]))
        rows += [Row(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
    return rows


def line(name: str, rows: Sequence[Row]) -> str:
    """Writes one row of the table."""
    errors, defaults = np.array([row.error for row in rows]), np.array([row.default for row in rows])
    better = np.mean(errors < defaults)
    ratio = np.median(errors) / np.median(defaults) if np.median(defaults) else np.nan
    fallback = np.mean([row.source == "bicubic" for row in rows])
    confidence = [row.confidence for row in rows]
    rank = spearmanr(confidence, errors).statistic
    seconds = np.median([row.seconds for row in rows])
    return (
        f"| {name} | {len(rows)} | {np.median(errors):.3f} | {np.quantile(errors, 0.9):.3f} | {np.median(defaults):.3f}"
        f" | {ratio:.2f} | {better:.1%} | {fallback:.1%} | {np.median(confidence):.2f} | {rank:.2f} | {seconds:.2f} |"
    )


COLUMNS = (
    *("LR", "cases", "error, median", "error, 90%", "bicubic default's", "ratio", "better", "bicubic taken"),
    *("confidence", "rank correlation", "CPU s"),
)
HEADER = f"| {' | '.join(COLUMNS)} |\n| :-- |" + " --: |" * (len(COLUMNS) - 1)


def table(rows: Sequence[Row]) -> str:
    """Writes the table of one method: by corruption, all Gaussians, bicubic LR, and all together."""
    blurred = [row for row in rows if row.corruption != BICUBIC]
    groups = [(c.name, [row for row in rows if row.corruption == c.name]) for c in CORRUPTIONS]
    groups += [("all Gaussian kernels", blurred), (BICUBIC, [r for r in rows if r.corruption == BICUBIC])]
    return "\n".join([HEADER, *(line(name, own) for name, own in [*groups, ("**all**", list(rows))])])


PAGE = """\
# How well is a blur kernel estimated from one photograph?

{photographs} photographs of DATA/valid that nothing was tuned or calibrated on. {kernels} random anisotropic Gaussian
kernels for each (standard deviations of 0.8 to 2.5 HR pixels at x2 and twice that at x4, any angle, another set for
every photograph), the same ones under every corruption; and once MATLAB's bicubic downsampling. LR is rounded to 8
bits. *Error* is the norm of the difference of the kernels over the norm of the true one, both centred; *ratio*, the
median error over that of the bicubic default; *better*, the share of cases with a smaller error than the default's;
*rank correlation*, Spearman's between confidence and error; *bicubic taken*, the share of cases in which the estimator
chose the bicubic kernel, because the blur was like it or the confidence low.

Commands:

{commands}

{date}, one thread of a 2-core machine beside other work. Seconds are CPU seconds of one estimate.
{sections}"""


def write(out: Path) -> None:
    """Writes the page and the rows from all that is in `out`."""
    files = sorted(out.glob("*.json"))
    sections, commands, rows = [], [], list[Row]()
    for scale, side, methods, kernels in sorted({_settings(file) for file in files}):
        group = [file for file in files if _settings(file) == (scale, side, methods, kernels)]
        own = [Row(**entry) for file in group for entry in json.loads(file.read_text(encoding="utf-8"))]
        size = f"LR of {side}x{side} at most" if side < 10_000 else "whole photographs"
        size = f"{size}, {kernels} kernels" if kernels > 1 else f"{size}, one kernel"
        rows += own
        for method in methods:
            ours = [row for row in own if row.method == method]
            sections.append(f"\n## {method}, x{scale}, {size}\n\n{table(ours)}\n")
        commands.append(_command(scale, side, kernels, methods))
    text = PAGE.format(
        photographs=len({row.photograph for row in rows}),
        kernels=" or ".join(str(n) for n in sorted({_settings(file)[3] for file in files})),
        commands="\n".join(f"    {command}" for command in commands),
        date=datetime.datetime.now(datetime.UTC).date(),
        sections="".join(sections),
    )
    save(RESULTS / "kernel_estimation.md", text)
    kept = [{**asdict(r), **{k: round(getattr(r, k), 4) for k in ("error", "default", "confidence")}} for r in rows]
    save(RESULTS / "kernel_estimation.json", json.dumps(kept, indent=None, separators=(",", ":")) + "\n")


def _settings(file: Path) -> tuple[int, int, tuple[str, ...], int]:
    """Returns scale, side, methods and number of kernels of a kept file."""
    methods = tuple(method for method in METHODS if method in file.stem.rsplit("_x", 1)[1])
    scale, side, kernels = file.stem.rsplit("_x", 1)[1].split("_")[:3]
    return int(scale), int(side), methods, int(kernels)


def _command(scale: int, side: int, kernels: int, methods: Sequence[str]) -> str:
    options = f"--scale {scale} --side {side} --kernels {kernels} --methods {' '.join(methods)}"
    return f"python experiments/studies/kernel_estimation.py DATA {options}"


def save(path: Path, text: str) -> None:
    """Writes a file in one step."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with valid/")
    parser.add_argument("--kernels", type=int, default=3, help="Gaussian kernels for each photograph")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--side", type=int, default=256, help="largest side of LR: its middle is taken")
    parser.add_argument("--methods", nargs="+", default=["spectra"], choices=METHODS)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/kernel_estimation"), help="where finished cases are kept"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    study(given.data, given.scale, given.side, given.kernels, given.methods, given.out)
    write(given.out)

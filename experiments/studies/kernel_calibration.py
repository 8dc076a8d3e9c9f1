"""Fits the maps by which `zero_shot` corrects a blur's width and predicts the error of a kernel.

Photographs of DATA/train are blurred by known kernels, shrunk by 2 and by 4, and some are corrupted by noise or JPEG;
about one in seven is shrunk bicubically instead. DATA/valid is not touched. It prints errors, and the rank correlation
between expected and true ones, on photographs held out in five folds.

Run:     python experiments/studies/kernel_calibration.py DATA --every 2
Results: platform/metarestore/zero_shot/calibration.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from kernel_cases import CORRUPTIONS, as_image, degraded, middle, photographs, random_covariance, read
from scipy.stats import spearmanr

from metarestore.seeds import generator
from metarestore.zero_shot.calibration import BICUBIC_BELOW, NARROWEST, Calibration, LinearMap, error_features
from metarestore.zero_shot.kernel import grey_levels
from metarestore.zero_shot.measurements import SMALLEST, Measurements, measure
from metarestore.zero_shot.shapes import bicubic_kernel, gaussian_of, relative_error
from metarestore.zero_shot.spectra import Floats

SIDES, SCALES, DRAWS, FOLDS = (256, 128, 64), (2, 4), 3, 5
BICUBIC_SHARE = 0.15
BICUBIC_VARIANCE = 0.14
"""Variance of the Gaussian that is most like a bicubic kernel, in LR pixels squared."""
PATH = Path("platform/metarestore/zero_shot/calibration.json")


@dataclass(frozen=True, eq=False)
class Case:
    """One blurred photograph: what is measured of it, and its blur (2, 2) in LR pixels squared; None if bicubic."""

    photograph: str
    scale: int
    measurements: Measurements
    truth: Floats | None

    @property
    def width(self) -> float:
        """The mean variance that the correction should return."""
        return BICUBIC_VARIANCE if self.truth is None else float(np.trace(self.truth)) / 2

    def error(self, covariance: Floats) -> float:
        """The relative error of the kernel that would be estimated."""
        kernel = gaussian_of(covariance * self.scale**2, self.scale)
        if np.trace(covariance) / 2 < BICUBIC_BELOW:
            kernel = bicubic_kernel(self.scale)
        if self.truth is None:
            return relative_error(kernel, bicubic_kernel(self.scale))
        return relative_error(kernel, gaussian_of(self.truth * self.scale**2, self.scale))


def measured_cases(folder: Path, every: int) -> list[Case]:
    """Blurs and measures every so-manieth photograph."""
    cases = []
    for path in photographs(folder)[::every]:
        for scale in SCALES:
            hr = read(path, scale)
            for side in SIDES:
                for draw in range(DRAWS):
                    seed = ("kernel calibration", path.stem, scale, side, draw)
                    rng = generator(*seed)
                    truth = None if rng.random() < BICUBIC_SHARE else random_covariance(*seed, "kernel", scale=scale)
                    kernel = bicubic_kernel(scale) if truth is None else gaussian_of(truth, scale)
                    corruption = CORRUPTIONS[int(rng.integers(len(CORRUPTIONS)))]
                    lr = middle(degraded(hr, kernel, scale, corruption, *seed), side)
                    if min(lr.shape[:2]) >= SMALLEST:
                        found = measure(grey_levels(as_image(lr)))
                        cases.append(Case(path.stem, scale, found, None if truth is None else truth / scale**2))
    return cases


def fitted(cases: list[Case]) -> Calibration:
    """Fits both maps; the errors that the second one learns are those on photographs the first was not fitted to."""
    features = [case.measurements.features for case in cases]
    targets = [case.width for case in cases]
    width = LinearMap.fitted(features, targets)
    folds = np.array([zlib.crc32(case.photograph.encode()) % FOLDS for case in cases])
    rows, errors = [], []
    for fold in range(FOLDS):
        rest = np.flatnonzero(folds != fold)
        other = LinearMap.fitted([features[k] for k in rest], [targets[k] for k in rest])
        for k in np.flatnonzero(folds == fold):
            covariance = Calibration(other, other).covariance(cases[k].measurements)
            rows.append(error_features(cases[k].measurements, covariance))
            errors.append(float(np.log(max(cases[k].error(covariance), 0.02))))
    return Calibration(width, LinearMap.fitted(rows, errors))


def held_out(cases: list[Case]) -> str:
    """Describes errors and confidence on photographs that nothing was fitted to."""
    folds = np.array([zlib.crc32(("held out" + case.photograph).encode()) % FOLDS for case in cases])
    errors, expected, before, widths = [], [], [], []
    for fold in range(FOLDS):
        made = fitted([case for case, own in zip(cases, folds, strict=True) if own != fold])
        for case in (case for case, own in zip(cases, folds, strict=True) if own == fold):
            covariance = made.covariance(case.measurements)
            errors.append(case.error(covariance))
            expected.append(made.expected_error(case.measurements, covariance))
            fit = case.measurements.fit.covariance
            values, axes = np.linalg.eigh(fit)
            before.append(case.error(axes @ np.diag(np.clip(values, NARROWEST, None)) @ axes.T))
            widths.append((case.width, np.trace(covariance) / 2))
    true, found = np.array(widths).T
    return (
        f"{len(cases)} cases; median relative error {np.median(errors):.3f} (without the correction "
        f"{np.median(before):.3f}); rank correlation of the error with the expected one "
        f"{spearmanr(expected, errors).statistic:.2f}; the width is off by {np.std(found - true):.3f} square LR pixels"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/")
    parser.add_argument("--every", type=int, default=1, help="take every so-manieth photograph")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measured_cases(given.data / "train", given.every)
    print(held_out(found))
    part = PATH.with_suffix(".part")
    part.write_text(json.dumps(dataclasses.asdict(fitted(found)), indent=1) + "\n", encoding="utf-8")
    os.replace(part, PATH)

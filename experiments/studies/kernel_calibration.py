"""Fits the networks by which `zero_shot` predicts the width of a blur, and the map that predicts a kernel's error.

Photographs of DATA/train are blurred by known kernels, shrunk by 2 and by 4, and some are corrupted by noise or JPEG;
about one in seven is shrunk bicubically instead. DATA/valid is not touched. It prints errors, and the rank correlation
between expected and true ones, on photographs held out in five folds.

Run:     python experiments/studies/kernel_calibration.py DATA
Results: platform/metarestore/zero_shot/calibration.json
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kernel_cases import CORRUPTIONS, as_image, degraded, middle, photographs, random_covariance, read
from scipy.stats import spearmanr
from torch import Tensor, nn

from metarestore.seeds import generator
from metarestore.zero_shot.calibration import (
    LOG_DEVIATIONS,
    NARROWEST,
    Calibration,
    Dense,
    LinearMap,
    Scaling,
    Width,
    WidthNetworks,
    corrected_covariance,
    error_features,
)
from metarestore.zero_shot.kernel import grey_levels
from metarestore.zero_shot.measurements import SMALLEST, Measurements, measure
from metarestore.zero_shot.shapes import bicubic_kernel, gaussian_of, relative_error
from metarestore.zero_shot.spectra import Floats

SIDES, SCALES, DRAWS, FOLDS = (256, 128, 64), (2, 4), 3, 5
BICUBIC_SHARE = 0.15
NETWORKS, HIDDEN, EPOCHS, BATCH = 3, 32, 60, 64
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
        """The mean variance that the networks should predict."""
        return BICUBIC_VARIANCE if self.truth is None else float(np.trace(self.truth)) / 2

    def error(self, covariance: Floats, *, bicubic: bool) -> float:
        """The relative error of the kernel that would be estimated."""
        kernel = bicubic_kernel(self.scale) if bicubic else gaussian_of(covariance * self.scale**2, self.scale)
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


def fitted_networks(cases: list[Case]) -> WidthNetworks:
    """Trains the ensemble by maximum likelihood: the logarithm of the width is normal, given the features."""
    rows = [case.measurements.features for case in cases]
    scaling = Scaling.fitted(rows)
    inputs = torch.from_numpy(scaling(rows)).float()
    targets = torch.tensor([math.log(case.width) for case in cases])
    return WidthNetworks(scaling, tuple(_trained(inputs, targets, seed) for seed in range(NETWORKS)))


def _trained(inputs: Tensor, targets: Tensor, seed: int) -> tuple[Dense, ...]:
    torch.manual_seed(seed)
    sizes = (inputs.shape[1], HIDDEN, HIDDEN, 2)
    layers = [nn.Linear(given, wanted) for given, wanted in itertools.pairwise(sizes)]
    first, second, last = layers
    network = nn.Sequential(first, nn.Tanh(), nn.Dropout(0.1), second, nn.Tanh(), last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=EPOCHS * -(-len(inputs) // BATCH))
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            mean, deviation = network(inputs[batch]).unbind(1)
            deviation = deviation.clamp(*LOG_DEVIATIONS)
            loss = (deviation + (targets[batch] - mean).square() / (2 * (2 * deviation).exp())).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return tuple((_rounded(layer.weight), _rounded(layer.bias)) for layer in layers)


def _rounded(values: Tensor) -> Any:
    if values.ndim > 1:
        return tuple(map(_rounded, values))
    return tuple(float(f"{value:.5g}") for value in values.tolist())


def fitted(cases: list[Case]) -> Calibration:
    """Fits both predictors; the errors that the second one learns are those on photographs unknown to the first."""
    folds = np.array([zlib.crc32(case.photograph.encode()) % FOLDS for case in cases])
    rows, errors = [], []
    for fold in range(FOLDS):
        networks = fitted_networks([case for case, own in zip(cases, folds, strict=True) if own != fold])
        for case in (case for case, own in zip(cases, folds, strict=True) if own == fold):
            width, covariance, error = predicted(networks, case)
            rows.append(error_features(case.measurements, width, covariance))
            errors.append(math.log(max(error, 0.02)))
    return Calibration(fitted_networks(cases), LinearMap.fitted(rows, errors))


def predicted(networks: WidthNetworks, case: Case) -> tuple[Width, Floats, float]:
    """Returns the width, the covariance and the relative error of the kernel of a case."""
    width = networks(case.measurements.features)
    covariance = corrected_covariance(case.measurements, width)
    return width, covariance, case.error(covariance, bicubic=width.is_bicubic)


def held_out(cases: list[Case]) -> str:
    """Describes errors and confidence on photographs that nothing was fitted to."""
    folds = np.array([zlib.crc32(("held out" + case.photograph).encode()) % FOLDS for case in cases])
    errors, expected, before, logs, gaussian, bicubic = [], [], [], [], [], []
    for fold in range(FOLDS):
        made = fitted([case for case, own in zip(cases, folds, strict=True) if own != fold])
        for case in (case for case, own in zip(cases, folds, strict=True) if own == fold):
            width, covariance, error = predicted(made.width, case)
            errors.append(error)
            expected.append(made.expected_error(case.measurements, width, covariance))
            values, axes = np.linalg.eigh(case.measurements.fit.covariance)
            raw = axes @ np.diag(np.clip(values, NARROWEST, None)) @ axes.T
            before.append(case.error(raw, bicubic=False))
            logs.append(width.log - math.log(case.width))
            gaussian.append(case.truth is not None)
            bicubic.append(width.is_bicubic)
    blurred = np.array(gaussian)
    rank = [spearmanr(np.array(expected)[part], np.array(errors)[part]).statistic for part in (blurred | True, blurred)]
    return (
        f"{len(cases)} cases; median relative error {np.median(errors):.3f} (of the fit to the spectrum "
        f"{np.median(before):.3f}); rank correlation of the error with the expected one {rank[0]:.2f} (Gaussian "
        f"kernels alone {rank[1]:.2f}); root mean square error of the logarithm of the width {np.std(logs):.3f}; "
        f"bicubic LR recognised {np.mean(np.array(bicubic)[~blurred]):.1%}, Gaussians taken for it "
        f"{np.mean(np.array(bicubic)[blurred]):.1%}"
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
    part.write_text(json.dumps(dataclasses.asdict(fitted(found))) + "\n", encoding="utf-8")
    os.replace(part, PATH)

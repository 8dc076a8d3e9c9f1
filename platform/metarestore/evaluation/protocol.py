"""Evaluation protocols: a folder of photographs under every degradation of a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metarestore.degradations import replay
from metarestore.degradations.base import Drawn
from metarestore.evaluation.folder import (
    Degrade,
    FolderReport,
    Metrics,
    Progress,
    Restore,
    evaluate_folder,
    mean_metrics,
)
from metarestore.seeds import derived_seed
from metarestore.tasks.distribution import to_tensor
from metarestore.tasks.spec import DistributionSpec
from metarestore.tasks.task import drawn_parameters


@dataclass(frozen=True)
class ProtocolReport:
    """The metrics of a folder under each case of a protocol.

    Attributes:
        protocol: Name of the protocol.
        cases: The report of each case, by its distinguishing parameters: `gaussian_blur.sigma 1.8`.
    """

    protocol: str
    cases: Mapping[str, FolderReport]

    @property
    def means(self) -> Metrics:
        """The mean of each metric over cases and photographs."""
        return mean_metrics(report.means for report in self.cases.values())

    @property
    def psnr_y(self) -> float:
        """Mean over cases and photographs, in dB."""
        return self.means["psnr_y"]

    @property
    def ssim_y(self) -> float:
        """Mean over cases and photographs."""
        return self.means["ssim_y"]

    def to_json(self) -> dict[str, object]:
        """Returns the report as plain data."""
        cases = {label: report.to_json() for label, report in self.cases.items()}
        return {"protocol": self.protocol, **self.means, "cases": cases}


def evaluate_protocol(
    name: str, spec: DistributionSpec, folder: Path, restore: Restore, progress: Progress | None = None
) -> ProtocolReport:
    """Degrades each photograph of a folder by each case, restores it, and compares.

    A photograph has the same noise in all cases, so that cases differ only by their parameters.

    Args:
        name: Name of the protocol.
        spec: The protocol.
        folder: Folder of HR photographs.
        restore: The restoration to measure.
        progress: Called after each photograph of each case.

    Raises:
        UserError: The folder is missing or empty, or holds files that are no photographs or are too small.
    """
    labels = case_labels(spec.cases)
    reports = {
        label: evaluate_folder(folder, spec.scale, restore, progress, degradation(case))
        for label, case in zip(labels, spec.cases, strict=True)
    }
    return ProtocolReport(name, reports)


def case_labels(cases: Sequence[Drawn]) -> list[str]:
    """Names each case by the parameters in which the cases differ, with numbers if names are not unique."""
    parameters = [drawn_parameters(case) for case in cases]
    names = list(dict.fromkeys(name for drawn in parameters for name in drawn))
    differing = [name for name in names if len({str(drawn.get(name)) for drawn in parameters}) > 1]
    labels = [
        ", ".join(
            f"{name} {drawn[name]:g}" if isinstance(drawn[name], float) else f"{name} {drawn[name]}"
            for name in differing
            if name in drawn
        )
        for drawn in parameters
    ]
    return [label if labels.count(label) == 1 else f"{label} (case {k})".strip() for k, label in enumerate(labels)]


def degradation(case: Drawn) -> Degrade:
    """Returns the function that creates LR images by a case of a protocol."""

    def degrade(name: str, hr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        lr = replay(to_tensor(hr)[None], case, [derived_seed("protocol", name)])
        return np.ascontiguousarray((lr[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())

    return degrade

"""Results of a study as plain data: written to JSON, plotted in reports, logged to MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarestore.evaluation.colour import ColourMetrics
from metarestore.files import write_atomically
from metarestore.graphs.graph import Graph
from metarestore.graphs.relations import Relations

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """The history of a training run; K logged steps, N sources of tasks.

    Attributes:
        steps: Outer steps, (K,).
        loss: Mean task loss, (K,).
        psnr: Training PSNR of the task's query patches in dB (after the inner steps, for meta-learners), (K,).
        validation: (step, PSNR in dB) of the validation photographs.
        sources: Names of the N sources: the auxiliary distributions, and the target (last) if its shots were learned
            from beside them.
        weights: Gradient weights (mean 1), (K, N).
        effective: Effective number of auxiliary distributions 1/Σp², (K,).
        gradient_norms: Mean norm of the task gradients of each source, NaN if none was drawn, (K, N).
        shares: Fraction of each source in the sum of weighted gradient norms, (K, N).
        seconds: Wall time of the training, including the estimation of relations.
        relating: Wall time of the estimation of relations.
        related: (step, relations of the auxiliary distributions, their standard errors) of every estimate, in the order
            of the steps.
    """

    steps: NDArray[np.int64]
    loss: Floats
    psnr: Floats
    validation: tuple[tuple[int, float], ...]
    sources: tuple[str, ...]
    weights: Floats
    effective: Floats
    gradient_norms: Floats
    shares: Floats
    seconds: float
    relating: float = 0.0
    related: tuple[tuple[int, Floats, Floats], ...] = ()

    @property
    def distributions(self) -> tuple[str, ...]:
        """Names of the auxiliary distributions, i.e. the sources with relations."""
        return self.sources[: len(self.related[0][1])] if self.related else self.sources


@dataclass(frozen=True)
class Curve:
    """Metrics of one adaptation on P test photographs, measured A times.

    Attributes:
        label: For example "adam 3e-4".
        psnr_y: PSNR-Y in dB of the squared errors of all crops of a photograph, (A, P).
        ssim_y: SSIM-Y after the last step, mean over a photograph's crops, (P,).
        steps: Adaptation steps before each measurement, (A,).
        colour: Colour, and luma apart from exposure, after the last step.
        undefined: Photographs with non-finite restored pixels after the last step.
    """

    label: str
    psnr_y: Floats
    ssim_y: Floats
    steps: tuple[int, ...] = (0,)
    colour: ColourMetrics | None = None
    undefined: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArmResult:
    """One arm of a study, measured on P test photographs; `bicubic` has a curve of one point and no history."""

    name: str
    photographs: tuple[str, ...]
    main: Curve
    alternatives: tuple[Curve, ...] = ()
    history: History | None = None
    relations: Relations | None = None
    weights: dict[str, float] = field(default_factory=dict)
    """Gradient weight of each auxiliary distribution at the end of training (empty if there are none)."""
    graph: Graph | None = None
    """The relation graph, if there are relations."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """The experiment of the arm as nested plain data; empty for bicubic."""

    @property
    def psnr_y(self) -> Floats:
        """PSNR-Y in dB after the last adaptation step, (P,)."""
        return np.asarray(self.main.psnr_y[-1])


@dataclass(frozen=True)
class Example:
    """Before and after: one test crop, uint8 RGB (H, W, 3) each.

    Attributes:
        caption: Photograph and drawn degradation, for people.
        hr: The ground truth.
        images: Label to image, in display order: the LR upscaled without interpolation, bicubic, the arms.
        psnr_y: Label to PSNR-Y in dB, for the labels that have one.
    """

    caption: str
    hr: NDArray[np.uint8]
    images: dict[str, NDArray[np.uint8]]
    psnr_y: dict[str, float]


@dataclass(frozen=True)
class StudyResult:
    """All arms of one experiment."""

    name: str
    arms: tuple[ArmResult, ...]
    examples: tuple[Example, ...]
    seconds: float
    baseline: str = "bicubic"
    notes: tuple[str, ...] = ()
    """What a reader has to know of the pairs and shots."""

    def arm(self, name: str) -> ArmResult:
        """Returns the arm called `name`.

        Raises:
            KeyError: There is no such arm.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics per arm and test photograph as JSON data."""
        return {
            "name": self.name,
            "arms": {
                arm.name: {
                    "photographs": list(arm.photographs),
                    "psnr_y": arm.psnr_y.tolist(),
                    "ssim_y": arm.main.ssim_y.tolist(),
                    **(arm.main.colour.to_json() if arm.main.colour else {}),
                    "psnr_y_by_step": arm.main.psnr_y.mean(axis=1).tolist(),
                    "measured_after": list(arm.main.steps),
                    "training_seconds": arm.history.seconds if arm.history else 0.0,
                    "relating_seconds": arm.history.relating if arm.history else 0.0,
                    "alternatives": {c.label: c.psnr_y[-1].tolist() for c in arm.alternatives},
                }
                for arm in self.arms
            },
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def strict_json(data: Any) -> Any:
    """Replaces numbers that JSON does not support (NaN, infinity) by null, in nested dicts and lists."""
    if isinstance(data, dict):
        return {key: strict_json(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [strict_json(value) for value in data]
    return None if isinstance(data, float) and not np.isfinite(data) else data


def write_json(path: Path, data: Any) -> None:
    """Writes results to a file atomically.

    Raises:
        UserError: The file cannot be written.
    """
    write_atomically(path, (json.dumps(strict_json(data), indent=1, allow_nan=False) + "\n").encode())

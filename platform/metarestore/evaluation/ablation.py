"""Results of an ablation: the metrics of each cell, and paired comparisons of the arms of each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarestore.config.grid import REPETITIONS, repetition
from metarestore.decibels import CAP
from metarestore.evaluation.colour import colour_shifts, exact_restorations
from metarestore.evaluation.statistics import Difference, bootstrap_difference, crossed_difference

Floats = NDArray[np.float64]
GroupKey = tuple[tuple[str, str], ...]
_OTHER_METRICS = ("ssim_y", "psnr_rgb", "colour_error", "psnr_y_matched")
"""Metrics other than PSNR-Y."""


@dataclass(frozen=True)
class Metrics:
    """The metrics of each of P test photographs: PSNR-Y in dB, SSIM-Y, and those of `ColourMetrics`."""

    psnr_y: list[float]
    ssim_y: list[float]
    psnr_rgb: list[float]
    colour_error: list[float]
    psnr_y_matched: list[float]


@dataclass(frozen=True)
class CellResult:
    """The result of one cell, as plain data.

    Attributes:
        name: Name of the cell.
        arm: Name of its arm.
        labels: Label of its value on each axis, by the axis' key.
        study: Digest of everything that the metrics depend on.
        trained: Name of its training; cells with the same name share it.
        photographs: The test photographs, in the order of the metrics.
        bicubic: Bicubic upscaling of the same crops.
        before: The trained network, before adaptation.
        after: The network adapted to the shots.
        alternatives: PSNR-Y of each photograph with the alternative adaptation options.
        relations: Last relation of each auxiliary distribution; empty if none was estimated.
        standard_errors: Standard errors of the relations; None where not defined.
        reliability: Rank correlation of the relations from two halves of the shots; None where not defined.
        weights: Last gradient weight of each auxiliary distribution.
        effective_tasks: Effective number of tasks of these weights; None if there are none.
        training_seconds: Wall time of its training, which other cells may share.
        relating_seconds: Part of it that was spent on estimating relations.
    """

    name: str
    arm: str
    labels: dict[str, str]
    study: str
    trained: str
    photographs: list[str]
    bicubic: Metrics
    before: Metrics
    after: Metrics
    alternatives: dict[str, list[float]]
    relations: dict[str, float]
    standard_errors: dict[str, float | None]
    reliability: float | None
    weights: dict[str, float]
    effective_tasks: float | None
    training_seconds: float
    relating_seconds: float

    @property
    def group(self) -> GroupKey:
        """The (key, label) pairs of the cell on all axes except those of repetitions."""
        return tuple((key, label) for key, label in self.labels.items() if key not in REPETITIONS)

    @property
    def repetition(self) -> str:
        """Labels of its seed and of its first shot; empty if the grid has neither axis."""
        return repetition(self.labels)

    def to_json(self) -> dict[str, Any]:
        """Returns JSON data; the inverse is `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CellResult:
        """Reads data written by `to_json`."""
        metrics = {key: Metrics(**data[key]) for key in ("bicubic", "before", "after")}
        return cls(**{**data, **metrics})


@dataclass(frozen=True)
class ArmRow:
    """One arm of a group, over its S repetitions (seeds, first shots) and P photographs.

    Attributes:
        arm: Name of the arm.
        seeds: Labels of the repetitions that finished.
        missing: Number of repetitions that did not finish.
        psnr_y: Mean PSNR-Y in dB.
        ssim_y: Mean SSIM-Y.
        psnr_rgb: Mean PSNR of RGB in dB.
        colour_error: Mean colour error in grey levels.
        psnr_y_matched: Mean PSNR-Y in dB after a match of exposure.
        gain_matched: Mean gain over bicubic in `psnr_y_matched`, in dB.
        gain: Difference to bicubic in dB, with its bootstrap interval.
        gain_before: Mean gain over bicubic before adaptation, in dB.
        difference: Difference to the reference arm in dB, with its bootstrap interval; None for the reference itself.
        crossed: The same with the wider Student-t interval that covers new trainings and new photographs.
        effective_tasks: Mean effective number of tasks; None if there are no weights.
        minutes: Mean wall time of a training.
    """

    arm: str
    seeds: tuple[str, ...]
    missing: int
    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    colour_error: float
    psnr_y_matched: float
    gain_matched: float
    gain: Difference
    gain_before: float
    difference: Difference | None
    crossed: Difference | None
    effective_tasks: float | None
    minutes: float


@dataclass(frozen=True)
class Group:
    """The arms for one combination of values on all axes except those of repetitions.

    Attributes:
        labels: (key of the axis, label of the value).
        rows: The arms with a finished cell, in the order of the file.
        photographs: Number of test photographs.
        bicubic_psnr_y: Mean PSNR-Y of bicubic upscaling in dB.
        bicubic_ssim_y: Mean SSIM-Y of bicubic upscaling.
        bicubic_psnr_rgb: Mean PSNR of RGB of bicubic upscaling in dB.
        bicubic_colour_error: Mean colour error of bicubic upscaling in grey levels.
        bicubic_psnr_y_matched: Mean PSNR-Y of bicubic upscaling in dB after a match of exposure.
    """

    labels: GroupKey
    rows: tuple[ArmRow, ...]
    photographs: int
    bicubic_psnr_y: float
    bicubic_ssim_y: float
    bicubic_psnr_rgb: float
    bicubic_colour_error: float
    bicubic_psnr_y_matched: float


@dataclass(frozen=True)
class AblationResult:
    """All that a grid found.

    Attributes:
        name: Name of the experiment.
        arms: The arms, in the order of the file.
        names: Short name of each axis, by its key, in the order of the file.
        reference: The arm with which the others are compared.
        planned: Arm and group of each planned cell, by name of the cell.
        cells: The finished cells, in the order of the grid.
        failures: Error messages, by name of the cell.
        notes: Notes for readers of the tables.
        seconds: Wall time of the trainings, each counted once.
        seed: Seed of the resampling.
    """

    name: str
    arms: tuple[str, ...]
    names: dict[str, str]
    reference: str
    planned: dict[str, tuple[str, GroupKey]]
    cells: tuple[CellResult, ...]
    failures: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    seed: int = 0

    def groups(self) -> list[Group]:
        """Compares the arms of every group that has a finished cell, in the order of the grid."""
        return self._groups

    @cached_property
    def _groups(self) -> list[Group]:
        keys = dict.fromkeys(key for _, key in self.planned.values())
        by_group = {key: [cell for cell in self.cells if cell.group == key] for key in keys}
        return [self._group(key, cells) for key, cells in by_group.items() if cells]

    def _group(self, key: GroupKey, cells: list[CellResult]) -> Group:
        arms = {arm: {cell.repetition: cell for cell in cells if cell.arm == arm} for arm in self.arms}
        planned = [arm for arm, group in self.planned.values() if group == key]
        reference = arms.get(self.reference, {})
        rows = tuple(
            self._row(arm, runs, {} if arm == self.reference else reference, planned.count(arm))
            for arm, runs in arms.items()
            if runs
        )
        bicubic = list({cell.repetition: cell.bicubic for cell in cells}.values())
        return Group(
            labels=key,
            rows=rows,
            photographs=len(cells[0].photographs),
            **{f"bicubic_{key}": _mean(bicubic, key) for key in ("psnr_y", *_OTHER_METRICS)},
        )

    def _row(self, arm: str, runs: dict[str, CellResult], reference: dict[str, CellResult], planned: int) -> ArmRow:
        cells = list(runs.values())
        after, before, bicubic = (
            np.asarray([getattr(cell, stage).psnr_y for cell in cells]) for stage in ("after", "before", "bicubic")
        )
        paired = paired_table(runs, reference)
        means = {key: _mean([cell.after for cell in cells], key) for key in _OTHER_METRICS}
        effective = [cell.effective_tasks for cell in cells if cell.effective_tasks is not None]
        return ArmRow(
            arm=arm,
            seeds=tuple(runs),
            missing=planned - len(runs),
            psnr_y=float(after.mean()),
            **means,
            gain_matched=means["psnr_y_matched"] - _mean([cell.bicubic for cell in cells], "psnr_y_matched"),
            gain=bootstrap_difference(after - bicubic, self.seed),
            gain_before=float((before - bicubic).mean()),
            difference=None if paired is None else bootstrap_difference(paired, self.seed),
            crossed=None if paired is None else crossed_difference(paired),
            effective_tasks=float(np.mean(effective)) if effective else None,
            minutes=float(np.mean([cell.training_seconds for cell in cells])) / 60,
        )

    def findings(self) -> list[str]:
        """Returns notes about photographs that were restored without error or with a colour shift."""
        exact = {
            cell.name: [name for name, psnr in zip(cell.photographs, cell.after.psnr_y, strict=True) if psnr >= CAP]
            for cell in self.cells
        }
        shifts = [
            colour_shifts(cell.name, cell.photographs, cell.after.colour_error, cell.bicubic.colour_error)
            for cell in self.cells
        ]
        return [text for text in (exact_restorations(exact), *shifts) if text is not None]

    def to_json(self) -> dict[str, Any]:
        """Returns the comparisons and the metrics of every cell as JSON data."""
        groups = [{**_defined(asdict(group)), "labels": dict(group.labels)} for group in self.groups()]
        return {
            "name": self.name,
            "reference": self.reference,
            "groups": groups,
            "cells": [cell.to_json() for cell in self.cells],
            "failures": self.failures,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def _mean(metrics: Sequence[Metrics], key: str) -> float:
    return float(np.mean([getattr(one, key) for one in metrics]))


def _defined(data: Any) -> Any:
    """Drops infinite numbers from nested data, e.g. ends of the interval for a single photograph or training."""
    if isinstance(data, dict):
        items = data.items()
        return {k: _defined(v) for k, v in items if not isinstance(v, float) or np.isfinite(v)}
    return [_defined(value) for value in data] if isinstance(data, list | tuple) else data


def paired_table(first: Mapping[str, CellResult], second: Mapping[str, CellResult]) -> Floats | None:
    """Returns the differences in PSNR-Y (S, P) over the common seeds; None if there are none.

    Raises:
        ValueError: They were not measured on the same photographs.
    """
    seeds = [seed for seed in first if seed in second]
    for seed in seeds:
        if first[seed].photographs != second[seed].photographs:
            raise ValueError(f"{first[seed].name} and {second[seed].name} were not measured on the same photographs")
    if not seeds:
        return None
    return np.asarray([np.subtract(first[seed].after.psnr_y, second[seed].after.psnr_y) for seed in seeds])

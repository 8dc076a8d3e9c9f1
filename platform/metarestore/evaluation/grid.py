"""What an ablation grid found: the figures of each cell, and the paired comparison of the arms of each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarestore.config.grid import SEED
from metarestore.evaluation.statistics import Difference, bootstrap_difference, crossed_difference

Floats = NDArray[np.float64]
GroupKey = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Figures:
    """PSNR-Y in dB and SSIM-Y of each of P test photographs, mean over a photograph's crops."""

    psnr_y: list[float]
    ssim_y: list[float]


@dataclass(frozen=True)
class CellResult:
    """What one cell found; plain data.

    Attributes:
        name: Name of the cell.
        arm: Name of its arm.
        labels: Label of its value on each axis, by the axis' key.
        study: Digest of all that the figures depend on.
        trained: Name of its training; cells that name the same one share it.
        photographs: The test photographs, in the order of the figures.
        bicubic: Bicubic upscaling of the same crops.
        before: The trained network, before adaptation.
        after: The network adapted to the shots.
        alternatives: PSNR-Y of each photograph after the other ways to adapt.
        relations: Last relation of each auxiliary distribution; empty where none was estimated.
        standard_errors: Standard errors of the relations; None where not defined.
        reliability: Rank correlation of the relations from two halves of the shots; None where not defined.
        weights: Last gradient weight of each auxiliary distribution.
        effective_tasks: Effective number of tasks of these weights; None where there are none.
        training_seconds: Wall time of its training, which is that of others too if it is shared.
        relating_seconds: Share of it that estimating relations took.
    """

    name: str
    arm: str
    labels: dict[str, str]
    study: str
    trained: str
    photographs: list[str]
    bicubic: Figures
    before: Figures
    after: Figures
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
        """Where the cell stands on all axes but the seed's."""
        return tuple((key, label) for key, label in self.labels.items() if key != SEED)

    @property
    def seed(self) -> str:
        """Label of its seed; empty where the grid has no seeds."""
        return self.labels.get(SEED, "")

    def to_json(self) -> dict[str, Any]:
        """Returns JSON-able data, which `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CellResult:
        """Reads what `to_json` wrote."""
        figures = {key: Figures(**data[key]) for key in ("bicubic", "before", "after")}
        return cls(**{**data, **figures})


@dataclass(frozen=True)
class ArmRow:
    """One arm of a group, over its S seeds and P photographs.

    Attributes:
        arm: Name of the arm.
        seeds: Labels of the seeds that finished.
        missing: Number of seeds that did not.
        psnr_y: Mean PSNR-Y in dB.
        ssim_y: Mean SSIM-Y.
        gain: Difference to bicubic in dB, with its bootstrap interval.
        gain_before: Mean gain over bicubic before adaptation, in dB.
        difference: Difference to the reference arm in dB, with its bootstrap interval; None for that arm itself.
        crossed: The same with the wider Student-t interval for another training on other photographs.
        effective_tasks: Mean effective number of tasks; None where there are no weights.
        minutes: Mean wall time of a training.
    """

    arm: str
    seeds: tuple[str, ...]
    missing: int
    psnr_y: float
    ssim_y: float
    gain: Difference
    gain_before: float
    difference: Difference | None
    crossed: Difference | None
    effective_tasks: float | None
    minutes: float


@dataclass(frozen=True)
class Group:
    """The arms at one place of all axes but the seed's.

    Attributes:
        labels: (key of the axis, label of the value).
        rows: The arms with a finished cell, in the file's order.
        photographs: Number of test photographs.
        bicubic_psnr_y: Mean PSNR-Y of bicubic upscaling in dB.
        bicubic_ssim_y: Mean SSIM-Y of bicubic upscaling.
    """

    labels: GroupKey
    rows: tuple[ArmRow, ...]
    photographs: int
    bicubic_psnr_y: float
    bicubic_ssim_y: float


@dataclass(frozen=True)
class GridResult:
    """All that a grid found.

    Attributes:
        name: Name of the experiment.
        arms: The arms, in the file's order.
        names: Short name of each axis, by its key, in the file's order.
        reference: The arm that others are compared with.
        planned: Group of each cell that is to be run, by the cell's name, and its arm.
        cells: The finished cells, in the grid's order.
        failures: What went wrong, by the cell's name.
        notes: What a reader of the tables has to know.
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
        """Compares the arms of every group that has a finished cell, in the grid's order."""
        return self._groups

    @cached_property
    def _groups(self) -> list[Group]:
        keys = dict.fromkeys(key for _, key in self.planned.values())
        found = {key: [cell for cell in self.cells if cell.group == key] for key in keys}
        return [self._group(key, cells) for key, cells in found.items() if cells]

    def _group(self, key: GroupKey, cells: list[CellResult]) -> Group:
        arms = {arm: {cell.seed: cell for cell in cells if cell.arm == arm} for arm in self.arms}
        planned = [arm for arm, group in self.planned.values() if group == key]
        reference = arms.get(self.reference, {})
        rows = tuple(
            self._row(arm, runs, {} if arm == self.reference else reference, planned.count(arm))
            for arm, runs in arms.items()
            if runs
        )
        bicubic = {cell.seed: cell.bicubic for cell in cells}.values()
        return Group(
            labels=key,
            rows=rows,
            photographs=len(cells[0].photographs),
            bicubic_psnr_y=float(np.mean([figures.psnr_y for figures in bicubic])),
            bicubic_ssim_y=float(np.mean([figures.ssim_y for figures in bicubic])),
        )

    def _row(self, arm: str, runs: dict[str, CellResult], reference: dict[str, CellResult], planned: int) -> ArmRow:
        cells = list(runs.values())
        after, before, bicubic = (
            np.asarray([getattr(cell, which).psnr_y for cell in cells]) for which in ("after", "before", "bicubic")
        )
        paired = paired_table(runs, reference)
        effective = [cell.effective_tasks for cell in cells if cell.effective_tasks is not None]
        return ArmRow(
            arm=arm,
            seeds=tuple(runs),
            missing=planned - len(runs),
            psnr_y=float(after.mean()),
            ssim_y=float(np.mean([cell.after.ssim_y for cell in cells])),
            gain=bootstrap_difference(after - bicubic, self.seed),
            gain_before=float((before - bicubic).mean()),
            difference=None if paired is None else bootstrap_difference(paired, self.seed),
            crossed=None if paired is None else crossed_difference(paired),
            effective_tasks=float(np.mean(effective)) if effective else None,
            minutes=float(np.mean([cell.training_seconds for cell in cells])) / 60,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison and the figures of every cell as JSON-able data."""
        groups = [{**asdict(group), "labels": dict(group.labels)} for group in self.groups()]
        return {
            "name": self.name,
            "reference": self.reference,
            "groups": groups,
            "cells": [cell.to_json() for cell in self.cells],
            "failures": self.failures,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def paired_table(first: Mapping[str, CellResult], second: Mapping[str, CellResult]) -> Floats | None:
    """Returns the differences in PSNR-Y (S, P) of the seeds that both have, by the label of the seed; None if none.

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

"""Measures what the Ray engine costs beside the computing, and predicts larger clusters from that.

Run:     python experiments/benchmarks/scaling.py [--rounds 7] [--out FILE.md]
Prints:  tasks per second of this process, 1 and 2 Ray workers (interleaved, tasks built in the step); the overhead of
         one step against parameters and workers; a cost model fitted to it, and the efficiency that it predicts.

Model:   t(W, P) = a + b·W + c·W·P, for W shards of one gradient of P float32 each on W workers, fitted for each
         reduction. a, b: latency of the driver, per step and per shard; c: seconds per parameter and shard.
Predicted on a network, at 80% of its nominal rate r, nothing of it hidden behind computing, for shards of 4 tasks:
         driver: a + b·W + c·4·W·P, and through the driver's one link 4·P bytes to each machine (8 workers share one
         copy) and 4·P bytes of gradient per task back.
         tree: a + b·W + c·4·P, for workers sum their own shards side by side; through the driver's link 4·P bytes to
         each machine and 4·P back; and log2(W) levels one after the other, each of 4·P bytes and one addition.
         Efficiency = compute / (compute + overhead). Stragglers and failures are left out.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarestore.config.engine import RayEngineSpec
from metarestore.config.experiment import Experiment
from metarestore.engines.local import LocalSession
from metarestore.engines.ray import RayEngine, RaySession
from metarestore.learners.gradients import TaskGradients, TaskMetrics
from metarestore.project import resolve
from metarestore.training.jobs import GradientJob
from metarestore.training.sampler import TaskSampler
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

AUXILIARY = ("bicubic", "blur_iso_wide", "noise_gaussian", "jpeg")
SIZES, WORKERS, REDUCTIONS = (12_000, 1_000_000, 6_000_000), (1, 2, 4, 8, 16), ("driver", "tree")
TASKS_PER_SHARD, WORKERS_PER_MACHINE, LINK_SHARE = 4, 8, 0.8

Point = tuple[int, int, float]
"""Workers, parameters, seconds."""


@dataclass(frozen=True)
class EmptyJob:
    """Returns a gradient without computing it."""

    def run(self, workspace: Workspace, flat: Tensor) -> TaskGradients:
        """Returns one task's gradient of P numbers."""
        del workspace
        one = np.zeros(1, np.float32)
        return TaskGradients(np.zeros((1, len(flat)), np.float32), TaskMetrics(one, one, one))


def study() -> Study:
    experiment = {
        "graph": {"target": "phone_camera", "auxiliary": AUXILIARY, "estimator": {"kind": "uniform"}},
        "learner": {"kind": "maml", "inner_steps": 1},
        "training": {"tasks_per_step": 8, "shard_size": TASKS_PER_SHARD, "support": 5, "query": 5, "patch": 64},
    }
    return resolve(Experiment.model_validate(experiment), Path(__file__).parents[2])


def seconds(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def throughput(rounds: int) -> tuple[str, float]:
    """Compares this process, 1 and 2 workers; returns the table and the seconds of one shard here."""
    found = study()
    workspace = Workspace(found)
    flat = workspace.initial()
    jobs = [GradientJob(shard) for shard in TaskSampler(AUXILIARY, 0, 8, TASKS_PER_SHARD).shards(0)]
    here = LocalSession(workspace)
    times: dict[str, list[float]] = {"local": [], "ray, 1": [], "ray, 2": []}
    with (
        RayEngine(RayEngineSpec(kind="ray", workers=2, cpus_per_worker=0.3)) as two,
        RayEngine(RayEngineSpec(kind="ray", workers=1, cpus_per_worker=0.3)) as one,
    ):
        runs = {"local": here, "ray, 1": one.session(found), "ray, 2": two.session(found)}
        for _ in range(rounds + 2):
            for name, session in runs.items():
                times[name].append(seconds(lambda session=session: session.map(jobs, flat)))
    median = {name: statistics.median(all_times[2:]) for name, all_times in times.items()}
    lines = ["| engine | tasks per second |", "| --- | --- |"]
    lines += [f"| {name} | {8 / took:.1f} |" for name, took in median.items()]
    ratios = f"1 worker reaches {median['local'] / median['ray, 1']:.2f} of local (aim 0.93), "
    ratios += f"2 workers {median['ray, 1'] / median['ray, 2']:.2f} of 1 (aim 1.85)."
    return "\n".join([*lines, "", ratios]), median["local"] / len(jobs)


def overheads(rounds: int, reduction: str) -> list[Point]:
    """Measures (workers, parameters, seconds) of steps that compute nothing."""
    points = []
    for count in WORKERS:
        spec = RayEngineSpec(kind="ray", workers=count, cpus_per_worker=0.1, reduction=reduction)  # type: ignore[arg-type]
        with RayEngine(spec) as engine:
            session = engine.session(study())
            for size in SIZES:
                flat = torch.zeros(size)

                def step(session: RaySession = session, flat: Tensor = flat, jobs: int = count) -> None:
                    session.reduce([EmptyJob()] * jobs, flat, lambda figures: np.ones_like(figures.losses))

                took = statistics.median([seconds(step) for _ in range(rounds + 2)][2:])
                points.append((count, size, took))
    return points


def addition() -> float:
    """Measures the seconds per parameter of adding two gradients."""
    left, right = (np.ones(SIZES[-1], np.float32) for _ in range(2))
    return statistics.median(seconds(lambda: left + right) for _ in range(9)) / SIZES[-1]


def fitted(points: list[Point]) -> np.ndarray:
    """Returns (a, b, c) with the least relative error, none below 0."""
    from scipy.optimize import nnls  # noqa: PLC0415

    matrix = np.asarray([[1, w, w * p] for w, p, _ in points])
    took = np.asarray([t for *_, t in points])
    # Columns of one size, since parameters are counted in millions.
    scale = np.asarray([1, 1, 1e6])
    return np.asarray(nnls(matrix / scale / took[:, None], np.ones(len(took)))[0] / scale)


@dataclass(frozen=True)
class Model:
    """What steps cost.

    Attributes:
        driver: (a, b, c) where the driver sums.
        tree: (a, b, c) where the workers do.
        add: Seconds per parameter of one addition.
    """

    driver: np.ndarray
    tree: np.ndarray
    add: float

    def efficiency(self, reduction: str, compute: float, workers: int, size: int, gigabits: float) -> float:
        """Predicts compute / (compute + overhead)."""
        wire = 4 * size / (gigabits * 1e9 / 8 * LINK_SHARE)
        machines = math.ceil(workers / WORKERS_PER_MACHINE)
        if reduction == "driver":
            a, b, c = self.driver
            overhead = a + b * workers + c * workers * TASKS_PER_SHARD * size
            overhead += wire * (machines + workers * TASKS_PER_SHARD)
        else:
            a, b, c = self.tree
            overhead = a + b * workers + c * TASKS_PER_SHARD * size
            overhead += wire * (machines + 1) + math.ceil(math.log2(workers)) * (wire + self.add * size)
        return float(compute / (compute + overhead))


def predictions(model: Model, compute: float) -> str:
    head = "| parameters | seconds of a shard | link | summed by | 8 workers | 64 workers | 512 workers |"
    lines = [head, "| --- " * 7 + "|"]
    for size, took, gigabits in itertools.product(SIZES, (compute, 10 * compute), (10, 100)):
        for reduction in REDUCTIONS:
            shares = [f"{model.efficiency(reduction, took, w, size, gigabits):.0%}" for w in (8, 64, 512)]
            lines.append(f"| {size:,} | {took:.2f} | {gigabits} Gb/s | {reduction} | " + " | ".join(shares) + " |")
    return "\n".join(lines)


def overhead_table(points: list[Point], model: np.ndarray) -> str:
    lines = ["| workers | parameters | measured ms | model ms |", "| --- " * 4 + "|"]
    for workers, size, took in points:
        modelled = model @ [1, workers, workers * size]
        lines.append(f"| {workers} | {size:,} | {1e3 * took:.1f} | {1e3 * modelled:.1f} |")
    a, b, c = model
    return "\n".join([*lines, "", f"t = {1e3 * a:.2f} ms + {1e3 * b:.2f} ms · W + {1e9 * c:.3f} ns · W · P"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    compared, compute = throughput(options.rounds)
    points = {reduction: overheads(options.rounds, reduction) for reduction in REDUCTIONS}
    driver, tree = (fitted(points[reduction]) for reduction in REDUCTIONS)
    machine = f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}"
    sections = [f"{machine}; medians of {options.rounds} rounds.", compared]
    for reduction, model in zip(REDUCTIONS, (driver, tree), strict=True):
        sections += [
            f"## A step that computes nothing, summed by: {reduction}",
            overhead_table(points[reduction], model),
        ]
    sections += ["## Predicted efficiency", predictions(Model(driver, tree, addition()), compute)]
    text = "\n\n".join(sections)
    print(text)
    if options.out is not None:
        doc = str(__doc__).split("Model:   ")[1]
        head = "# What the Ray engine costs\n\n`python experiments/benchmarks/scaling.py`\n\n"
        options.out.write_text(f"{head}{text}\n\n## Model\n\n{doc}")


if __name__ == "__main__":
    main()

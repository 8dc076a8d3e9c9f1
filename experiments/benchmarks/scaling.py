"""Measures what the Ray engine costs beside the computing, and predicts larger clusters from that.

Run:     python experiments/benchmarks/scaling.py [--rounds 7] [--out FILE.md]
Prints:  tasks per second of this process, 1 and 2 Ray workers (interleaved, tasks built in the step); the overhead of
         one step against parameters and workers; a cost model fitted to it, and the efficiency that it predicts.

Model:   t(W, P) = a + b·W + c·W·P, for W shards of one gradient of P float32 each on W workers. a, b: latency of the
         driver, per step and per shard; c: seconds per parameter and shard to put, fetch and sum on the driver.
Predicted for a network: a + b·W + c·W·P as measured here, and on top the wire: 4·P bytes to each machine (8 workers
         each share one copy) and 4·P bytes of gradient per task back, all through the driver's one link, at 80% of
         its nominal rate, nothing of it hidden behind computing. Efficiency = compute / (compute + overhead).
"""

from __future__ import annotations

import argparse
import datetime
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

from metarestore.config.experiment import Experiment
from metarestore.config.experiment import RayEngine as RaySpec
from metarestore.engines.local import LocalSession
from metarestore.engines.ray import RayEngine, RaySession
from metarestore.learners.workspace import Study, Workspace
from metarestore.project import resolve
from metarestore.training.jobs import GradientJob
from metarestore.training.sampler import TaskSampler

AUXILIARY = ("bicubic", "blur_iso_wide", "noise_gaussian", "jpeg")
SIZES, WORKERS = (12_000, 1_000_000, 6_000_000), (1, 2, 4, 8)
TASKS_PER_SHARD, WORKERS_PER_MACHINE, LINK_SHARE = 4, 8, 0.8


@dataclass(frozen=True)
class EmptyJob:
    """Returns a gradient without computing it."""

    def run(self, workspace: Workspace, flat: Tensor) -> np.ndarray:
        """Returns one row of P numbers."""
        del workspace
        return np.empty((1, len(flat)), np.float32)


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
        RayEngine(RaySpec(kind="ray", workers=2, cpus_per_worker=0.3)) as two,
        RayEngine(RaySpec(kind="ray", workers=1, cpus_per_worker=0.3)) as one,
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


def overheads(rounds: int) -> list[tuple[int, int, float]]:
    """Measures (workers, parameters, seconds) of steps that compute nothing."""
    points = []
    for count in WORKERS:
        with RayEngine(RaySpec(kind="ray", workers=count, cpus_per_worker=0.2)) as engine:
            session = engine.session(study())
            for size in SIZES:
                flat = torch.zeros(size)

                def step(session: RaySession = session, flat: Tensor = flat, jobs: int = count) -> None:
                    # The driver sums what comes back, in order, as the outer loop does.
                    np.concatenate(session.map([EmptyJob()] * jobs, flat)).sum(axis=0)

                took = statistics.median([seconds(step) for _ in range(rounds + 2)][2:])
                points.append((count, size, took))
    return points


def fitted(points: list[tuple[int, int, float]]) -> np.ndarray:
    """Returns (a, b, c) with the least relative error, none below 0."""
    from scipy.optimize import nnls  # noqa: PLC0415

    matrix = np.asarray([[1, w, w * p] for w, p, _ in points])
    took = np.asarray([t for *_, t in points])
    # Columns of one size, since parameters are counted in millions.
    scale = np.asarray([1, 1, 1e6])
    return np.asarray(nnls(matrix / scale / took[:, None], np.ones(len(took)))[0] / scale)


def predicted(model: np.ndarray, compute: float, workers: int, size: int, gigabits: float) -> float:
    a, b, c = model
    rate = gigabits * 1e9 / 8 * LINK_SHARE
    copies = math.ceil(workers / WORKERS_PER_MACHINE) + workers * TASKS_PER_SHARD
    overhead = a + b * workers + c * workers * TASKS_PER_SHARD * size + 4 * size * copies / rate
    return float(compute / (compute + overhead))


def predictions(model: np.ndarray, compute: float) -> str:
    lines = ["| parameters | seconds of a shard | link | 8 workers | 64 workers | 512 workers |", "| --- " * 6 + "|"]
    for size in SIZES:
        for took in (compute, 10 * compute):
            for gigabits in (10, 100):
                shares = [f"{predicted(model, took, w, size, gigabits):.0%}" for w in (8, 64, 512)]
                lines.append(f"| {size:,} | {took:.2f} | {gigabits} Gb/s | " + " | ".join(shares) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    compared, compute = throughput(options.rounds)
    points = overheads(options.rounds)
    model = fitted(points)
    lines = ["| workers | parameters | measured ms | model ms |", "| --- " * 4 + "|"]
    for workers, size, took in points:
        modelled = model @ [1, workers, workers * size]
        lines.append(f"| {workers} | {size:,} | {1e3 * took:.1f} | {1e3 * modelled:.1f} |")
    a, b, c = model
    machine = f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}"
    text = "\n\n".join(
        [
            f"{machine}; medians of {options.rounds} rounds.",
            compared,
            "## Overhead of a step that computes nothing",
            "\n".join(lines),
            f"t = {1e3 * a:.2f} ms + {1e3 * b:.2f} ms · W + {1e9 * c:.3f} ns · W · P",
            "## Predicted efficiency",
            predictions(model, compute),
        ]
    )
    print(text)
    if options.out is not None:
        doc = str(__doc__).split("Model:   ")[1]
        head = "# What the Ray engine costs\n\n`python experiments/benchmarks/scaling.py`\n\n"
        options.out.write_text(f"{head}{text}\n\n## Model\n\n{doc}")


if __name__ == "__main__":
    main()

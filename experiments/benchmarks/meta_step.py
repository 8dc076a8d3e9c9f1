"""Measures one outer step against learn2learn's own clone/adapt loop, in one run, interleaved.

Run:     python experiments/benchmarks/meta_step.py [--rounds 7] [--out FILE.md]
Prints:  tasks per second for FSRCNN x4, 8 tasks of 5 + 5 patches of 16 x 16 LR, 1 and 5 inner steps, first and second
         order: this engine with 2 one-thread Ray workers, this process on one thread, and learn2learn at its best
         thread count; then the share of the machine's measured convolution peak that the workers reach.

All sides get tasks that are built already; `with tasks` is ours again with drawing and degrading the tasks, which
nobody else does in the step. learn2learn gets our network, whose last layer is in the faster sub-pixel form, and once
more the network in stock layers, as one would write it. `kernel` compares single processes on one thread each: what is
left of the ratio when the second worker is taken away.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from metarestore.config.engine import RayEngineSpec
from metarestore.config.experiment import Experiment
from metarestore.degradations.resample import bicubic_upsample
from metarestore.engines.local import LocalSession
from metarestore.engines.ray import RayEngine
from metarestore.learners.gradients import TaskGradients
from metarestore.learners.learn2learn import reference_gradients
from metarestore.learners.learner import MAMLLearner
from metarestore.models.fsrcnn import FSRCNN
from metarestore.project import resolve
from metarestore.tasks.task import Task
from metarestore.training.jobs import GradientJob
from metarestore.training.sampler import Shard, TaskSampler
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

TASKS, SHARD = 8, 4
AUXILIARY = ("bicubic", "blur_iso_wide", "noise_gaussian", "jpeg")


def study_of(learner: str, steps: int) -> Study:
    experiment = {
        "graph": {"target": "phone_camera", "auxiliary": AUXILIARY, "estimator": {"kind": "uniform"}},
        "learner": {"kind": learner, "inner_steps": steps},
        "training": {"tasks_per_step": TASKS, "shard_size": SHARD, "support": 5, "query": 5, "patch": 64},
    }
    return resolve(Experiment.model_validate(experiment), Path(__file__).parents[2])


class StockFSRCNN(FSRCNN):
    """The same network with PyTorch's transposed convolution."""

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR images."""
        return self.tail(self.body(lr)) + bicubic_upsample(lr, self.scale)


@dataclass(frozen=True)
class ReadyJob:
    """Gradients of a shard whose tasks are built once and kept."""

    shard: Shard

    def run(self, workspace: Workspace, flat: Tensor) -> TaskGradients:
        """Differentiates the kept tasks."""
        kept: dict[Shard, Task] = workspace.__dict__.setdefault("kept_tasks", {})
        if self.shard not in kept:
            kept[self.shard] = workspace.tasks(self.shard)
        return workspace.gradients(flat, kept[self.shard])


def seconds(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def convolution_peak(threads: int) -> float:
    """Returns the most GFLOP/s that a convolution reaches here, over a few shapes."""
    torch.set_num_threads(threads)
    best = 0.0
    for n, channels, size, kernel in ((8, 64, 64, 3), (8, 128, 32, 3), (16, 56, 32, 5), (4, 256, 32, 3)):
        x, w = torch.rand(n, channels, size, size), torch.rand(channels, channels, kernel, kernel)
        with torch.no_grad():
            took = min(seconds(lambda x=x, w=w: torch.conv2d(x, w, padding="same")) for _ in range(12))
        best = max(best, 2 * x.numel() * channels * kernel**2 / took / 1e9)
    torch.set_num_threads(1)
    return best


def flops_of(workspace: Workspace, tasks: Task, flat: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        reference_gradients(workspace.learner, workspace.layout, flat, tasks)
    return int(counter.get_total_flops())


def measure(study: Study, engine: RayEngine, rounds: int, peak: float) -> list[str]:
    workspace = Workspace(study)
    flat = workspace.initial()
    shards = TaskSampler(AUXILIARY, 0, TASKS, SHARD).shards(0)
    tasks = workspace.tasks([ref for shard in shards for ref in shard])
    ready, built = [ReadyJob(s) for s in shards], [GradientJob(s) for s in shards]
    session, here = engine.session(study), LocalSession(workspace)

    stock = replace(workspace.learner, model=StockFSRCNN(study.scale))

    def reference(learner: MAMLLearner, threads: int) -> None:
        torch.set_num_threads(threads)
        reference_gradients(learner, workspace.layout, flat, tasks)
        torch.set_num_threads(1)

    counts = range(1, (os.cpu_count() or 1) + 1)
    ways: dict[str, Callable[[], Any]] = {
        "ray": lambda: session.map(ready, flat),
        "with tasks": lambda: session.map(built, flat),
        "local": lambda: here.map(ready, flat),
        **{f"l2l {n}": lambda n=n: reference(workspace.learner, n) for n in counts},
        **{f"stock {n}": lambda n=n: reference(stock, n) for n in counts},
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 2):
        for name, act in ways.items():
            times[name].append(seconds(act))
    speed = {name: TASKS / statistics.median(all_times[2:]) for name, all_times in times.items()}
    best, plain = (max((n for n in speed if n.startswith(kind)), key=lambda n: speed[n]) for kind in ("l2l", "stock"))
    share = flops_of(workspace, tasks, flat) * speed["ray"] / TASKS / 1e9 / peak
    spec = study.experiment.learner
    shown = [f"{speed[name]:.1f}" for name in ("ray", "with tasks", "local")]
    shown += [f"{speed[name]:.1f} ({name.split()[1]})" for name in (best, plain)]
    pairs = (("ray", best), ("ray", plain), ("local", "l2l 1"))
    ratios = [f"{speed[ours] / speed[theirs]:.2f}" for ours, theirs in pairs]
    return [spec.kind, str(getattr(spec, "inner_steps", 0)), *shown, *ratios, f"{share:.0%}"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    peak = convolution_peak(os.cpu_count() or 1)
    head = ["learner", "inner steps", "ours, 2 workers", "with tasks", "ours, 1 thread"]
    head += ["learn2learn (its threads)", "in stock layers", "ratio", "to stock", "kernel", "of peak"]
    rows = [head, ["---"] * len(head)]
    with RayEngine(RayEngineSpec(kind="ray", workers=2)) as engine:
        for learner in ("fomaml", "maml"):
            rows += [measure(study_of(learner, steps), engine, options.rounds, peak) for steps in (1, 5)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    machine = f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}"
    text = f"{machine}; median of {options.rounds} interleaved rounds; tasks per second.\n\n{table}\n\n"
    text += f"Measured convolution peak: {peak:.0f} GFLOP/s on all cores.\n"
    print(text)
    if options.out is not None:
        options.out.write_text(f"# One outer step\n\n`python experiments/benchmarks/meta_step.py`\n\n{text}")


if __name__ == "__main__":
    main()

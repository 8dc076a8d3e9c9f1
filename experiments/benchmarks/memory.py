"""Measures the memory of driver and workers over many outer steps, and draws it.

Run:     python experiments/benchmarks/memory.py [--steps 2000] [--out experiments/results/memory.png]
Prints:  memory of driver and workers (anonymous pages: what a leak would grow; images and the object store are mapped)
         after a tenth, half and all of the steps, and the growth per 1,000 steps of the second half.

The driver keeps one row per step for the report and the checkpoint: that is its growth, some kilobytes per step.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

from metarestore.config.engine import RayEngineSpec
from metarestore.config.experiment import Experiment
from metarestore.engines.ray import RayEngine
from metarestore.project import resolve
from metarestore.training.log import LogRow, Observer
from metarestore.training.run import RunFolder, train
from metarestore.workspace.workspace import Workspace

EVERY = 20
EXPERIMENT = {
    "graph": {
        "target": "phone_camera",
        "auxiliary": ["bicubic", "blur_iso_wide", "noise_gaussian"],
        "estimator": {"kind": "response", "draws": 4},
    },
    "model": {"kind": "fsrcnn", "d": 8, "s": 4, "m": 1},
    "learner": {"kind": "fomaml"},
    "adaptation": {"shots": 4, "shot_size": 64},
    "evaluation": {"crop": 64, "crops": 1},
}
TRAINING = {"tasks_per_step": 4, "shard_size": 2, "support": 2, "query": 2, "patch": 32}


def megabytes(process: int | str) -> float:
    """Returns the anonymous resident memory of a process."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


class Watcher(Observer):
    """Notes the memory of driver and workers every few steps."""

    def __init__(self, workers: list[int]) -> None:
        self._workers = workers
        self.rows: list[list[float]] = []

    def step(self, row: LogRow) -> None:
        """Notes the memory."""
        if row.step % EVERY == 0:
            self.rows.append([row.step, megabytes("self"), *(megabytes(pid) for pid in self._workers)])


def draw(rows: np.ndarray, names: list[str], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    for name, column in zip(names, rows[:, 1:].T, strict=True):
        axes.plot(rows[:, 0], column, label=name)
    axes.set(xlabel="outer step", ylabel="anonymous memory, MB", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    training = {**TRAINING, "steps": options.steps, "checkpoint_every": 100, "validate_every": 100}
    study = resolve(Experiment.model_validate({**EXPERIMENT, "training": training}), Path(__file__).parents[2])
    with RayEngine(RayEngineSpec(kind="ray", workers=2)) as engine, tempfile.TemporaryDirectory() as folder:
        watcher = Watcher(engine.process_ids())
        run = RunFolder(Path(folder) / "run", study, resume=False)
        train(Workspace(study), run, engine.session(study), watcher)
    rows = np.asarray(watcher.rows)
    names = ["driver", "worker 1", "worker 2"]
    half = len(rows) // 2
    for name, column in zip(names, rows[:, 1:].T, strict=True):
        slope = 1000 * np.polyfit(rows[half:, 0], column[half:], 1)[0]
        tenth, middle, end = column[len(rows) // 10], column[half], column[-1]
        print(f"{name:<9} {tenth:7.1f} {middle:7.1f} {end:7.1f} MB   {slope:+.2f} MB per 1,000 steps")
    if options.out is not None:
        draw(rows, names, options.out)


if __name__ == "__main__":
    main()

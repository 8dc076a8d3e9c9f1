"""What estimating relations costs, against the training that it steers (the demo's, on one thread).

Every estimator is timed on the demo's study, once, as a training does it before its first step; then some steps of the
training are timed in the same process. The share counts one estimate and all of the demo's steps; the last column is
the number of steps from which on an estimate is less than 5% of a training.

Run:     python experiments/benchmarks/relation_cost.py
Results: experiments/results/relation_cost.md
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

from metarestore.config.overrides import parse_override
from metarestore.engines.local import LocalEngine
from metarestore.graphs.estimate import estimate
from metarestore.project import catalogue, read_experiment, resolve
from metarestore.training.log import Observer
from metarestore.training.run import RunFolder, train
from metarestore.workspace.process import prepare_process
from metarestore.workspace.workspace import Workspace

ESTIMATORS = (
    "{kind: response}",
    "{kind: descriptor}",
    "{kind: learned}",
    "{kind: gradient}",
    "{kind: transfer}",
)
LIMIT = 0.05


def opened(*overrides: str) -> Workspace:
    """Opens the demo's study with some values changed, and builds its target."""
    path = catalogue() / "experiments/demo.yaml"
    experiment = read_experiment(path, [parse_override(text) for text in ("engine={kind: local}", *overrides)])
    workspace = Workspace(resolve(experiment, catalogue()))
    workspace.open_all()
    return workspace


def seconds_of_estimate(estimator: str) -> float:
    """Times one estimate."""
    workspace = opened(f"graph.estimator={estimator}")
    session, flat = LocalEngine().session(workspace.study), workspace.initial()
    session.workspace.open_all()
    started = time.perf_counter()
    estimate(session.workspace, session.map, workspace.network(flat))
    return time.perf_counter() - started


def seconds_of_step(steps: int) -> float:
    """Times outer steps of the demo's pre-training, once they are warm."""
    found = []
    for count in (10, 10 + steps):
        workspace = opened(f"training.steps={count}", "graph.estimator={kind: uniform}")
        with tempfile.TemporaryDirectory() as folder:
            run = RunFolder(Path(folder) / "run", workspace.study, resume=False)
            found.append(train(workspace, run, LocalEngine().session(workspace.study), Observer()).state.seconds)
    return (found[1] - found[0]) / steps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    prepare_process()
    total = opened().experiment.training.steps
    step = seconds_of_step(options.steps)
    print(f"{platform.processor() or platform.machine()}, one thread: {step * 1e3:.0f} ms a step, {total} steps\n")
    print("| estimator | seconds | share of the demo's training | below 5% from so many steps |")
    print("| :-- | --: | --: | --: |")
    for estimator in ESTIMATORS:
        seconds = seconds_of_estimate(estimator)
        share = seconds / (seconds + total * step)
        print(
            f"| `{estimator}` | {seconds:.1f} | {share:.1%} | {seconds * (1 - LIMIT) / LIMIT / step:,.0f} |", flush=True
        )

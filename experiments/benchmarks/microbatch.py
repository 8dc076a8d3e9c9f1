"""Measures the peak memory of one shard against `training.microbatch`.

Run:     python experiments/benchmarks/microbatch.py [--tasks 32]
Prints:  peak resident memory of a process that computes one shard of MAML (3 inner steps, FSRCNN x4, 5 + 5 patches of
         16 x 16 LR), and its seconds, for the whole shard at once, halves, and so on; each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from metarestore.config.experiment import Experiment
from metarestore.project import resolve
from metarestore.workspace.process import prepare_process
from metarestore.workspace.refs import TaskRef
from metarestore.workspace.workspace import Workspace


def measure(tasks: int, microbatch: int) -> str:
    prepare_process()
    experiment = {
        "graph": {"target": "phone_camera", "auxiliary": ["bicubic"], "estimator": {"kind": "uniform"}},
        "learner": {"kind": "maml", "inner_steps": 3},
        "training": {"support": 5, "query": 5, "patch": 64, "microbatch": microbatch},
    }
    workspace = Workspace(resolve(Experiment.model_validate(experiment), Path(__file__).parents[2]))
    shard, flat = workspace.tasks([TaskRef("bicubic", 0, index) for index in range(tasks)]), workspace.initial()
    start = time.perf_counter()
    workspace.gradients(flat, shard)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{microbatch:>10} tasks at once: {peak:6.0f} MiB, {seconds:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--microbatch", type=int)
    options = parser.parse_args()
    if options.microbatch is not None:
        print(measure(options.tasks, options.microbatch))
        return
    size = options.tasks
    while size:
        command = [sys.executable, __file__, "--tasks", str(options.tasks), "--microbatch", str(size)]
        subprocess.run(command, check=True)
        size //= 2


if __name__ == "__main__":
    main()

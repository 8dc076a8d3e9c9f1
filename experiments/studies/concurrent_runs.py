"""Starts several trainings at once on a fresh project with one new SQLite store.

Run:     python experiments/studies/concurrent_runs.py [--runs 4]
Prints:  state and number of logged steps of every MLflow run; exits with 1 unless all are finished and complete.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mlflow.tracking import MlflowClient

STEPS = 40


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "metarestore", *arguments]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=4)
    count = parser.parse_args().runs
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        subprocess.run(command("init", str(project)), check=True, stdout=subprocess.DEVNULL)
        few = ["--set", f"training.steps={STEPS}", "--set", "training.checkpoint_every=5"]
        experiment = str(project / "experiments" / "first.yaml")
        runs = [
            subprocess.Popen(
                command("train", experiment, *few, "--set", f"seed={i}", "--out", str(project / f"run{i}")),
                stdout=subprocess.DEVNULL,
            )
            for i in range(count)
        ]
        codes = [run.wait() for run in runs]
        client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
        experiments = [found.experiment_id for found in client.search_experiments()]
        logged = [
            (run.info.status, len(client.get_metric_history(run.info.run_id, "loss")))
            for run in client.search_runs(experiments)
        ]
    print(f"exit codes {codes}; MLflow: {logged}")
    if any(codes) or logged != [("FINISHED", STEPS)] * count:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Kills workers and drivers at random moments, and compares the final weights byte by byte.

Run:     python experiments/studies/kill_test.py [--learner fomaml maml] [--out experiments/results/kill_test.md]
Prints:  a table of engines and kills with a digest of the final weights; one digest for each learner means success.
         Exits with 1 if any differs, or if MLflow holds a step twice or lacks one.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

STEPS, WORKER_KILLS, DRIVER_KILLS = 120, 20, 3
EXPERIMENT = """
seed: 3
graph:
  target: phone_camera
  auxiliary: [bicubic, blur_iso_wide, noise_gaussian]
  estimator: {{kind: response, draws: 4}}
model: {{kind: fsrcnn, d: 8, s: 4, m: 1}}
learner: {{kind: {learner}, inner_steps: 2}}
training:
  {{steps: {steps}, tasks_per_step: 6, shard_size: 2, support: 2, query: 2, patch: 32, checkpoint_every: 3, keep: 2}}
adaptation: {{shots: 4, shot_size: 64, steps: 2}}
evaluation: {{crop: 64, crops: 1}}
"""
ENGINES = {
    "local": ["engine.kind=local"],
    **{f"ray, {n}": ["engine.kind=ray", f"engine.workers={n}", "engine.max_restarts=-1"] for n in (1, 2, 3)},
}
ENGINES["ray, 3, tree"] = [*ENGINES["ray, 3"], "engine.reduction=tree"]


def start(project: Path, learner: str, engine: str, out: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "metarestore", "train", str(project / "experiments" / f"{learner}.yaml")]
    overrides = [part for setting in ENGINES[engine] for part in ("--set", setting)]
    command += [*overrides, "--out", str(out), *(["--resume"] if resume else [])]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def last_step(out: Path) -> int:
    return max((int(p.name.split(".")[0]) for p in (out / "checkpoints").glob("*.state.json")), default=0)


def workers_of(driver: int) -> list[int]:
    """Returns the process ids of the Ray actors of a driver."""
    parents, actors = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::Worker"):
                actors.append(int(folder.name))
    return [pid for pid in actors if parents.get(parents.get(pid, 0)) == driver]


def run(project: Path, learner: str, engine: str, out: Path) -> int:
    process = start(project, learner, engine, out, resume=False)
    if process.wait():
        raise SystemExit(f"{learner}, {engine}: exit code {process.returncode}")
    return 0


def run_killing_workers(project: Path, learner: str, engine: str, out: Path) -> int:
    """Kills a random worker every now and then, and returns how many were killed."""
    rng, process, killed = random.Random(0), start(project, learner, engine, out, resume=False), 0
    while process.poll() is None:
        time.sleep(rng.uniform(0.05, 0.5))
        found = workers_of(process.pid) if killed < WORKER_KILLS and last_step(out) else []
        if found:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.SIGKILL)
                killed += 1
    if process.returncode:
        raise SystemExit(f"{learner}, {engine}: exit code {process.returncode}")
    return killed


def run_killing_drivers(project: Path, learner: str, engine: str, out: Path) -> int:
    rng = random.Random(0)
    for kill in range(DRIVER_KILLS):
        process = start(project, learner, engine, out, resume=kill > 0)
        goal = (kill + 1) * STEPS // (DRIVER_KILLS + 2)
        while last_step(out) < goal and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            raise SystemExit(f"{learner}, {engine}: the driver ended before it was killed")
    if start(project, learner, engine, out, resume=True).wait():
        raise SystemExit(f"{learner}, {engine}: the resumed run failed")
    return DRIVER_KILLS


CASES: list[tuple[str, str, Callable[[Path, str, str, Path], int]]] = [
    *(("none", engine, run) for engine in ENGINES),
    ("workers", "ray, 3", run_killing_workers),
    ("workers", "ray, 3, tree", run_killing_workers),
    ("driver", "local", run_killing_drivers),
    ("driver", "ray, 2", run_killing_drivers),
]


def steps_in_mlflow(project: Path, out: Path) -> str:
    """Says whether MLflow has every step once."""
    import json  # noqa: PLC0415

    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    run_id = json.loads((out / "run.json").read_text())["notes"]["mlflow_run"]
    steps = [metric.step for metric in client.get_metric_history(run_id, "loss")]
    status = client.get_run(run_id).info.status
    return "each once" if steps == list(range(1, STEPS + 1)) and status == "FINISHED" else f"{len(steps)}, {status}"


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| learner | engine | killed | times | seconds | final weights (BLAKE2) | steps in MLflow |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--learner", nargs="+", choices=("fomaml", "maml"), default=["fomaml", "maml"])
    options = parser.parse_args()
    out = options.out
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        for name in ("tasks", "graphs", "experiments"):
            (project / name).mkdir()
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        for learner in options.learner:
            text = EXPERIMENT.format(learner=learner, steps=STEPS)
            (project / "experiments" / f"{learner}.yaml").write_text(text)
            for i, (what, engine, act) in enumerate(CASES):
                place = project / f"{learner}-{i}"
                started = time.monotonic()
                kills = act(project, learner, engine, place)
                digest = hashlib.blake2b((place / "model.safetensors").read_bytes(), digest_size=8).hexdigest()
                row = {"learner": learner, "engine": engine, "killed": what, "times": kills}
                row |= {"seconds": round(time.monotonic() - started), "weights": digest}
                rows.append(row | {"mlflow": steps_in_mlflow(project, place)})
                print(*rows[-1].values(), flush=True)
    same = all(len({row["weights"] for row in rows if row["learner"] == one}) == 1 for one in options.learner)
    good = same and all(row["mlflow"] == "each once" for row in rows)
    verdict = "All final weights are equal to the byte." if same else "THE FINAL WEIGHTS DIFFER."
    date, machine = datetime.date.today(), f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    command = "python experiments/studies/kill_test.py"
    text = f"`{command}`, {date}, {machine}, shared with other jobs.\n\n{table(rows)}\n{verdict}\n"
    print(text)
    if out is not None:
        out.write_text(f"# Killed and resumed\n\n{text}")
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

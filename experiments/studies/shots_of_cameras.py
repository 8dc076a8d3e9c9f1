"""How many pairs of a real camera are needed? The gain of adaptation over 1, 2, 3, 5 and 8 pairs of two cameras.

Pre-trains FSRCNN once, on synthetic blur, noise and cameras with equal weights; every number of pairs then adapts this
network with 100 Adam steps, for five choices of the pairs. What is finished is not run again.

The data are not part of this repository: DATA needs train/ with photographs and real_pairs/<camera>/{lr,hr} with
aligned x4 pairs (LR 128x128, HR 512x512), such as RealSR.

Run:     python experiments/studies/shots_of_cameras.py DATA --out runs/shots_of_cameras
Results: OUT/<camera>/shots.md, shots.json and learning_curve.png
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from links import link_photographs
from relation_ablation import TASK

POOLS = {"realsr_canon5d3": 16, "realsr_nikond810": 12}
"""Pairs that may be learned from: folds share fewer pairs of a larger pool, but fewer pairs are left to test on."""

EXPERIMENT = """\
# {title}
seed: 0
data: {{train: {train}}}
graph:
  target: {camera}
  auxiliary: [blur_iso_mild, blur_iso_wide, blur_aniso, blur_noise, noise_gaussian, noise_poisson, camera_dslr,
    phone_camera]
  estimator: {{kind: uniform}}
model: {{kind: fsrcnn, channels: y, d: 56, s: 12, m: 4}}
learner: {{kind: pretrain}}
training:
  steps: {steps}
  init: {init}
  tasks_per_step: 4
  shard_size: 4
  support: 1
  query: 1
  patch: 96
  optimizer: {{kind: adam, lr: 3e-3, schedule: cosine}}
  validate_every: 1000
adaptation: {{shots: 5, shot_size: 512, steps: {adaptation}, lr: 1e-3, schedule: cosine, patch: 96, batch: 8}}
evaluation: {{crop: 512, crops: 1}}
engine: {{kind: local}}
"""


def write_project(folder: Path, data: Path) -> None:
    """Writes the task files of the cameras; photographs that are too small are left out by links."""
    for name in ("tasks", "experiments"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    link_photographs(data / "train", folder / "train", 96)
    for camera, pool in POOLS.items():
        pairs = (data / "real_pairs" / camera).resolve()
        (folder / f"tasks/{camera}.yaml").write_text(TASK.format(pairs=pairs, pool=pool))


def write_experiment(folder: Path, name: str, camera: str, steps: int, init: Path | None, adaptation: int) -> Path:
    """Writes the pre-training, or the adaptation of the pre-trained network to one camera."""
    path = folder / f"experiments/{name}.yaml"
    text = EXPERIMENT.format(
        title=f"Adaptation to {camera}." if init else "Pre-training on synthetic blur, noise and cameras.",
        train=(folder / "train").resolve(),
        camera=camera,
        steps=steps,
        init=init.resolve() if init else "null",
        adaptation=adaptation,
    )
    path.write_text(text)
    return path


def metarestore(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "metarestore", *map(str, words)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/shots_of_cameras"))
    parser.add_argument("--camera", nargs="*", choices=POOLS, default=list(POOLS), help="all if left out")
    parser.add_argument("--steps", type=int, default=1000, help="of the pre-training")
    parser.add_argument("--adaptation-steps", type=int, default=100)
    parser.add_argument("--shots", default="1,2,3,5,8")
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    write_project(options.out, options.data)
    network = options.out / "pretrained"
    if not (network / "report.html").exists():
        pretraining = write_experiment(options.out, "pretrain", options.camera[0], options.steps, None, 0)
        resume = ["--resume"] if network.exists() else []
        metarestore("train", pretraining, "--out", network, *resume)
    for camera in options.camera:
        experiment = write_experiment(options.out, camera, camera, 0, network, options.adaptation_steps)
        resume = ["--resume"] if (options.out / camera / "grid.json").exists() else []
        sizes = ("--shots", options.shots, "--folds", options.folds)
        metarestore("shots", experiment, *sizes, "--out", options.out / camera, *resume)

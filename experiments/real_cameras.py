"""Adapts to real cameras from five aligned pairs each: a project folder per camera, then `metarestore compare`.

The data are not part of this repository: DATA needs train/ with photographs and real_pairs/<camera>/{lr,hr} with
aligned x4 pairs (LR 128x128, HR 512x512), such as RealSR or DRealSR.

Run:     python experiments/real_cameras.py DATA --out runs/real_cameras [--camera realsr_canon5d3 ...]
Results: experiments/results/real_cameras.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from metarestore.tasks.images import ImageSource, ImageStore

CAMERAS = ("realsr_canon5d3", "realsr_nikond810")

TASK = """\
# Real x4 pairs of one camera.
kind: pairs
scale: 4
lr: {pairs}/lr
hr: {pairs}/hr
support_pool: 5
"""

EXPERIMENT = """\
# Five real pairs of {camera}: the relation graph against uniform mixing, its inverse, and the pairs alone.
seed: {seed}
data: {{train: {train}}}
graph:
  target: {camera}
  auxiliary: [bicubic, blur_aniso, blur_iso_mild, blur_iso_wide, blur_jpeg, blur_noise, jpeg, noise_gaussian,
    noise_jpeg, noise_poisson]
  estimator: {{kind: response, draws: 20}}
  weights: {{rule: softmax, temperature: 0.5, acts_on: sampling}}
model: {{kind: fsrcnn, channels: y, d: 56, s: 12, m: 4}}
learner: {{kind: pretrain}}
training:
  steps: 2000
  tasks_per_step: 4
  shard_size: 2
  support: 1
  query: 1
  patch: 96
  optimizer: {{kind: adam, lr: 1e-3, schedule: cosine}}
adaptation: {{shots: 5, shot_size: 512, optimizer: adam, steps: 60, lr: 3e-4}}
evaluation: {{crop: 512, crops: 1}}
engine: {{kind: ray, workers: 2}}
arms:
  target_only: {{training: {{source: target}}}}
  pretrain_uniform: {{graph: {{estimator: {{kind: uniform}}}}}}
  pretrain_weighted: {{}}
  pretrain_transfer: {{graph: {{estimator: {{kind: transfer, steps: 150, adaptation_steps: 10, draws: 2}}}}}}
  pretrain_inverted: {{graph: {{estimator: {{kind: inverted}}}}}}
"""


def make_project(folder: Path, data: Path, camera: str, seed: int) -> Path:
    """Writes the project of one camera; training photographs that are smaller than a patch are left out by links."""
    for name in ("tasks", "experiments", "train"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    store = ImageStore.open(ImageSource.folder(data / "train"))
    files = ImageSource.folder(data / "train").files()
    for name in store.names:
        link = folder / "train" / files[name].name
        if min(store.size(name)) >= 96 and not link.exists():
            link.symlink_to(files[name].resolve())
    (folder / f"tasks/{camera}.yaml").write_text(TASK.format(pairs=(data / "real_pairs" / camera).resolve()))
    experiment = folder / f"experiments/{camera}.yaml"
    experiment.write_text(EXPERIMENT.format(camera=camera, seed=seed, train=(folder / "train").resolve()))
    return experiment


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/real_cameras"))
    parser.add_argument("--camera", nargs="*", default=CAMERAS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for camera in options.camera:
        folder = options.out / f"{camera}_seed{options.seed}"
        experiment = make_project(folder, options.data, camera, options.seed)
        run = ["compare", str(experiment), "--out", str(folder / "run"), "--json", str(folder / "results.json")]
        resume = ["--resume"] if (folder / "run/run.json").exists() else []
        subprocess.run([sys.executable, "-m", "metarestore", *run, *resume], check=True)

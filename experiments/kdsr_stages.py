"""Does an estimate of the degradation pay? KDSR's teacher, its student, and the same network without an embedding.

Each seed trains, on isotropic Gaussian blur (x4): a teacher; a student that starts from it; and a control, the same
restorer with one learned constant in place of the embedding, for as many steps as teacher and student have together
(two cosines as well, so that its restorer is updated as often as the student's). Measured on Gaussian8, every photograph
by every kernel. Everything can be stopped and started again; trainings that are finished are not repeated.

The data are not part of this repository: DATA needs train/ and valid/ with photographs.

Run:     python experiments/kdsr_stages.py DATA --out runs/kdsr_stages [--seeds 0 1 2] [--steps 5000]
         python experiments/kdsr_stages.py DATA --out runs/kdsr_stages --report experiments/results/kdsr_stages.md
Results: experiments/results/kdsr_stages.md
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metarestore.evaluation.folder import Restore, bicubic_restore, evaluate_folder
from metarestore.evaluation.protocol import case_labels, degradation, evaluate_protocol
from metarestore.evaluation.statistics import crossed_difference
from metarestore.models.checkpoint import load_model
from metarestore.models.restore import image_restorer, to_image, to_pixels
from metarestore.project import Project
from metarestore.tasks.images import ImageSource, ImageStore

SCALE, PROTOCOL, PATCH = 4, "gaussian8", 128
CROP = 32
"""LR pixels of the cropped estimate whose price is measured."""

TARGET = """\
# Photographs as soft as those of Gaussian8; only drawn for the figures of the runs themselves.
kind: synthetic
scale: 4
pipeline:
  - {op: gaussian_blur, size: 21, sigma: [1.8, 3.2]}
  - {op: downsample, method: bicubic}
"""

EXPERIMENT = """\
# One stage of the comparison.
seed: {seed}
data: {{train: {train}, test: {test}}}
graph: {{target: soft, auxiliary: [kdsr_iso], estimator: {{kind: uniform}}}}
model: {{kind: kdsr, size: {size}, estimator: {estimator}}}
learner: {learner}
training:
  steps: {steps}
  tasks_per_step: 4
  shard_size: 4
  support: 1
  query: 1
  patch: {patch}
  optimizer: {{kind: adam, lr: 1e-3, schedule: cosine, clip: 1.0}}
  validate_every: 1000
  checkpoint_every: 200
{init}adaptation: {{steps: 0, shots: 1}}
evaluation: {{crop: 192, crops: 1}}
engine: {{kind: local}}
"""


STAGES = ("teacher", "student", "control_first", "control")


def experiment_of(stage: str, folder: Path, data: Path, seed: int, size: str, steps: int) -> str:
    """Writes the experiment of one stage of a seed."""
    runs = (folder / f"seed{seed}").resolve()
    learner = {
        "student": f"{{kind: distill, teacher: {runs}/teacher}}",
        "control": "{kind: finetune}",
    }
    return EXPERIMENT.format(
        seed=seed,
        size=size,
        steps=steps,
        patch=PATCH,
        train=(folder / "train").resolve(),
        test=(data / "valid").resolve(),
        estimator="none" if stage.startswith("control") else stage,
        learner=learner.get(stage, "{kind: pretrain}"),
        init=f"  init: {runs}/control_first\n" if stage == "control" else "",
    )


def make_project(folder: Path, data: Path) -> None:
    """Makes the project's folder; training photographs that are smaller than a patch are left out."""
    for name in ("tasks", "experiments", "train"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    source = ImageSource.folder(data / "train")
    store, files = ImageStore.open(source), source.files()
    for name in store.names:
        link = folder / "train" / files[name].name
        if min(store.size(name)) >= PATCH and not link.exists():
            link.symlink_to(files[name].resolve())
    (folder / "tasks/soft.yaml").write_text(TARGET)


def train(folder: Path, data: Path, seed: int, size: str, steps: int) -> None:
    """Trains what is not trained yet of a seed."""
    for stage in STAGES:
        run = (folder / f"seed{seed}" / stage).resolve()
        if (run / "model.safetensors").exists():
            continue
        experiment = folder / f"experiments/seed{seed}_{stage}.yaml"
        experiment.write_text(experiment_of(stage, folder, data, seed, size, steps))
        command = [sys.executable, "-m", "metarestore", "train", str(experiment), "--out", str(run)]
        resume = ["--resume"] if (run / "run.json").exists() else []
        subprocess.run([*command, *resume], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/kdsr_stages"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args()
    make_project(options.out, options.data)
    for seed in options.seeds:
        train(options.out, options.data, seed, options.size, options.steps)

"""Trains initialisations for zero-shot adaptation: pre-training on blur kernels, then MAML on internal pairs.

`pretrained` restores photographs blurred by random kernels. `maml` continues from it: the inner steps learn from each
LR image and the same image degraded once more, the outer loss compares with HR. Both are networks for
`metarestore restore --adapt zero-shot --model`.

Everything can be stopped and started again: trainings that are finished are not repeated. The data are not part of this
repository: DATA needs train/ and valid/ with photographs.

Run:     python experiments/studies/zero_shot_networks.py DATA --out runs/zero_shot_networks
Results: OUT/x2/pretrained, OUT/x2/maml, and likewise for x4
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

EXPERIMENT = """\
seed: 0
scale: {scale}
data: {{train: {data}/train, test: {data}/valid}}
graph: {{target: blur_aniso, auxiliary: [mzsr, blur_iso_mild, bicubic], estimator: {{kind: uniform}}}}
model: {{kind: zero_shot}}
learner: {learner}
training: {training}
adaptation: {{steps: 0}}
evaluation: {{crop: 128, crops: 1}}
engine: {{kind: local}}
"""

PRETRAINING = """{{steps: {steps}, tasks_per_step: 4, shard_size: 4, support: 2, query: 2, patch: {patch}, ema: 0.999,
  optimizer: {{kind: adam, lr: 5e-4, schedule: cosine, clip: 1.0}}}}"""

MAML = """{{steps: {steps}, tasks_per_step: 4, shard_size: 2, support_set: internal, query: 1, patch: {patch},
  ema: 0.99, checkpoint_every: 100, init: {init}, optimizer: {{kind: adam, lr: 2e-4, schedule: cosine, clip: 1.0}}}}"""

STEPS = {"pretrained": {2: 3000, 4: 2500}, "maml": {2: 600, 4: 300}}
PATCHES = {"pretrained": {2: 64, 4: 96}, "maml": {2: 128, 4: 128}}
LEARNERS = {"pretrained": "{kind: pretrain}", "maml": "{kind: maml, inner_steps: 5, inner_lr: 0.3}"}


def train(data: Path, out: Path, scale: int, stage: str) -> None:
    """Trains a stage, unless it is trained already."""
    run = out / f"x{scale}" / stage
    if (run / "model.safetensors").exists():
        return
    training = PRETRAINING if stage == "pretrained" else MAML
    settings = {"steps": STEPS[stage][scale], "patch": PATCHES[stage][scale], "init": out / f"x{scale}/pretrained"}
    experiment = out / f"experiments/x{scale}_{stage}.yaml"
    text = EXPERIMENT.format(scale=scale, data=data, learner=LEARNERS[stage], training=training.format(**settings))
    experiment.write_text(text)
    resume = ["--resume"] if (run / "run.json").exists() else []
    command = [sys.executable, "-m", "metarestore", "train", str(experiment), "--out", str(run), *resume]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scales", type=int, nargs="+", choices=(2, 4), default=(2, 4))
    given = parser.parse_args()
    out = given.out.resolve()
    for name in ("tasks", "experiments"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for scale in given.scales:
        for stage in STEPS:
            train(given.data.resolve(), out, scale, stage)

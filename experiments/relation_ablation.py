"""Does the relation graph matter? All arms on real cameras and on held-back synthetic ones, five pairs each.

Writes a project with three grids, and runs them with `metarestore ablate`; what is finished is not run again:

cameras    two RealSR cameras, x4: the first five pairs by name are the shots, the others are tested on. Arms: all
           estimators and controls; pre-training on bicubic downsampling alone, adapted by Adam; a distribution fitted
           to the same five pairs, alone and as one more auxiliary one; and each auxiliary distribution alone, which
           is the measured transfer that relations should predict.
synthetic  the same on two synthetic cameras that are held back, with shots of 128x128 pixels.
fomaml     the arms of `cameras` with FOMAML in place of pre-training, on the first camera.

The data are not part of this repository: DATA needs train/ and valid/ with photographs and real_pairs/<camera>/{lr,hr}
with aligned x4 pairs (LR 128x128, HR 512x512), such as RealSR.

Run:     python experiments/relation_ablation.py DATA --out runs/relations [--grid cameras synthetic fomaml]
Results: experiments/results/relation_ablation.md, and experiments/transfer_gain.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from metarestore.project import Project, catalogue
from metarestore.tasks.images import ImageSource, ImageStore

CAMERAS = ("realsr_canon5d3", "realsr_nikond810")
SYNTHETIC = ("phone_camera", "camera_night")

AUXILIARY = Project(catalogue()).graph("phone_camera").auxiliary

TASK = """\
# Real x4 pairs of one camera.
kind: pairs
scale: 4
lr: {pairs}/lr
hr: {pairs}/hr
support_pool: 5
"""

EXPERIMENT = """\
# {title}
seed: 0
data: {{train: {train}, test: {test}}}
graph:
  target: {first}
  auxiliary: [{auxiliary}]
  estimator: {{kind: response, draws: 20, features: spectra}}
  weights: {{rule: softmax, temperature: 0.5, acts_on: sampling}}
model: {{kind: fsrcnn, channels: y, d: 56, s: 12, m: 4}}
learner: {{kind: pretrain}}
training:
  steps: {steps}
  tasks_per_step: 4
  shard_size: 4
  support: 1
  query: 1
  patch: 96
  optimizer: {{kind: adam, lr: 3e-3, schedule: cosine}}
adaptation:
  shots: 5
  shot_size: {size}
  optimizer: adam
  steps: 300
  lr: 2e-3
  schedule: cosine
  patch: 96
  batch: 8
evaluation: {{crop: {crop}, crops: 1, every: 1000}}
engine: {{kind: ray, workers: 2}}
grid:
  graph.target: [{targets}]
  learner: [{learner}]
  seed: [{seeds}]
grid_exclude: {exclude}
arms:
  target_only: {{training: {{source: target}}}}
  uniform: {{graph: {{estimator: {{kind: uniform}}}}}}
  uniform_balanced: {{graph: {{estimator: {{kind: uniform}}, weights: {{balance: ema}}}}}}
  random: {{graph: {{estimator: {{kind: random}}}}}}
  expert:
    graph:
      estimator: {{kind: expert}}
      edges:
        - {{from: blur_iso_wide, relation: 0.8}}
        - {{from: blur_aniso, relation: 0.6}}
        - {{from: blur_iso_mild, relation: 0.4}}
        - {{from: blur_jpeg, relation: 0.4}}
        - {{from: noise_gaussian, relation: -0.6}}
        - {{from: noise_poisson, relation: -0.6}}
  response: {{}}
  identification: {{graph: {{estimator: {{features: identification}}}}}}
  gradient: {{graph: {{estimator: {{kind: gradient, draws: 4, memory: 0.5}}, refresh: {refresh}}}}}
  descriptor: {{graph: {{estimator: {{kind: descriptor, draws: 20}}}}}}
  learned_frozen: {{graph: {{estimator: {{kind: learned}}}}}}
  learned_joint: {{graph: {{estimator: {{kind: learned, joint: true}}, refresh: {refresh}}}}}
  learned_without_memory: {{graph: {{estimator: {{kind: learned, memory: 0}}}}}}
  learned_without_messages: {{graph: {{estimator: {{kind: learned, message_passing: false}}}}}}
  transfer: {{graph: {{estimator: {{kind: transfer, steps: 100, adaptation_steps: 50, draws: 1}}}}}}
  inverted: {{graph: {{estimator: {{kind: inverted, of: {{kind: response, features: spectra}}}}}}}}
  best_single: {{graph: {{estimator: {{kind: best_single, of: {{kind: response, features: spectra}}}}}}}}
"""

SINGLE = "  only_{name}: {{graph: {{auxiliary: [{name}], estimator: {{kind: uniform}}}}}}\n"
FITTED = """\
  fitted_{camera}: {{graph: {{auxiliary: [{camera}_fitted], estimator: {{kind: uniform}}}}}}
  response_fitted_{camera}: {{graph: {{auxiliary: [{auxiliary}, {camera}_fitted]}}}}
"""


def make_project(folder: Path, data: Path) -> None:
    """Writes the task files; photographs that are too small are left out by links."""
    for name in ("tasks", "experiments"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    link_photographs(data / "train", folder / "train", 96)
    link_photographs(data / "valid", folder / "test", 256)
    for camera in CAMERAS:
        pairs = data / "real_pairs" / camera
        (folder / f"tasks/{camera}.yaml").write_text(TASK.format(pairs=pairs.resolve()))
        fitted = folder / f"tasks/{camera}_fitted.yaml"
        if fitted.exists():
            continue
        five = folder / "five" / camera
        for side in ("lr", "hr"):
            (five / side).mkdir(parents=True, exist_ok=True)
            for path in sorted((pairs / side).iterdir())[:5]:
                link(path, five / side / path.name)
        fit = ["tasks", "fit", "--pairs", str(five), "--out", str(fitted)]
        subprocess.run([sys.executable, "-m", "metarestore", *fit], check=True)


def link_photographs(source: Path, folder: Path, least: int) -> None:
    """Links the photographs that have at least `least` pixels on both sides."""
    folder.mkdir(exist_ok=True)
    files = ImageSource.folder(source).files()
    store = ImageStore.open(ImageSource.folder(source))
    for name in store.names:
        if min(store.size(name)) >= least:
            link(files[name], folder / files[name].name)


def link(source: Path, place: Path) -> None:
    """Makes a symbolic link, if there is none."""
    if not place.is_symlink():
        place.symlink_to(source.resolve())


def write_experiment(folder: Path, grid: str, steps: int, seeds: int) -> Path:
    """Writes the experiment of one grid."""
    targets, size, crop, learner = CAMERAS, 512, 512, "{kind: pretrain}"
    exclude = "[]"
    if grid == "synthetic":
        targets, size, crop = SYNTHETIC, 128, 256
    elif grid == "fomaml":
        targets, learner = CAMERAS[:1], "{kind: fomaml, inner_steps: 1, inner_lr: 1e-2}"
    arms = "" if grid == "fomaml" else "".join(SINGLE.format(name=name) for name in AUXILIARY)
    if grid != "synthetic":
        arms += "".join(FITTED.format(camera=camera, auxiliary=", ".join(AUXILIARY)) for camera in targets)
    if grid == "cameras":
        pairs = zip(targets, reversed(targets), strict=True)
        left_out = [f"{{arm: [fitted_{one}, response_fitted_{one}], graph.target: {other}}}" for one, other in pairs]
        exclude = f"[{', '.join(left_out)}]"
    text = EXPERIMENT.format(
        title={"cameras": "Real cameras.", "synthetic": "Synthetic cameras.", "fomaml": "FOMAML, one camera."}[grid],
        train=(folder / "train").resolve(),
        test=(folder / "test").resolve(),
        first=targets[0],
        auxiliary=", ".join(AUXILIARY),
        steps=steps,
        size=size,
        crop=crop,
        targets=", ".join(targets),
        learner=learner,
        seeds=", ".join(map(str, range(seeds))),
        exclude=exclude,
        refresh=max(steps // 3, 1),
    )
    path = folder / f"experiments/{grid}.yaml"
    path.write_text(text + arms)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/relations"))
    parser.add_argument("--grid", nargs="*", default=("cameras", "synthetic", "fomaml"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    make_project(options.out, options.data)
    for grid in options.grid:
        experiment = write_experiment(options.out, grid, options.steps, options.seeds)
        run = ["ablate", str(experiment), "--against", "uniform_balanced", "--out", str(options.out / grid)]
        resume = ["--resume"] if (options.out / grid / "grid.json").exists() else []
        subprocess.run([sys.executable, "-m", "metarestore", *run, *resume], check=True)

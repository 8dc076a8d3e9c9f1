"""Does the relation graph matter? All arms on real cameras and on held-back synthetic ones, five pairs each.

Writes a project with three grids, and runs them with `metarestore ablate`; what is finished is not run again:

cameras    two RealSR cameras, x4: the first five pairs by name are the shots, the others are tested on. Arms: all
           estimators and controls; pre-training on bicubic downsampling alone, adapted by Adam; a distribution fitted
           to the same five pairs, alone and as one more auxiliary one; and each auxiliary distribution alone, which
           is the measured transfer that relations should predict.
synthetic  the same on two synthetic cameras that are held back, with shots of 128x128 pixels.
fomaml     the arms of `cameras` with FOMAML in place of pre-training, on the first camera.
longer     the arms that matter most, with 2,000 steps, and arms that learn from the five pairs in every step as well
           (one task of four); each restores as usual and in eight orientations (self-ensemble). Of the fitted
           distribution as one more auxiliary one there is a control with uniform weights.
shots      1, 5 and 10 pairs of each camera, tested on the pairs after the tenth.

The data are not part of this repository: DATA needs train/ and valid/ with photographs and real_pairs/<camera>/{lr,hr}
with aligned x4 pairs (LR 128x128, HR 512x512), such as RealSR.

Run:     python experiments/studies/relation_ablation.py DATA --out runs/relations [--grid cameras ...]
Results: experiments/results/relation_ablation.md, and what it names; experiments/studies/transfer_gain.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from links import link, link_photographs

from metarestore.project import Project, catalogue

TEN = "_ten"
"""How targets are called whose first ten pairs may be learned from."""

CAMERAS = ("realsr_canon5d3", "realsr_nikond810")
SYNTHETIC = ("phone_camera", "camera_night")

AUXILIARY = Project(catalogue()).graph("phone_camera").auxiliary

TASK = """\
# Real x4 pairs of one camera.
kind: pairs
scale: 4
lr: {pairs}/lr
hr: {pairs}/hr
support_pool: {pool}
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
  {axis}
  seed: [{seeds}]
grid_exclude: {exclude}
arms:
"""

ARMS = {
    "target_only": "training: {source: target}",
    "uniform": "graph: {estimator: {kind: uniform}}",
    "uniform_balanced": "graph: {estimator: {kind: uniform}, weights: {balance: ema}}",
    "random": "graph: {estimator: {kind: random}}",
    "expert": "graph: {estimator: {kind: expert}, edges: [{from: blur_iso_wide, relation: 0.8}, "
    "{from: blur_aniso, relation: 0.6}, {from: blur_iso_mild, relation: 0.4}, {from: blur_jpeg, relation: 0.4}, "
    "{from: noise_gaussian, relation: -0.6}, {from: noise_poisson, relation: -0.6}]}",
    "response": "",
    "identification": "graph: {estimator: {features: identification}}",
    "gradient": "graph: {estimator: {kind: gradient, draws: 4, memory: 0.5}, refresh: REFRESH}",
    "descriptor": "graph: {estimator: {kind: descriptor, draws: 20}}",
    "learned_frozen": "graph: {estimator: {kind: learned}}",
    "learned_joint": "graph: {estimator: {kind: learned, joint: true}, refresh: REFRESH}",
    "learned_without_memory": "graph: {estimator: {kind: learned, memory: 0}}",
    "learned_without_messages": "graph: {estimator: {kind: learned, message_passing: false}}",
    "transfer": "graph: {estimator: {kind: transfer, steps: 100, adaptation_steps: 50, draws: 1}}",
    "inverted": "graph: {estimator: {kind: inverted, of: {kind: response, features: spectra}}}",
    "best_single": "graph: {estimator: {kind: best_single, of: {kind: response, features: spectra}}}",
}
"""Who decides what is learned from."""

CONTENDERS = (
    *("target_only", "uniform", "uniform_balanced", "random", "inverted", "expert", "response", "transfer"),
    *("descriptor", "best_single"),
)
SHOTS = "training: {shot_tasks: 1}"

Arms = dict[str, str]


def evenly(*names: str) -> str:
    """Learns from some distributions alone, from all of them equally."""
    return f"graph: {{auxiliary: [{', '.join(names)}], estimator: {{kind: uniform}}}}"


def fitted(camera: str) -> Arms:
    """Learns from the distribution fitted to a camera's pairs, alone and as one more auxiliary one."""
    return {
        f"fitted_{camera}": evenly(f"{camera}_fitted"),
        f"response_fitted_{camera}": f"graph: {{auxiliary: [{', '.join(AUXILIARY)}, {camera}_fitted]}}",
    }


def with_shots(arms: Arms) -> Arms:
    """Learns from the shots in every step as well."""
    return {f"{name}_shots": ", ".join(filter(None, (arm, SHOTS))) for name, arm in arms.items()}


@dataclass(frozen=True)
class Grid:
    """One experiment.

    Attributes:
        title: What it is.
        targets: Held-back cameras.
        arms: All arms; those whose name ends with a camera (and `_shots`) are for it alone.
        steps: Outer steps.
        size: Side of a shot, HR pixels.
        crop: Side of a test crop, HR pixels.
        axis: An axis of the grid beside targets and seeds.
    """

    title: str
    targets: tuple[str, ...]
    arms: Arms
    steps: int = 600
    size: int = 512
    crop: int = 512
    axis: str = "learner: [{kind: pretrain}]"


SINGLES = {f"only_{name}": evenly(name) for name in AUXILIARY}
FITTED = {name: arm for camera in CAMERAS for name, arm in fitted(camera).items()}
UNIFORM_FITTED = {f"uniform_fitted_{camera}": evenly(*AUXILIARY, f"{camera}_fitted") for camera in CAMERAS}
MIXED = {name: ARMS[name] for name in ("uniform", "response", "best_single")}

GRIDS = {
    "cameras": Grid("Real cameras.", CAMERAS, ARMS | SINGLES | FITTED),
    "synthetic": Grid("Synthetic cameras.", SYNTHETIC, ARMS | SINGLES, size=128, crop=256),
    "fomaml": Grid(
        "FOMAML, one camera.",
        CAMERAS[:1],
        ARMS | fitted(CAMERAS[0]),
        axis="learner: [{kind: fomaml, inner_steps: 1, inner_lr: 1e-2}]",
    ),
    "longer": Grid(
        "Real cameras, longer trainings.",
        CAMERAS,
        {name: ARMS[name] for name in CONTENDERS}
        | {"only_bicubic": SINGLES["only_bicubic"]}
        | FITTED
        | UNIFORM_FITTED
        | with_shots(MIXED | FITTED | UNIFORM_FITTED),
        steps=2000,
        axis="evaluation.self_ensemble: [false, true]",
    ),
    "shots": Grid(
        "Real cameras, more and fewer pairs.",
        tuple(camera + TEN for camera in CAMERAS),
        {name: ARMS[name] for name in ("target_only", "uniform", "response")} | with_shots({"response": ""}),
        steps=1000,
        axis="adaptation.shots: [1, 5, 10]\n  evaluation.self_ensemble: [true]",
    ),
}


def make_project(folder: Path, data: Path) -> None:
    """Writes the task files; photographs that are too small are left out by links."""
    for name in ("tasks", "experiments"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    link_photographs(data / "train", folder / "train", 96)
    link_photographs(data / "valid", folder / "test", 256)
    for camera in CAMERAS:
        pairs = data / "real_pairs" / camera
        for name, pool in ((camera, 5), (camera + TEN, 10)):
            (folder / f"tasks/{name}.yaml").write_text(TASK.format(pairs=pairs.resolve(), pool=pool))
        twin = folder / f"tasks/{camera}_fitted.yaml"
        if twin.exists():
            continue
        five = folder / "five" / camera
        for side in ("lr", "hr"):
            (five / side).mkdir(parents=True, exist_ok=True)
            for path in sorted((pairs / side).iterdir())[:5]:
                link(path, five / side / path.name)
        fit = ["tasks", "fit", "--pairs", str(five), "--out", str(twin)]
        subprocess.run([sys.executable, "-m", "metarestore", *fit], check=True)


def write_experiment(folder: Path, name: str, steps: int | None, seeds: int) -> Path:
    """Writes the experiment of one grid."""
    grid = GRIDS[name]
    steps = steps or grid.steps
    left_out = []
    for camera in grid.targets:
        own = [arm for arm in grid.arms if camera in arm]
        others = [other for other in grid.targets if other != camera]
        if own and others:
            left_out.append(f"{{arm: [{', '.join(own)}], graph.target: [{', '.join(others)}]}}")
    text = EXPERIMENT.format(
        title=grid.title,
        train=(folder / "train").resolve(),
        test=(folder / "test").resolve(),
        first=grid.targets[0],
        auxiliary=", ".join(AUXILIARY),
        steps=steps,
        size=grid.size,
        crop=grid.crop,
        targets=", ".join(grid.targets),
        axis=grid.axis,
        seeds=", ".join(map(str, range(seeds))),
        exclude=f"[{', '.join(left_out)}]",
    )
    refresh = str(max(steps // 3, 1))
    arms = [f"  {arm}: {{{patch.replace('REFRESH', refresh)}}}\n" for arm, patch in grid.arms.items()]
    path = folder / f"experiments/{name}.yaml"
    path.write_text(text + "".join(arms))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/relations"))
    parser.add_argument("--grid", nargs="*", choices=GRIDS, default=list(GRIDS), help="all if left out")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    make_project(options.out, options.data)
    for grid in options.grid:
        experiment = write_experiment(options.out, grid, options.steps, options.seeds)
        reference = "uniform_balanced" if "uniform_balanced" in GRIDS[grid].arms else "uniform"
        run = ["ablate", str(experiment), "--against", reference, "--out", str(options.out / grid)]
        resume = ["--resume"] if (options.out / grid / "grid.json").exists() else []
        subprocess.run([sys.executable, "-m", "metarestore", *run, *resume], check=True)

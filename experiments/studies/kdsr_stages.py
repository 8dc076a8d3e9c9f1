"""Trains KDSR in stages, on isotropic blur or on a mixture of degradations (x4).

isotropic  `base`, the restorer with a constant for an embedding; then `teacher` from it, and `student` from that; and
           `control`, from `base` as well, for as many steps as teacher and student have together, in as many cosines
           (its restorer learns while their estimators warm up, too). Measured by kdsr_restoration.py.
mixed      on 16 kinds of degradation: `base`; then `estimator`, a student's, which learns from the contrast alone,
           without a teacher; and `student`, both together. Measured by kdsr_descriptors.py.
pairs      on 20 kinds of degradation: `estimator`, a teacher's, which sees LR and HR and learns from the contrast
           alone, to describe pairs for the relation estimator `descriptor`; its restorer is never trained and restores
           nothing. It starts (`start`) by seeing LR less the HR image in little. Measured by planted_relations.py.

Everything can be stopped and started again: trainings that are finished are not repeated. The data are not part of this
repository: DATA needs train/ and valid/ with photographs.

Run:     python experiments/studies/kdsr_stages.py DATA --study isotropic --out runs/kdsr_isotropic --seeds 0 1 2
         python experiments/studies/kdsr_stages.py DATA --study mixed --out runs/kdsr_mixed --seeds 0
         python experiments/studies/kdsr_stages.py DATA --study pairs --out runs/kdsr_pairs --seeds 0
Results: experiments/results/kdsr_restoration.md, experiments/results/kdsr_descriptors.md,
         experiments/results/planted_relations.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from metarestore.config.model import KDSRSpec
from metarestore.models.build import build_model
from metarestore.models.checkpoint import save_model
from metarestore.models.kdsr import KDSR, SIZES, SizeName
from metarestore.models.kdsr_start import shrink
from metarestore.models.parameters import initial_vector
from metarestore.tasks.images import ImageSource, ImageStore

SCALE = 4

START = "start"
"""Stage that is not trained: initial weights of a teacher that compares LR with HR from the start."""

AMPLIFIED = 2.4
"""Factor on the initial weights of each layer of that teacher."""

LEAST = 128
"""Side of the smallest photograph that is learned from, in pixels."""

TARGET = """\
# Soft photographs; only drawn for the figures of the runs themselves.
kind: synthetic
scale: 4
pipeline:
  - {op: gaussian_blur, size: 21, sigma: [1.8, 3.2]}
  - {op: downsample, method: bicubic}
"""

EXPERIMENT = """\
# One stage.
seed: {seed}
data: {{train: {train}, test: {test}}}
graph: {{target: soft, auxiliary: [{auxiliary}], estimator: {{kind: uniform}}}}
model: {{kind: kdsr, size: {size}, estimator: {estimator}}}
learner: {{{learner}}}
training:
  steps: {steps}
  tasks_per_step: {tasks}
  shard_size: {tasks}
  support: {half}
  query: {half}
  patch: {patch}
  optimizer: {{kind: adam, lr: 1e-3, schedule: cosine, clip: 1.0}}
  validate_every: 1000
  checkpoint_every: 200
{init}adaptation: {{steps: 0, shots: 1}}
evaluation: {{crop: 192, crops: 1}}
engine: {{kind: local}}
"""


@dataclass(frozen=True)
class Stage:
    """One training of a seed.

    Attributes:
        estimator: Of the network.
        init: Stage that it starts from, if any.
        teacher: Stage that it is taught by and starts from, if any.
        contrast: How embeddings are contrasted, and how long at first the estimator learns alone.
        steps: Outer steps.
    """

    estimator: str
    init: str = ""
    teacher: str = ""
    contrast: str = ""
    steps: int = 2000


@dataclass(frozen=True)
class Study:
    """What is learned from, and in which stages.

    Attributes:
        auxiliary: Task distributions.
        tasks: Tasks of a step.
        patches: Patches of each task, half of them support.
        patch: Side of an HR patch, in pixels.
        stages: The trainings by name, in their order.
    """

    auxiliary: tuple[str, ...]
    tasks: int
    patches: int
    patch: int
    stages: Mapping[str, Stage]


MIXTURE = (
    *(
        "bicubic",
        "blur_aniso",
        "blur_defocus",
        "blur_iso_mild",
        "blur_iso_wide",
        "blur_jpeg",
        "blur_motion",
        "blur_noise",
    ),
    *("jpeg", "noise_gaussian", "noise_gray", "noise_jpeg", "noise_poisson", "noise_sensor", "noise_speckle", "webp"),
)

CONTRAST = "contrast: {}, warmup_steps: 200"

STUDIES = {
    "isotropic": Study(
        ("kdsr_iso",),
        tasks=4,
        patches=2,
        patch=128,
        stages={
            "base": Stage("none", steps=2500),
            "teacher": Stage("teacher", "base", contrast=CONTRAST),
            "student": Stage("student", teacher="teacher", contrast=CONTRAST, steps=1000),
            "control_first": Stage("none", "base"),
            "control": Stage("none", "control_first", steps=1000),
        },
    ),
    "mixed": Study(
        MIXTURE,
        tasks=8,
        patches=2,
        patch=128,
        stages={
            "base": Stage("none"),
            "estimator": Stage("student", "base", contrast="contrast: {}, warmup_steps: 4000", steps=4000),
            "student": Stage("student", "estimator", contrast="contrast: {}", steps=800),
        },
    ),
    "pairs": Study(
        (*MIXTURE, "camera_dslr", "camera_night", "old_photo", "ringing"),
        tasks=8,
        patches=2,
        patch=96,
        stages={"estimator": Stage("teacher", START, contrast="contrast: {}, warmup_steps: 5000", steps=5000)},
    ),
}


def experiment_of(name: str, study: Study, folder: Path, data: Path, seed: int, size: str) -> str:
    """Writes the experiment of one stage of a seed."""
    runs, stage = (folder / f"seed{seed}").resolve(), study.stages[name]
    learner = f"kind: distill, teacher: {runs}/{stage.teacher}" if stage.teacher else "kind: pretrain"
    return EXPERIMENT.format(
        seed=seed,
        size=size,
        steps=stage.steps,
        tasks=study.tasks,
        half=study.patches // 2,
        patch=study.patch,
        train=(folder / "train").resolve(),
        test=(data / "valid").resolve(),
        auxiliary=", ".join(study.auxiliary),
        estimator=stage.estimator,
        learner=", ".join(filter(None, (learner, stage.contrast))),
        init=f"  init: {runs}/{stage.init}\n" if stage.init else "",
    )


def write_start(run: Path, size: SizeName, seed: int) -> None:
    """Writes initial weights of a teacher whose first filters see LR less HR averaged over each LR pixel.

    What they see is then mostly what was done to the image; from weights by chance, the image itself hides it. It is
    little, so all layers that are not residual amplify it: D′ starts about as large as the contrast keeps it.
    """
    spec = KDSRSpec(kind="kdsr", size=size, estimator="teacher")
    network = build_model(spec, SCALE, seed)
    assert isinstance(network, KDSR)
    assert network.estimator is not None
    estimator = network.estimator
    first = estimator.body[0].get_parameter("weight")
    chain = [layer for layer in (*estimator.body, *estimator.mix) if isinstance(layer, nn.Conv2d | nn.Linear)]
    shrink(chain, AMPLIFIED)
    with torch.no_grad():
        own = first[:, :3]
        first[:, 3:] = -(own / SCALE**2).repeat_interleave(SCALE**2, dim=1)  # HR planes come colour by colour
    save_model(run / "model.safetensors", spec, SCALE, initial_vector(network))


def make_project(folder: Path, data: Path) -> None:
    """Makes the project's folder; training photographs that are smaller than `LEAST` are left out."""
    for name in ("tasks", "experiments", "train"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    source = ImageSource.folder(data / "train")
    store, files = ImageStore.open(source), source.files()
    for name in store.names:
        link = folder / "train" / files[name].name
        if min(store.size(name)) >= LEAST and not link.exists():
            link.symlink_to(files[name].resolve())
    (folder / "tasks/soft.yaml").write_text(TARGET)


def train(study: Study, folder: Path, data: Path, seed: int, size: SizeName) -> None:
    """Trains what is not trained yet of a seed."""
    for stage in study.stages:
        run = (folder / f"seed{seed}" / stage).resolve()
        if (run / "model.safetensors").exists():
            continue
        if study.stages[stage].init == START:
            write_start(run.parent / START, size, seed)
        experiment = folder / f"experiments/seed{seed}_{stage}.yaml"
        experiment.write_text(experiment_of(stage, study, folder, data, seed, size))
        command = [sys.executable, "-m", "metarestore", "train", str(experiment), "--out", str(run)]
        resume = ["--resume"] if (run / "run.json").exists() else []
        subprocess.run([*command, *resume], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--study", choices=STUDIES, default="isotropic")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    options = parser.parse_args()
    make_project(options.out, options.data)
    for seed in options.seeds:
        train(STUDIES[options.study], options.out, options.data, seed, options.size)

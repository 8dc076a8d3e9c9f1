"""Trains PISR students in stages on bicubic downsampling, and measures what the teacher adds.

For each scale: `teacher`, which encodes HR; then, for each seed, three students for equally many steps: `alone`, from
initial weights of its own; `initialised`, which starts as the teacher's decoder and learns from images alone; and
`pisr`, which starts likewise and learns the teacher's features too. `longer`, for the first seed only, is `alone` with
the teacher's steps in addition: the control for what the decoder has learned before. All are measured on the
photographs of DATA/valid (PSNR-Y of whole photographs, bicubic downsampling), and compared over photographs and seeds.

Everything can be stopped and started again: trainings that are finished are not repeated. The data are not part of this
repository: DATA needs train/ and valid/ with photographs.

Run:     python experiments/studies/pisr.py DATA --out runs/pisr
Results: OUT/pisr.md and OUT/pisr.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from links import link_photographs
from numpy.typing import NDArray

from metarestore.evaluation.folder import bicubic_restore, evaluate_folder
from metarestore.evaluation.statistics import crossed_difference, paired_difference
from metarestore.models.checkpoint import load_model
from metarestore.models.restore import image_restorer
from metarestore.training.state import last_data
from metarestore.workspace.process import prepare_process

Floats = NDArray[np.float64]

SIDE, BATCH = 32, 8
"""Side of an LR patch, in pixels, and patches of a step."""

LEAST = 128
"""Side of the smallest photograph that is learned from, in pixels: a patch at x4."""


@dataclass(frozen=True)
class Student:
    """A student's network.

    Attributes:
        model: Its section of an experiment.
        layer: The feature that it learns.
    """

    model: str
    layer: str


STUDENTS = {
    "fsrcnn": Student("{kind: fsrcnn, residual: none, prelu: per_layer}", "expanding"),
    "fsrcnn_bicubic": Student("{kind: fsrcnn}", "expanding"),
    "superultracompact": Student("{kind: compact, size: superultracompact}", "last"),
    "ecbsr": Student("{kind: ecbsr}", "last"),
}

TEACHER, ARMS = "teacher", ("alone", "initialised", "pisr", "longer")

COMPARISONS = (("pisr", "alone"), ("pisr", "longer"), ("initialised", "alone"), ("pisr", "initialised"))

SEEDS = {4: (0, 1, 2), 2: (0,), 3: (0,)}
"""Seeds of each scale, in the order of training, if none are given."""

STEPS = {2: 5000, 3: 5000, 4: 20000}
"""Steps of every student at each scale, if none are given."""

TEACHER_STEPS = 10000
"""Steps of the teacher, at most as many as those of a student."""

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
scale: {scale}
data: {{train: {folder}/train, validation: {folder}/valid, test: {data}}}
graph: {{target: soft, auxiliary: [bicubic], estimator: {{kind: uniform}}}}
model: {model}
learner: {learner}
training:
  steps: {steps}
  tasks_per_step: 1
  shard_size: 1
  support: {half}
  query: {half}
  patch: {patch}
  optimizer: {{kind: adam, lr: 1e-3, schedule: cosine, min_lr: 1e-5, clip: 1.0}}
  validate_every: 500
  checkpoint_every: 1000
adaptation: {{steps: 0, shots: 1}}
evaluation: {{crop: {crop}, crops: 1}}
engine: {{kind: local}}
"""


@dataclass(frozen=True)
class Options:
    """What is trained.

    Attributes:
        data: Folder with train/ and valid/.
        out: The project's folder.
        student: The students' network.
        steps: Steps of every student, if not those of `STEPS`.
        teacher_steps: Steps of the teacher, if not those of `TEACHER_STEPS`.
        imitation: Weight of the teacher's imitation of LR.
        loss: Loss of features.
        weight: Its weight.
        arms: The students that are trained.
    """

    data: Path
    out: Path
    student: str
    steps: int | None
    teacher_steps: int | None
    imitation: float
    loss: str
    weight: float
    arms: Sequence[str]

    @property
    def stages(self) -> tuple[str, ...]:
        """All trainings, the teacher first if a student needs it."""
        return (*((TEACHER,) if {"initialised", "pisr"} & {*self.arms} else ()), *self.arms)

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """Pairs of students that are compared."""
        return [pair for pair in COMPARISONS if {*pair} <= {*self.arms}]

    def run(self, scale: int, seed: int, stage: str) -> Path:
        """Returns the folder of a training; all seeds share one teacher."""
        folder = self.out / self.student / f"x{scale}"
        return (folder / stage if stage == TEACHER else folder / f"seed{seed}" / stage).resolve()

    def length(self, scale: int, stage: str) -> int:
        """Returns the number of steps of a training."""
        student = self.steps or STEPS[scale]
        teacher = self.teacher_steps or min(student, TEACHER_STEPS)
        return {TEACHER: teacher, "longer": student + teacher}.get(stage, student)


def experiment_of(options: Options, scale: int, seed: int, stage: str) -> str:
    """Writes the experiment of one stage."""
    student = STUDENTS[options.student]
    distilled = (
        f"{{kind: pretrain, distillation: {{teacher: {options.run(scale, seed, TEACHER)}, layers: [{student.layer}], "
        f"loss: {options.loss}, weight: {{weight}}}}}}"
    )
    learners = {
        TEACHER: f"{{kind: pretrain, imitation: {options.imitation}}}",
        "alone": "{kind: pretrain}",
        "longer": "{kind: pretrain}",
        "initialised": distilled.replace("{weight}", "0"),
        "pisr": distilled.replace("{weight}", str(options.weight)),
    }
    return EXPERIMENT.format(
        seed=seed,
        scale=scale,
        folder=options.out.resolve(),
        data=(options.data / "valid").resolve(),
        model=f"{{kind: pisr_teacher, decoder: {student.model}}}" if stage == TEACHER else student.model,
        learner=learners[stage],
        steps=options.length(scale, stage),
        half=BATCH // 2,
        patch=SIDE * scale,
        crop=48 * scale,
    )


def make_project(options: Options) -> None:
    """Makes the project's folder, with links to the photographs; those smaller than `LEAST` are left out."""
    for name in ("tasks", "experiments"):
        (options.out / name).mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid"):
        link_photographs(options.data / split, options.out / split, LEAST)
    (options.out / "tasks/soft.yaml").write_text(TARGET)


def seeds_of(stage: str, seeds: Sequence[int]) -> Sequence[int]:
    """Returns the seeds with which a stage is trained."""
    return seeds[:1] if stage in (TEACHER, "longer") else seeds


def train(options: Options, scale: int, seed: int, stage: str) -> None:
    """Trains a stage, unless it is trained already."""
    run = options.run(scale, seed, stage)
    if (run / "model.safetensors").exists():
        return
    experiment = options.out / f"experiments/{options.student}_x{scale}_seed{seed}_{stage}.yaml"
    experiment.write_text(experiment_of(options, scale, seed, stage))
    command = [sys.executable, "-m", "metarestore", "train", str(experiment), "--out", str(run)]
    resume = ["--resume"] if (run / "run.json").exists() else []
    subprocess.run([*command, *resume], check=True)


def measure(options: Options, scale: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Measures bicubic upscaling and all students of a scale, and reads their logs and the teacher's."""
    folder = options.data / "valid"
    bicubic = evaluate_folder(folder, scale, bicubic_restore(scale))
    psnr: dict[str, list[list[float]]] = {}
    curves: dict[str, list[list[list[float]]]] = {}
    seconds: dict[str, list[float]] = {}
    for stage in options.stages:
        for seed in seeds_of(stage, seeds):
            run = options.run(scale, seed, stage)
            log = last_data(run)
            seconds.setdefault(stage, []).append(log["seconds"] / max(log["step"], 1))
            curves.setdefault(stage, []).append(log["validation"])
            if stage != TEACHER:
                report = evaluate_folder(folder, scale, image_restorer(load_model(run)))
                psnr.setdefault(stage, []).append([report.images[name]["psnr_y"] for name in bicubic.images])
    return {
        "photographs": list(bicubic.images),
        "bicubic": [figures["psnr_y"] for figures in bicubic.images.values()],
        "seeds": list(seeds),
        "steps": {stage: options.length(scale, stage) for stage in options.stages},
        "psnr_y": psnr,
        "curves": curves,
        "seconds_per_step": seconds,
    }


PAGE = """\
# PISR on bicubic downsampling

Student `{student}`, batches of {batch} patches of {side}x{side} LR pixels; loss `{loss}` of weight {weight:g},
imitation {imitation:g}. One teacher per scale. PSNR-Y in dB on the {count} photographs of valid/; gains with their 95%
interval over photographs and seeds (over photographs alone where there is one seed). `longer` is `alone` with the
teacher's steps in addition, for one seed.

| scale | steps (teacher) | seeds | bicubic | {header} |
| --- | --- | --- | --- | {dashes} |
{rows}

Minutes of a training: {minutes}.

Command: `{command}`; {date}, 2 cores, one thread per training.

Learning curves (validation patches of the first seed, dB):

{curves}
"""


def page(options: Options, found: Mapping[int, Mapping[str, Any]]) -> str:
    """Writes the page of all scales that were measured."""
    return PAGE.format(
        student=options.student,
        batch=BATCH,
        side=SIDE,
        loss=options.loss,
        weight=options.weight,
        imitation=options.imitation,
        count=len(next(iter(found.values()))["photographs"]),
        header=" | ".join([*options.arms, *(f"{arm} - {other}" for arm, other in options.comparisons)]),
        dashes=" | ".join("---" for _ in (*options.arms, *options.comparisons)),
        minutes="; ".join(f"x{scale} {minutes(one)}" for scale, one in found.items()),
        command=f"python {' '.join(sys.argv)}",
        date=datetime.datetime.now(datetime.UTC).date(),
        rows="\n".join(row(options, scale, one) for scale, one in found.items()),
        curves="\n\n".join(curve_table(options, scale, one) for scale, one in found.items()),
    )


def row(options: Options, scale: int, found: Mapping[str, Any]) -> str:
    """Writes the row of a scale."""
    psnr = {arm: np.asarray(found["psnr_y"][arm]) for arm in options.arms}
    means = [f"{psnr[arm].mean():.3f}" for arm in options.arms]
    gains = [gain(psnr[a], psnr[b]) for a, b in options.comparisons]
    bicubic, steps = f"{np.mean(found['bicubic']):.3f}", found["steps"]
    taught = f" ({steps[TEACHER]:,})" if TEACHER in steps else ""
    cells = [f"x{scale}", f"{steps[options.arms[0]]:,}{taught}", str(len(found["seeds"])), bicubic, *means, *gains]
    return f"| {' | '.join(cells)} |"


def minutes(found: Mapping[str, Any]) -> str:
    """Writes the mean minutes of each training of a scale."""
    taken = {
        stage: np.mean(seconds) * found["steps"][stage] / 60 for stage, seconds in found["seconds_per_step"].items()
    }
    return ", ".join(f"{stage} {value:.1f}" for stage, value in taken.items())


def gain(a: Floats, b: Floats) -> str:
    """Writes the mean of a − b, (seeds, photographs), with its interval, for the seeds that both have."""
    a, b = (arm[: min(len(a), len(b))] for arm in (a, b))
    difference = crossed_difference(a - b) if len(a) > 1 else paired_difference(a[0], b[0])
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def curve_table(options: Options, scale: int, found: Mapping[str, Any]) -> str:
    """Writes the learning curves of the students at about eight steps."""
    stages = options.stages
    curves = {stage: np.asarray(found["curves"][stage][0]) for stage in stages}
    if curves[options.arms[0]].ndim < 2:  # shorter than the first validation
        return ""
    steps = max(curves.values(), key=len)[:, 0].astype(int)
    chosen = sorted({int(i) for i in np.linspace(0, len(steps) - 1, 12)})
    lines = [f"| x{scale}: step | {' | '.join(stages)} |", f"| --- | {' | '.join('---' for _ in stages)} |"]
    for index in chosen:
        values = [f"{one[index, 1]:.2f}" if index < len(one) else "" for one in curves.values()]
        lines.append(f"| {steps[index]:,} | {' | '.join(values)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains, measures, and writes the page after every scale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--student", choices=STUDENTS, default="fsrcnn")
    parser.add_argument("--scales", type=int, nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--seeds", type=int, nargs="+", help="for every scale")
    parser.add_argument("--steps", type=int, help="of every student")
    parser.add_argument("--teacher-steps", type=int)
    parser.add_argument("--imitation", type=float, default=IMITATION)
    parser.add_argument("--loss", default="vid_laplace")
    parser.add_argument("--weight", type=float, default=WEIGHT)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="students that are trained; default: all")
    given = parser.parse_args()
    options = Options(
        data=given.data,
        out=given.out,
        student=given.student,
        steps=given.steps,
        teacher_steps=given.teacher_steps,
        imitation=given.imitation,
        loss=given.loss,
        weight=given.weight,
        arms=given.arms,
    )
    prepare_process()
    make_project(options)
    found: dict[int, Mapping[str, Any]] = {}
    for scale in given.scales:
        seeds = tuple(given.seeds or SEEDS[scale])
        for stage in options.stages:
            for seed in seeds_of(stage, seeds):
                train(options, scale, seed, stage)
        found[scale] = measure(options, scale, seeds)
        folder = options.out / options.student
        (folder / "pisr.json").write_text(json.dumps({f"x{key}": value for key, value in found.items()}))
        (folder / "pisr.md").write_text(page(options, found))
    print(page(options, found))


IMITATION, WEIGHT = 1.0, 1e-4
"""The published imitation weight, 1e-4, leaves it nearly without effect (docs/pisr.md). Larger weights of the feature
loss made students worse (docs/pisr.md)."""


if __name__ == "__main__":
    main()

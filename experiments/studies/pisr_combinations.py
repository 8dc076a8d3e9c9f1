"""Runs two combinations of PISR with this platform: a degradation-aware teacher, and meta-learning from a student.

`aware`: a teacher encodes HR of tasks with the degradations of the catalogue, and students learn from their LR; the
controls are a student alone, and one that only starts as the teacher's decoder. `meta`: students of bicubic
downsampling (runs of pisr.py), with PISR and alone, are meta-learned with FOMAML on the same tasks. All are adapted to
five real pairs of one camera and measured on its other pairs.

Everything can be stopped and started again. The data are not part of this repository: DATA needs train/ with
photographs, and real_pairs/CAMERA/ with lr/ and hr/.

Run:     python experiments/studies/pisr_combinations.py DATA --students runs/pisr/fsrcnn/x4/seed0 --out runs/combined
Results: OUT/aware/results.md and OUT/meta/results.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

CAMERA = "realsr_canon5d3"

TARGET = "kind: pairs\nscale: 4\nlr: {data}/real_pairs/{camera}/lr\nhr: {data}/real_pairs/{camera}/hr\n"

EXPERIMENT = """\
seed: 0
scale: 4
data: {{train: {data}/train}}
graph:
  target: camera
  auxiliary: [bicubic, "blur_*", "noise_*", jpeg, camera_dslr]
  estimator: {{kind: uniform}}
model: {model}
learner: {{kind: pretrain}}
training: {{steps: {steps}, tasks_per_step: 4, shard_size: 4, support: 2, query: 2, patch: 128,
  optimizer: {{kind: adam, lr: {lr}, schedule: cosine, clip: 1.0}}}}
adaptation: {adaptation}
engine: {{kind: local}}
arms:
{arms}
"""

STUDENT = "{kind: fsrcnn, residual: none, prelu: per_layer}"
TEACHER = f"{{kind: pisr_teacher, decoder: {STUDENT}}}"
ADAPTED = "{shots: 5, optimizer: adam, steps: 100, lr: 3e-4}"

ALONE = "  alone: {}"
TAUGHT = "{{kind: pretrain, distillation: {{teacher: {teacher}, layers: [expanding], weight: {weight}}}}}"
META = "{{learner: {{kind: fomaml, inner_steps: 2, inner_lr: 1e-2}}, training: {{init: {init}, steps: {steps}}}}}"


def run(command: str, out: Path, name: str, **settings: object) -> None:
    """Writes an experiment and runs it, unless its results are there."""
    if (out / name / "results.md").exists():
        return
    experiment = out / f"experiments/{name}.yaml"
    experiment.write_text(EXPERIMENT.format(**settings))
    arguments = [sys.executable, "-m", "metarestore", command, str(experiment), "--out", str(out / name)]
    resume = ["--resume"] if (out / name).exists() else []
    subprocess.run([*arguments, *resume], check=True)


def main() -> None:
    """Trains the teacher, and compares both sets of students."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--students", type=Path, required=True, help="folder with the runs `pisr` and `alone`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000, help="of teacher and students")
    parser.add_argument("--meta-steps", type=int, default=300)
    given = parser.parse_args()
    data, out = given.data.resolve(), given.out.resolve()
    for name in ("tasks", "experiments"):
        (out / name).mkdir(parents=True, exist_ok=True)
    (out / "tasks/camera.yaml").write_text(TARGET.format(data=data, camera=CAMERA))
    common = {"data": data, "steps": given.steps, "lr": "1e-3"}
    learner = "imitation: 1.0"
    arms = f"  teacher: {{learner: {{kind: pretrain, {learner}}}}}"
    run("compare", out, "teacher", model=TEACHER, adaptation="{shots: 5, steps: 0}", arms=arms, **common)
    teacher = out / "teacher/arms/teacher"
    taught = {
        name: TAUGHT.format(teacher=teacher, weight=weight) for name, weight in (("aware", "1e-4"), ("started", 0))
    }
    arms = "\n".join([ALONE, *(f"  {name}: {{learner: {one}}}" for name, one in taught.items())])
    run("compare", out, "aware", model=STUDENT, adaptation=ADAPTED, arms=arms, **common)
    steps = given.meta_steps
    students = {name: META.format(init=(given.students / name).resolve(), steps=steps) for name in ("pisr", "alone")}
    arms = "\n".join(f"  {name}: {one}" for name, one in students.items())
    run("compare", out, "meta", model=STUDENT, adaptation=ADAPTED, arms=arms, **common | {"lr": "1e-4"})


if __name__ == "__main__":
    main()

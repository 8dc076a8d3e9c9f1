"""Does an estimate of the degradation pay? KDSR's teacher, student and control, measured on Gaussian8.

Also: what it costs to estimate the degradation on a crop.

Needs the trainings of `kdsr_stages.py --study isotropic`. The data are not part of this repository: DATA needs valid/.

Run:     python experiments/studies/kdsr_restoration.py DATA --runs runs/kdsr_isotropic
Results: experiments/results/kdsr_restoration.md
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from metarestore.degradations.base import Drawn
from metarestore.evaluation.folder import Degrade, Restore, bicubic_restore, evaluate_folder
from metarestore.evaluation.protocol import case_labels, degradation
from metarestore.evaluation.statistics import Difference, crossed_difference
from metarestore.models.checkpoint import load_model
from metarestore.models.kdsr import KDSR
from metarestore.models.restore import Pixels, image_restorer, to_image, to_pixels
from metarestore.project import Project
from metarestore.reports.style import PALETTE, WIDTH, house_style
from metarestore.tasks.spec import Scale
from metarestore.training.state import last_data
from metarestore.workspace.process import prepare_process

SCALE: Scale = 4
PROTOCOL = "gaussian8"
CROPS = (16, 32, 64)
"""Sides, in LR pixels, of the crops that the degradation is estimated on."""

Figures = NDArray[np.float64]


class Shown:
    """Degrades, and remembers the HR image for a teacher, which restores the LR image that comes next."""

    def __init__(self, teacher: KDSR, degrade: Degrade) -> None:
        self._teacher = teacher
        self._degrade = degrade
        self._hr: Pixels

    def degrade(self, name: str, hr: Pixels) -> Pixels:
        """Makes the LR image of a photograph."""
        self._hr = hr
        return self._degrade(name, hr)

    def restore(self, lr: Pixels) -> Pixels:
        """Restores the LR image of the photograph that was degraded last."""
        with torch.no_grad():
            return to_pixels(self._teacher(to_image(lr), to_image(self._hr)).clamp(0, 1)[0])


def measured(data: Path, restore_of: Callable[[Degrade], tuple[Degrade, Restore]]) -> Figures:
    """Returns the PSNR-Y of every case and photograph, (K, N)."""
    rows = []
    for case in cases():
        degrade, restore = restore_of(degradation(case))
        report = evaluate_folder(data / "valid", SCALE, restore, degrade=degrade)
        rows.append([figures["psnr_y"] for figures in report.images.values()])
    return np.asarray(rows)


def cases() -> Sequence[Drawn]:
    """Returns the cases of the protocol."""
    return Project(Path.cwd()).protocol(PROTOCOL, SCALE).cases


def plain(restore: Restore) -> Callable[[Degrade], tuple[Degrade, Restore]]:
    """Restores from LR alone."""
    return lambda degrade: (degrade, restore)


def shown(teacher: KDSR) -> Callable[[Degrade], tuple[Degrade, Restore]]:
    """Restores by a teacher, which is shown HR."""

    def both(degrade: Degrade) -> tuple[Degrade, Restore]:
        hr = Shown(teacher, degrade)
        return hr.degrade, hr.restore

    return both


def network(run: Path) -> KDSR:
    """Loads the network of a run."""
    found = load_model(run)
    if not isinstance(found, KDSR):
        raise TypeError(f"{run} holds no KDSR")
    return found


def mean_embedding(data: Path, student: KDSR) -> Tensor:
    """Returns the mean of D over all photographs and cases, (1, C)."""
    found: list[Tensor] = []

    def describe(lr: Pixels) -> Pixels:
        found.append(student.describe_photograph(to_image(lr)))
        return bicubic_restore(SCALE)(lr)

    measured(data, plain(describe))
    return torch.cat(found).mean(dim=0, keepdim=True)


def measure_seed(data: Path, folder: Path) -> dict[str, Figures]:
    """Measures the networks of one seed: figures (K, N) by arm."""
    student = network(folder / "student")
    arms = {
        "control": plain(image_restorer(network(folder / "control"))),
        "student": plain(image_restorer(student)),
        "teacher": shown(network(folder / "teacher")),
        "student, mean D": plain(image_restorer(student, embedding=mean_embedding(data, student))),
        **{f"student, crop {side}": plain(image_restorer(student, crop=side)) for side in CROPS},
    }
    return {name: measured(data, arm) for name, arm in arms.items()}


@dataclass(frozen=True)
class Divergence:
    """The student's mean divergence from its teacher over the first and last steps; steps and minutes of all runs."""

    first: float
    last: float
    steps: Mapping[str, int]
    minutes: Mapping[str, float]


def divergence_of(folder: Path, window: int = 100) -> Divergence:
    """Reads the logs of a seed's trainings."""
    state = {run.name: last_data(run) for run in sorted(folder.iterdir()) if run.is_dir()}
    kl = [float(row["kl"]) for row in state["student"]["log"]]
    minutes = {name: found["seconds"] / 60 for name, found in state.items()}
    return Divergence(mean(kl[:window]), mean(kl[-window:]), {name: s["step"] for name, s in state.items()}, minutes)


PAGE = """\
# Does an estimate of the degradation pay?

KDSR `{size}` at x4, trained on isotropic Gaussian blur (sigma 0.2 to 4.0, the catalogue's `kdsr_iso`): first `base`,
the restorer with a learned constant (D = 1) in place of the embedding; from it a *teacher*, whose estimator sees HR,
and from that a *student*, which sees LR alone; and from `base` as well the *control*, which keeps the constant and is
trained for as many steps as teacher and student have together, so its restorer learns in the 200 steps of each that
their estimators warm up alone, too. (With D = 0 all dynamic kernels, which have no bias, would be 0 and the control a
linear network; a constant 1 lets it learn any fixed kernels.) 4 tasks of 2 patches of 32x32 LR pixels a step, Adam 1e-3
with a cosine to 0 in every stage; the embeddings are contrasted between tasks. Nothing was tuned on the photographs
that are measured on.

Measured on Gaussian8: {count} photographs of DATA/valid, each by eight kernels, PSNR-Y in dB, border 4; {seeds}
seeds.

Commands:

    python experiments/studies/kdsr_stages.py DATA --study isotropic --out runs/kdsr_isotropic --seeds {names}
    python experiments/studies/kdsr_restoration.py DATA --runs runs/kdsr_isotropic

{date}, one thread of a 2-core machine beside other work; steps, and minutes of training: {stages}.

{table}

Differences of the means over the eight kernels; 95% intervals over photographs and seeds (two-way random effects):

{differences}

*student, mean D*: the student with the mean of its embeddings over all photographs and kernels in place of each one's.

By seed: {by_seed}.

Divergence KL of the student from its teacher, mean of its first and last 100 steps, by seed: {kl}.

## Estimating on a crop

`--estimate-on N` describes the middle N x N LR pixels alone. Against the estimate from the whole photograph (LR of 80 x
120 pixels and more), over photographs and seeds:

{crops}

![Gain over the control by the width of the blur](kdsr_restoration.png)
"""


def said(difference: Difference) -> str:
    """Writes a difference with its interval."""
    verdict = "beyond noise" if difference.beyond_noise else "within noise"
    return f"{difference.mean:+.3f} dB [{difference.low:+.3f}, {difference.high:+.3f}], {verdict}"


def between(figures: Mapping[str, Figures], a: str, b: str) -> Difference:
    """Compares two arms, figures (S, K, N), by their means over the cases."""
    return crossed_difference((figures[a] - figures[b]).mean(axis=1))


def table(labels: Sequence[str], bicubic: Figures, figures: Mapping[str, Figures]) -> str:
    """Tabulates the mean PSNR of each case."""
    arms = ("control", "student", "teacher")
    head = ["| sigma | bicubic | control | student | teacher, shown HR |", "| :-- | --: | --: | --: | --: |"]
    rows = [
        f"| {label.split()[-1]} | {bicubic[k].mean():.2f} | "
        + " | ".join(f"{figures[a][:, k].mean():.2f}" for a in arms)
        + " |"
        for k, label in enumerate(labels)
    ]
    total = " | ".join(f"**{figures[arm].mean():.2f}**" for arm in arms)
    return "\n".join([*head, *rows, f"| mean | **{bicubic.mean():.2f}** | {total} |"])


@house_style
def drawn(labels: Sequence[str], figures: Mapping[str, Figures]) -> Figure:
    """Draws the gain of student and teacher over the control by case, with the seeds beside their mean."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    sigmas = [float(label.split()[-1]) for label in labels]
    for arm, colour in (("teacher", PALETTE[1]), ("student", PALETTE[0])):
        gains = (figures[arm] - figures["control"]).mean(axis=2)
        axes.plot(sigmas, gains.T, color=colour, lw=0.7, alpha=0.5)
        axes.plot(
            sigmas, gains.mean(axis=0), color=colour, marker="o", label="teacher, shown HR" if arm == "teacher" else arm
        )
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlabel="sigma of the blur, HR pixels", ylabel="PSNR-Y over the control, dB")
    axes.legend()
    return figure


def report(data: Path, runs: Path, out: Path, size: str) -> None:
    """Measures all seeds of a folder and writes the page and its figure."""
    folders = sorted(folder for folder in runs.glob("seed*") if (folder / "control/model.safetensors").exists())
    found = [measure_seed(data, folder) for folder in folders]
    figures = {arm: np.stack([seed[arm] for seed in found]) for arm in found[0]}
    bicubic = measured(data, plain(bicubic_restore(SCALE)))
    labels = case_labels(cases())
    logs = [divergence_of(folder) for folder in folders]
    pairs = (("student", "control"), ("teacher", "student"), ("teacher", "control"), ("student", "student, mean D"))
    gains = [(figures["student"] - figures["control"])[k].mean() for k in range(len(folders))]
    page = PAGE.format(
        size=size,
        count=bicubic.shape[1],
        seeds=len(folders),
        names=" ".join(folder.name.removeprefix("seed") for folder in folders),
        date=datetime.date.today(),
        stages=", ".join(
            f"{name} {steps:,} ({mean(log.minutes[name] for log in logs):.0f} min)"
            for name, steps in logs[0].steps.items()
        ),
        table=table(labels, bicubic, figures),
        differences="\n".join(f"- {a} − {b}: {said(between(figures, a, b))}" for a, b in pairs),
        by_seed=", ".join(f"student − control {gain:+.3f} dB" for gain in gains),
        kl=", ".join(f"{log.first:.4f} to {log.last:.4f}" for log in logs),
        crops="\n".join(f"- {n} x {n}: {said(between(figures, f'student, crop {n}', 'student'))}" for n in CROPS),
    )
    out.write_text(page, encoding="utf-8")
    drawn(labels, figures).savefig(out.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/kdsr_restoration.md"))
    options = parser.parse_args()
    prepare_process()
    report(options.data, options.runs, options.out, options.size)

"""How much does each part of zero-shot restoration help, with unknown kernels?

One crop of every photograph of DATA/valid is blurred by a random anisotropic Gaussian kernel and shrunk, or shrunk
bicubically (`--kind bicubic`). Every student starts from the same teacher, and is measured against its control: the
same further steps with the error on internal pairs alone. Finished photographs are kept in OUT, so that an interrupted
study resumes; several processes may share OUT (`--part 0/2` and `--part 1/2`).

Run:     python experiments/studies/zero_shot_restoration.py DATA --scale 2
Results: experiments/results/zero_shot_restoration_x2.md, .json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from kernel_cases import Corruption, Pixels, as_image, degraded, middle, photographs, random_kernel, read
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from metarestore.degradations.resample import bicubic_upsample
from metarestore.evaluation.metrics import psnr_y
from metarestore.zero_shot.kernel import estimate_kernel
from metarestore.zero_shot.options import LossWeights, Stage, ZeroShotOptions, ZeroShotResult
from metarestore.zero_shot.restore import restore_zero_shot
from metarestore.zero_shot.shapes import bicubic_kernel, relative_error

RESULTS = Path("experiments/results")
SIDE = 128
STUDENTS: Mapping[str, Mapping[str, float]] = {
    "control": {},
    "student: consistency": {"consistency": 1.0},
    "student: distillation": {"distillation": 0.5},
    "student: pseudo-label": {"pseudo_label": 0.5},
    "student: all terms": {"consistency": 1.0, "distillation": 0.5, "pseudo_label": 0.5},
}
COMPARISONS = (
    *((name, "control") for name in STUDENTS if name != "control"),
    ("control", "back-projection"),
    ("control", "bicubic kernel"),
    ("teacher", "back-projection"),
    ("control, self-ensemble", "control"),
    ("control", "without pre-processing"),
    ("control", "without projections"),
    ("known kernel", "control"),
)
Scores = dict[str, float]


def case(path: Path, scale: int, kind: str) -> tuple[Pixels, Pixels, NDArray[np.float32]]:
    """Returns HR, LR and the kernel between them."""
    hr = middle(read(path, scale), SIDE * scale)
    seed = ("zero-shot restoration", path.stem, scale)
    kernel = bicubic_kernel(scale) if kind == "bicubic" else random_kernel(*seed, scale=scale)
    return hr, degraded(hr, kernel, scale, Corruption(), *seed), kernel


def measured(path: Path, scale: int, kind: str, steps: tuple[int, int], *, quick: bool) -> dict[str, object]:
    """Restores one photograph by all arms, or by those before the students: PSNR-Y and CPU seconds of each."""
    hr, lr, kernel = case(path, scale, kind)
    image = as_image(lr)
    estimate = estimate_kernel(image, scale)
    teacher, student = Stage(steps[0], 1e-3, 0.7), Stage(steps[1], 3e-4, 0.3)
    none, whole = Stage(0, 1e-3, 0.3), Stage(sum(steps), 1e-3, 1.0)
    base = ZeroShotOptions(kernel=estimate.kernel, teacher=teacher, student=none, preprocessing=32)
    scores: Scores = {"bicubic": psnr(bicubic_upsample(image[None], scale)[0], hr, scale)}
    seconds: Scores = {}

    def run(name: str, options: ZeroShotOptions) -> ZeroShotResult:
        start = time.process_time()
        found = restore_zero_shot(image, scale, options)
        seconds[name], scores[name] = time.process_time() - start, psnr(found.image, hr, scale)
        return found

    run("back-projection", replace(base, teacher=none))
    taught = run("teacher", base)
    for name, terms in ({} if quick else STUDENTS).items():
        options = replace(base, teacher=none, student=student, start=taught.parameters)
        run(name, replace(options, losses=LossWeights(**terms)))
        seconds[name] += seconds["teacher"]
        if name == "control":
            ended = restore_zero_shot(image, scale, options)
            run("control, self-ensemble", replace(options, student=none, start=ended.parameters, self_ensemble=True))
            seconds["control, self-ensemble"] += seconds[name]
    if not quick:
        full = replace(base, student=student)
        run("without pre-processing", replace(full, preprocessing=0))
        run("without projections", replace(full, back_projections=0, final_projections=0))
        published = replace(base, kernel=bicubic_kernel(scale), preprocessing=0, back_projections=0, teacher=whole)
        run("bicubic kernel", published)
        run("known kernel", replace(full, kernel=kernel))
    described = {"error": relative_error(estimate.kernel, kernel), "confidence": estimate.confidence}
    return {"photograph": path.stem, "scores": scores, "seconds": seconds, "source": estimate.source, **described}


def psnr(image: Tensor, hr: Pixels, scale: int) -> float:
    """Returns the PSNR-Y of an image (3, h, w) in [0, 1], rounded to 8 bits, in dB."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return psnr_y(pixels, hr, scale)


def study(
    data: Path, scale: int, kind: str, steps: tuple[int, int], part: tuple[int, int], out: Path, *, quick: bool
) -> None:
    """Measures what is not in `out` yet."""
    out.mkdir(parents=True, exist_ok=True)
    for path in photographs(data / "valid")[part[0] :: part[1]]:
        file = out / f"{_prefix(scale, kind, steps)}{path.stem}.json"
        if not file.is_file():
            save(file, json.dumps(measured(path, scale, kind, steps, quick=quick)))


def _prefix(scale: int, kind: str, steps: tuple[int, int]) -> str:
    return f"x{scale}_{kind}_{steps[0]}_{steps[1]}_"


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean and its 95% interval over photographs (Student's t)."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def gains(rows: Sequence[Mapping[str, Scores]], arm: str, other: str) -> str:
    """Writes the difference of two arms."""
    values = [row["scores"][arm] - row["scores"][other] for row in rows]
    mean, low, high = interval(values)
    verdict = "significant" if len(values) > 2 and (low > 0 or high < 0) else "not significant"
    return f"{mean:+.3f} dB [{low:+.3f}, {high:+.3f}], {verdict}; least {min(values):+.2f}"


def table(rows: Sequence[Mapping[str, Scores]]) -> str:
    """Writes the table of all arms."""
    lines = ["| arm | PSNR-Y | over bicubic, 95% interval | least | CPU s |", "| :-- | --: | --: | --: | --: |"]
    for arm in rows[0]["scores"]:
        scores = [row["scores"][arm] for row in rows]
        over = [row["scores"][arm] - row["scores"]["bicubic"] for row in rows]
        mean, low, high = interval(over)
        seconds = np.mean([row["seconds"].get(arm, 0.0) for row in rows])
        gain = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}] | {min(over):+.2f}" if arm != "bicubic" else "|"
        lines.append(f"| {arm} | {np.mean(scores):.2f} | {gain} | {seconds:.1f} |")
    return "\n".join(lines)


PAGE = """\
# Zero-shot restoration at x{scale}: what does each part help?

{count} photographs of DATA/valid that nothing was tuned on, LR crops of {side}x{side} pixels at most. PSNR-Y, border
{scale}; intervals over photographs; CPU seconds of one thread. Teacher {teacher} steps, student {student}; a student's
seconds contain its teacher's. *bicubic kernel*: internal training as ZSSR publishes it, with a bicubic kernel and as
many steps, 2 back-projections; *back-projection*: with the estimated kernel, nothing learned; *known kernel*: the
control's settings with the true kernel, an upper bound.

Commands:

{commands}

{date}, a 2-core machine beside other work.
{sections}"""


def write(out: Path, scale: int, steps: tuple[int, int], *, quick: bool) -> None:
    """Writes the page and the numbers of what is finished."""
    sections, kept, commands, count = [], {}, [], 0
    for kind, title in (("random", "Random Gaussian kernels, unknown"), ("bicubic", "Bicubic LR")):
        files = sorted(out.glob(f"{_prefix(scale, kind, steps)}*.json"))
        rows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        if not rows:
            continue
        errors = np.median([row["error"] for row in rows])
        differences = "\n".join(f"- {a} - {b}: {gains(rows, a, b)}" for a, b in COMPARISONS if a in rows[0]["scores"])
        text = f"{len(rows)} photographs; median relative error of the kernel {errors:.3f}."
        sections.append(f"\n## {title}\n\n{text}\n\n{table(rows)}\n\n{differences}\n")
        options = f"--scale {scale} --kind {kind} --steps {steps[0]} {steps[1]}{' --quick' if quick else ''}"
        commands.append(f"    python experiments/studies/zero_shot_restoration.py DATA {options}")
        kept[kind], count = rows, max(count, len(rows))
    text = PAGE.format(
        scale=scale,
        count=count,
        side=SIDE,
        teacher=steps[0],
        student=steps[1],
        commands="\n".join(commands),
        date=datetime.datetime.now(datetime.UTC).date(),
        sections="".join(sections),
    )
    name = f"zero_shot_restoration_x{scale}{'_quick' if quick else ''}"
    save(RESULTS / f"{name}.md", text)
    save(RESULTS / f"{name}.json", json.dumps(kept, indent=1) + "\n")


def save(path: Path, text: str) -> None:
    """Writes a file in one step."""
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _part(text: str) -> tuple[int, int]:
    own, count = text.split("/")
    return int(own), int(count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with valid/")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--kind", default="random", choices=("random", "bicubic"), help="kernels that LR is made with")
    parser.add_argument("--steps", type=int, nargs=2, default=(600, 200), help="of teacher and student")
    parser.add_argument("--quick", action="store_true", help="no students; give it an --out of its own")
    parser.add_argument("--part", type=_part, default=(0, 1), help="i/n: every n-th photograph, from the i-th")
    parser.add_argument("--out", type=Path, default=Path("runs/zero_shot"), help="where finished photographs are kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    study(given.data, given.scale, given.kind, tuple(given.steps), given.part, given.out, quick=given.quick)
    write(given.out, given.scale, tuple(given.steps), quick=given.quick)

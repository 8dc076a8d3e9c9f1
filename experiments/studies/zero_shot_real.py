"""Restores real photographs, whose ground truth is unknown, from themselves alone, and checks what can be checked.

For every photograph of DATA/real_lr: whether all values are finite, how far the mean of each channel is from that of
bicubic upscaling, how far the degraded restoration is from the photograph, and how far two restorations with other
seeds are apart. Sheets with the photograph before and after are written to OUT, which is no part of this repository.

Run:     python experiments/studies/zero_shot_real.py DATA --scale 2 --out runs/zero_shot_real
Results: experiments/results/zero_shot_real.md
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from zero_shot_restoration import RESULTS, save

from metarestore.degradations.resample import bicubic_upsample
from metarestore.reports.networks.zero_shot import eight_bit, restoration_sheet
from metarestore.reports.pictures import save_png
from metarestore.tasks.photographs import list_photographs
from metarestore.workspace.process import prepare_process
from metarestore.zero_shot.blur import Blur
from metarestore.zero_shot.folder import Restored, RestoreJob
from metarestore.zero_shot.options import Stage, ZeroShotOptions


def measured(path: Path, scale: int, steps: tuple[int, int], out: Path) -> dict[str, float | str]:
    """Restores one photograph twice, and returns what can be checked."""
    stages = {"teacher": Stage(steps[0], 1e-3, 0.7), "student": Stage(steps[1], 3e-4, 0.3)}
    options = ZeroShotOptions(**stages, preprocessing=32)
    began = time.process_time()
    first, second = (RestoreJob(path, scale, replace(options, seed=seed)).run(torch.device("cpu")) for seed in (0, 1))
    seconds = (time.process_time() - began) / 2
    if not isinstance(first, Restored) or not isinstance(second, Restored):
        raise SystemExit(f"{path}: could not be restored")
    one, other = (_image(restored) for restored in (first, second))
    lr = torch.from_numpy(first.before).permute(2, 0, 1)[None].float() / 255
    bicubic = bicubic_upsample(lr, scale).clamp(0, 1)
    again = Blur(first.kernel.kernel, scale).degrade(one)
    save_png(
        restoration_sheet(first.before, eight_bit(first.pixels), first.kernel.kernel, path.stem, first.kernel.source),
        out / f"{path.stem}.png",
    )
    return {
        "name": path.name,
        "size": f"{lr.shape[-1]}x{lr.shape[-2]}",
        "kernel": first.kernel.source,
        "confidence": first.kernel.confidence,
        "colour": float((one.mean((2, 3)) - bicubic.mean((2, 3))).abs().max()) * 255,
        "consistency": float((again - lr).square().mean().sqrt()) * 255,
        "change": float((one - bicubic).square().mean().sqrt()) * 255,
        "seeds": float((one - other).square().mean().sqrt()) * 255,
        "finite": str(bool(torch.isfinite(one).all())),
        "seconds": seconds,
    }


def _image(restored: Restored) -> Tensor:
    """Returns the colours of a restored photograph, (1, 3, h, w) in [0, 1]."""
    peak = 255.0 if restored.pixels.dtype.name == "uint8" else 65535.0
    pixels = torch.from_numpy(restored.pixels.astype("float32")) / peak
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    return (planes[..., :3] if planes.shape[2] > 2 else planes[..., :1].expand(-1, -1, 3)).permute(2, 0, 1)[None]


PAGE = """\
# Real photographs, restored from themselves alone at x{scale}

{count} photographs of DATA/real_lr (gray, with alpha and 16-bit ones among them), without ground truth. Teacher
{teacher} steps, student {student}, with the pre-processing module. *Colour*: largest difference of a channel's mean
from that of bicubic upscaling; *consistency*: root mean square difference between the degraded restoration and the
photograph; *change*: that from bicubic upscaling; *seeds*: that between two restorations with different seeds; all in
grey levels.

    python experiments/studies/zero_shot_real.py DATA --scale {scale} --steps {teacher} {student}

{date}, one thread of a 2-core machine beside other work.

| photograph | LR | kernel | confidence | colour | consistency | change | seeds | CPU s |
| :-- | --: | :-- | --: | --: | --: | --: | --: | --: |
{rows}

All values are finite: {finite}. Largest colour difference: {colour:.3f} grey levels.

What follows from this: the restorations keep the colour, and agree with the photographs where the photographs say
something (consistency). Two seeds differ less than either differs from bicubic upscaling, so most of the change is
determined by the photograph and its kernel. What does not follow: that the restorations are closer to the truth than
bicubic upscaling, or that the kernels are right; without ground truth, neither can be measured.
"""


def main() -> None:
    """Restores what is not in `out` yet, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with real_lr/")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--steps", type=int, nargs=2, default=(200, 100), help="of teacher and student")
    parser.add_argument("--out", type=Path, default=Path("runs/zero_shot_real"))
    given = parser.parse_args()
    prepare_process()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, path in list_photographs(given.data / "real_lr").items():
        file = given.out / f"{name}.json"
        if not file.is_file():
            save(file, json.dumps(measured(path, given.scale, tuple(given.steps), given.out)))
        rows.append(json.loads(file.read_text(encoding="utf-8")))
    lines = [
        f"| {row['name']} | {row['size']} | {row['kernel']} | {row['confidence']:.2f} | {row['colour']:.3f} | "
        f"{row['consistency']:.2f} | {row['change']:.2f} | {row['seeds']:.2f} | {row['seconds']:.0f} |"
        for row in rows
    ]
    page = PAGE.format(
        scale=given.scale,
        count=len(rows),
        teacher=given.steps[0],
        student=given.steps[1],
        date=datetime.datetime.now(datetime.UTC).date(),
        rows="\n".join(lines),
        finite="yes" if all(row["finite"] == "True" for row in rows) else "no",
        colour=max(row["colour"] for row in rows),
    )
    save(RESULTS / "zero_shot_real.md", page)


if __name__ == "__main__":
    main()

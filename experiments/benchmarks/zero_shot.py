"""Measures time, memory, time budgets and parallel restoring of zero-shot restoration, on embedded photographs.

Run:     python experiments/benchmarks/zero_shot.py [--seconds 5 15] [--out experiments/results/zero_shot_speed.md]
Prints:  processor time and peak memory of restoring one photograph of each size with the default options; how well
         `--budget` is kept; and the time of two photographs with two workers over that of one after the other.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import torch
from timing import chip

from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.workspace.process import prepare_process
from metarestore.zero_shot.options import ZeroShotOptions
from metarestore.zero_shot.restore import restore_zero_shot

SIDES, SCALE = (128, 256, 512), 2


def photograph(folder: Path, number: int, side: int) -> Path:
    """Writes one embedded photograph, resized so that both sides have at least `side` pixels and cropped to them."""
    store = ImageStore.open(ImageSource.embedded("test"))
    name = store.names[number]
    height, width = store.size(name)
    pixels = store.patch(name, 0, 0, height, width)
    factor = max(side / min(height, width), 1.0)
    enlarged = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)[:side, :side]
    path = folder / f"photograph_{number}_{side}.png"
    cv2.imwrite(str(path), cv2.cvtColor(enlarged, cv2.COLOR_RGB2BGR))
    return path


def cost(path: Path) -> tuple[float, float]:
    """Returns processor seconds and peak memory in MiB of restoring a photograph, in a process of its own."""
    prepare_process()
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    began = time.process_time()
    restore_zero_shot(image, SCALE, ZeroShotOptions())
    return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def restored(photographs: list[Path], out: Path, *options: str) -> float:
    """Restores photographs by the command line, and returns the seconds that the command takes."""
    command = [sys.executable, "-m", "metarestore", "restore", *map(str, photographs), "--adapt", "zero-shot"]
    began = time.monotonic()
    subprocess.run(
        [*command, "--scale", str(SCALE), "--out", str(out), *options], check=True, stdout=subprocess.DEVNULL
    )
    return time.monotonic() - began


PAGE = """\
# How fast is zero-shot restoration?

    python experiments/benchmarks/zero_shot.py --seconds {given} --out experiments/results/zero_shot_speed.md

{date}, {chip}, torch {torch}, load of the machine {load:.1f}. x{scale}, default options (800 steps), embedded
photographs.

| LR | processor time | peak memory of the process |
| :-- | --: | --: |
{costs}

`--budget` limits the time of learning for each photograph; the kernel is estimated within it.

| budget | learned for | deviation |
| --: | --: | --: |
{budgets}

Two photographs of 256x256 LR pixels by the command line, start of the program included: {alone:.1f} s one after the
other (`--workers 1`), {together:.1f} s with two workers, a ratio of {ratio:.2f}.
"""


def main() -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 15])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare_process()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = [photograph(folder, 0, side) for side in SIDES]
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            costs = pool.map(cost, paths, chunksize=1)
        budgets = []
        for seconds in options.seconds:
            out = folder / f"budget_{seconds:g}"
            restored([paths[1]], out, "--budget", f"{seconds:g}")
            taken = json.loads((out / f"{paths[1].stem}.json").read_text())["seconds"]
            budgets.append(f"| {seconds:g} s | {taken:.2f} s | {taken / seconds - 1:+.1%} |")
        two = [photograph(folder, number, 256) for number in (0, 1)]
        alone, together = (restored(two, folder / f"workers_{n}", "--workers", str(n)) for n in (1, 2))
    page = PAGE.format(
        given=" ".join(f"{seconds:g}" for seconds in options.seconds),
        date=datetime.datetime.now(datetime.UTC).date(),
        chip=chip(),
        torch=torch.__version__,
        load=os.getloadavg()[0],
        scale=SCALE,
        costs="\n".join(
            f"| {side}x{side} | {seconds:.1f} s | {memory:.0f} MiB |"
            for side, (seconds, memory) in zip(SIDES, costs, strict=True)
        ),
        budgets="\n".join(budgets),
        alone=alone,
        together=together,
        ratio=together / alone,
    )
    print(page) if options.out is None else options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

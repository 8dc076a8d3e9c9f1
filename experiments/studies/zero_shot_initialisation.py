"""How fast does a network adapt to one photograph: meta-learned, pre-trained, or from new weights?

One crop of every photograph of DATA/valid is blurred by a random anisotropic Gaussian kernel, unknown to the networks,
and shrunk, or shrunk bicubically (`--kind bicubic`). Each network is adapted to it, as `metarestore restore --adapt
zero-shot --model NETWORK` does, and measured between the steps. Finished photographs are kept in OUT, so that an
interrupted study resumes.

Run:     python experiments/studies/zero_shot_initialisation.py DATA --scale 2 --networks
             meta-learned=zero_shot_maml_x2:adam:3e-4 pre-trained=RUN:adam:3e-4
Results: experiments/results/zero_shot_initialisation_x2.md, .json, .png
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from kernel_cases import as_image, photographs
from matplotlib import pyplot
from torch import Tensor
from zero_shot_restoration import RESULTS, case, interval, psnr, save

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.config.model import ZeroShotNetworkSpec
from metarestore.degradations.resample import bicubic_upsample
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, network_file
from metarestore.zero_shot.kernel import estimate_kernel
from metarestore.zero_shot.network import NetworkOptions, restore_adapted

STEPS = (0, 1, 5, 10, 50)
SCRATCH = (100, 1000)
"""Lengths of adaptation from new weights, each with its own decay of the learning rate."""


@dataclass(frozen=True)
class Arm:
    """A network and its adaptation; without a network, new weights. `given` is how the command line names it."""

    name: str
    given: str
    network: Path | None
    adaptation: AdaptationOptimizerSpec
    measured: tuple[int, ...]


def scratch(steps: int) -> Arm:
    """Returns the arm that begins with new weights."""
    adaptation = AdaptationOptimizerSpec(steps=steps, lr=1e-3, schedule="cosine", patch=64, batch=2)
    return Arm(f"new weights, {steps:,} steps", "", None, adaptation, (0, steps))


def arm_of(text: str) -> Arm:
    """Reads NAME=NETWORK:OPTIMIZER:RATE."""
    name, rest = text.split("=", 1)
    network, optimizer, rate = rest.rsplit(":", 2)
    kind = cast('Literal["adam", "sgd"]', optimizer)
    adaptation = AdaptationOptimizerSpec(optimizer=kind, lr=float(rate), steps=max(STEPS))
    return Arm(name, text, network_file(Path(network)), adaptation, STEPS)


def measured(path: Path, scale: Literal[2, 3, 4], kind: str, arms: Sequence[Arm]) -> dict[str, dict[str, float]]:
    """Adapts all networks to one photograph: PSNR-Y after each measured number of steps, and CPU seconds."""
    hr, lr, _ = case(path, scale, kind)
    image = as_image(lr)
    kernel = estimate_kernel(image, scale).kernel
    found = {"bicubic": {"0": psnr(bicubic_upsample(image[None], scale)[0], hr, scale)}}
    for arm in arms:
        network = (
            load_model(arm.network) if arm.network else build_model(ZeroShotNetworkSpec(kind="zero_shot"), scale, 0)
        )
        scores: dict[str, float] = {}

        def observe(
            step: int, restored: Callable[[], Tensor], arm: Arm = arm, scores: dict[str, float] = scores
        ) -> None:
            if step in arm.measured:
                scores[str(step)] = psnr(restored(), hr, scale)

        start = time.process_time()
        restore_adapted(image, network, NetworkOptions(kernel=kernel, adaptation=arm.adaptation), observe=observe)
        found[arm.name] = {**scores, "seconds": time.process_time() - start}
    return found


PAGE = """\
# Adapting to one photograph in a few steps, x{scale}

{count} photographs of DATA/valid that nothing was trained or tuned on, LR crops of 128x128 pixels at most, {made}.
The kernel is estimated. PSNR-Y over bicubic in dB, with 95% intervals over photographs. Steps on whole photographs:
{networks}. New weights: the same network, Adam at 1e-3 with cosine decay on patches.

Command:

    {command}

{date}, one thread of a 2-core machine beside other work. Seconds are CPU seconds of all steps of an arm, with its
measurements.

{table}

{comparison}

![PSNR over the number of steps]({picture})
"""


MADE = {
    "random": "each blurred by a random anisotropic Gaussian kernel of its own and shrunk",
    "bicubic": "each shrunk bicubically",
}


def write(
    scale: int, kind: str, arms: Sequence[Arm], rows: Mapping[str, Mapping[str, Mapping[str, float]]], command: str
) -> None:
    """Writes the page, the numbers and the figure."""
    name = f"zero_shot_initialisation_x{scale}{'' if kind == 'random' else f'_{kind}'}"
    steps = sorted({step for arm in arms for step in arm.measured})
    header = [*(f"{step:,}" for step in steps), "worst after 10, or at the end", "CPU s"]
    lines = [f"| arm | {' | '.join(header)} |", "| :-- |" + " --: |" * len(header)]
    for arm in arms:
        cells = [_over_bicubic(rows, arm.name, step) if step in arm.measured else "" for step in steps]
        cells.append(f"{min(_gains(rows, arm.name, 10 if arm.network else arm.measured[-1])):+.2f}")
        seconds = np.mean([row[arm.name]["seconds"] for row in rows.values()])
        lines.append(f"| {arm.name} | {' | '.join(cells)} | {seconds:.1f} |")
    trained = [arm for arm in arms if arm.network]
    others = [(arm, max(arm.measured)) for arm in arms if not arm.network] + [(arm, 10) for arm in trained[1:]]
    comparison = "\n".join(
        f"- {trained[0].name}, 10 steps - {arm.name}{f', {step} steps' if arm.network else ''}: "
        f"{_difference(rows, (trained[0].name, 10), (arm.name, step))}"
        for arm, step in others
    )
    used = "; ".join(f"{a.name}, {a.adaptation.optimizer} at {a.adaptation.lr:g}" for a in trained)
    text = PAGE.format(
        scale=scale,
        count=len(rows),
        made=MADE[kind],
        networks=used,
        command=command,
        date=datetime.datetime.now(datetime.UTC).date(),
        table="\n".join(lines),
        comparison=comparison,
        picture=f"{name}.png",
    )
    save(RESULTS / f"{name}.md", text)
    save(RESULTS / f"{name}.json", json.dumps(rows, indent=1) + "\n")
    _draw(RESULTS / f"{name}.png", arms, rows)


Rows = Mapping[str, Mapping[str, Mapping[str, float]]]


def _gains(rows: Rows, arm: str, step: int) -> list[float]:
    return [row[arm][str(step)] - row["bicubic"]["0"] for row in rows.values()]


def _over_bicubic(rows: Rows, arm: str, step: int) -> str:
    mean, low, high = interval(_gains(rows, arm, step))
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _difference(rows: Rows, one: tuple[str, int], other: tuple[str, int]) -> str:
    mean, low, high = interval([a - b for a, b in zip(_gains(rows, *one), _gains(rows, *other), strict=True)])
    return f"{mean:+.2f} dB [{low:+.2f}, {high:+.2f}]"


def _draw(file: Path, arms: Sequence[Arm], rows: Rows) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for arm in arms:
        means = [np.mean(_gains(rows, arm.name, step)) for step in arm.measured]
        if arm.network:
            axes.plot([step + 1 for step in arm.measured], means, marker="o", label=arm.name)
        else:
            axes.plot(arm.measured[-1] + 1, means[-1], marker="s", linestyle="none", label=arm.name)
    axes.set_xscale("log")
    ticks = sorted({step for arm in arms for step in arm.measured})
    axes.set_xticks([step + 1 for step in ticks], [f"{step:,}" for step in ticks])
    axes.minorticks_off()
    axes.set_xlabel("steps of adaptation to the photograph")
    axes.set_ylabel("PSNR-Y over bicubic, dB")
    axes.legend()
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with valid/")
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--kind", default="random", choices=tuple(MADE), help="kernels that LR is made with")
    parser.add_argument("--networks", nargs="+", type=arm_of, required=True, metavar="NAME=NETWORK:OPTIMIZER:RATE")
    parser.add_argument("--scratch", type=int, nargs="*", default=SCRATCH, help="steps from new weights")
    parser.add_argument("--out", type=Path, default=Path("runs/zero_shot_initialisation"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    arms = [*given.networks, *map(scratch, given.scratch)]
    given.out.mkdir(parents=True, exist_ok=True)
    rows = {}
    for path in photographs(given.data / "valid"):
        kind = "" if given.kind == "random" else f"{given.kind}_"
        file = given.out / f"x{given.scale}_{kind}{path.stem}.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        missing = [arm for arm in arms if arm.name not in kept]
        if missing:
            kept |= measured(path, given.scale, given.kind, missing)
            save(file, json.dumps(kept))
        rows[path.stem] = kept
    networks = " ".join(f"'{arm.given}'" for arm in given.networks)
    script = "python experiments/studies/zero_shot_initialisation.py"
    lengths = "" if tuple(given.scratch) == SCRATCH else " ".join([" --scratch", *map(str, given.scratch)])
    chosen = f"--scale {given.scale} --kind {given.kind}{lengths}"
    write(given.scale, given.kind, arms, rows, f"{script} DATA {chosen} --networks {networks}")

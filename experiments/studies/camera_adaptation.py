"""How should a trained network adapt to five pairs of a camera: which parameters, which frequencies, and from where?

For each camera and network, with the first five pairs by name as the shots and all others as the test: unadapted; all
parameters, without and with the low frequencies of LR kept (in HR only, or also in the output); the last layer, and
low-rank changes (LoRA), with low frequencies kept; and all parameters after training on the distribution that
`metarestore tasks fit` makes of the same five pairs. PSNR-Y of photographs, or of their central 512x512 pixels, over
bicubic upscaling.

Finished comparisons are not repeated. The data are not part of this repository: DATA needs real_pairs/CAMERA with lr/
and hr/, and train/ with photographs.

Run:     python experiments/studies/camera_adaptation.py DATA --networks NAME_OR_FILE:RATE... --out OUT
Results: OUT/camera_adaptation.md and OUT/camera_adaptation.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from links import link_photographs
from numpy.typing import NDArray

from metarestore.config.dump import dump_yaml
from metarestore.evaluation.statistics import crossed_difference, paired_difference
from metarestore.models.checkpoint import network_description, network_file

CAMERAS = ("realsr_canon5d3", "realsr_nikond810", "drealsr_panasonic", "drealsr_dsc", "drealsr_img")

SHOTS = 5
SIDE = 512
"""Side of shots and test crops at most, in HR pixels."""
PATCH, BATCH = 128, 8
"""Side of an HR patch, and patches of a step, in adaptation and training."""

BOTH, HR = ({"model": {"keep_low_frequencies": value}} for value in ("both", "hr"))
LORA = {"lora": 4}
LORA_RATE = 5
"""Learning rate of low-rank changes, relative to that of all parameters."""


class Network(NamedTuple):
    """A trained network: its file, and the learning rate of its adaptation."""

    name: str
    file: Path
    rate: float


def network_of(text: str) -> Network:
    """Reads NETWORK:RATE."""
    name, rate = text.rsplit(":", 1)
    return Network(Path(name).stem, network_file(name).resolve(), float(rate))


def arms_of(network: Network, camera: str, steps: int, fitted_steps: int) -> dict[str, Any]:
    """Returns the arms of a comparison, as patches of the experiment."""
    fitted = {"graph": {"auxiliary": [f"{camera}_fitted"]}, "training": {"steps": fitted_steps}}
    tail, lora = (
        {"adaptation": {"adapts": what, "lr": rate}}
        for what, rate in (("tail", network.rate), (LORA, LORA_RATE * network.rate))
    )
    return {
        "unadapted": {"adaptation": {"steps": 0}},
        "all": {},
        "all_hr_kept": HR,
        "all_kept": BOTH,
        "tail_kept": BOTH | tail,
        "lora_kept": BOTH | lora,
        "fitted": BOTH | fitted | {"adaptation": {"steps": 0}},
        "fitted_all_kept": BOTH | fitted,
    }


def experiment_of(network: Network, camera: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Writes the comparison of one network on one camera."""
    spec, scale = network_description(network.file)
    optimizer = {"kind": "adam", "lr": network.rate, "schedule": "cosine"}
    return {
        "seed": seed,
        "scale": scale,
        "data": {"train": str(options.out.resolve() / "train")},
        "graph": {"target": camera, "auxiliary": ["bicubic"], "estimator": {"kind": "uniform"}},
        "model": spec.model_dump(mode="json"),
        "learner": {"kind": "pretrain"},
        "training": {
            "init": str(network.file),
            "steps": 0,
            "tasks_per_step": BATCH // 2,
            "shard_size": BATCH // 2,
            "support": 1,
            "query": 1,
            "patch": PATCH,
            "optimizer": optimizer,
        },
        "adaptation": {
            "shots": SHOTS,
            "shot_size": SIDE,
            "steps": options.steps,
            "lr": network.rate,
            "schedule": "cosine",
            "patch": PATCH,
            "batch": BATCH,
        },
        "evaluation": {"crop": SIDE, "crops": 1, "every": 1000},
        "engine": {"kind": "local"},
        "arms": arms_of(network, camera, options.steps, options.fitted_steps),
    }


def make_project(options: argparse.Namespace) -> None:
    """Writes the tasks: each camera, and the distribution fitted to its shots."""
    for name in ("tasks", "experiments"):
        (options.out / name).mkdir(parents=True, exist_ok=True)
    link_photographs(options.data / "train", options.out / "train", PATCH)
    for camera in options.cameras:
        pairs = (options.data / "real_pairs" / camera).resolve()
        task = f"kind: pairs\nscale: 4\nlr: {pairs}/lr\nhr: {pairs}/hr\nsupport_pool: {SHOTS}\n"
        (options.out / f"tasks/{camera}.yaml").write_text(task)
        fitted = options.out / f"tasks/{camera}_fitted.yaml"
        if not fitted.exists():
            run("tasks", "fit", "--pairs", str(pairs), "--count", str(SHOTS), "--out", str(fitted))


def run(*arguments: str) -> None:
    """Runs a command of metarestore."""
    subprocess.run([sys.executable, "-m", "metarestore", *arguments], check=True)


def compare(network: Network, camera: str, seed: int, options: argparse.Namespace) -> dict[str, NDArray[np.float64]]:
    """Returns the gain over bicubic upscaling of each arm, by photograph."""
    name = f"{network.name}_{camera}_seed{seed}"
    out = options.out / name
    if not (out / "results.json").exists():
        experiment = options.out / f"experiments/{name}.yaml"
        dump_yaml(experiment_of(network, camera, seed, options), experiment)
        run("compare", str(experiment), "--out", str(out), *(["--resume"] if (out / "run.json").exists() else []))
    found = json.loads((out / "results.json").read_text())
    psnr = {name: np.asarray(arm["psnr_y"]) for name, arm in found["arms"].items()}
    return {arm: values - psnr["bicubic"] for arm, values in psnr.items() if arm != "bicubic"}


Gains = Mapping[str, Sequence[NDArray[np.float64]]]
"""Gains of each arm, for each seed by photograph."""


def table(network: str, found: Mapping[str, Gains]) -> str:
    """Writes the table of one network: the mean of each arm on each camera."""
    arms = list(next(iter(found.values())))
    lines = [f"| {network} | {' | '.join(found)} | mean |", "| :-- |" + " --: |" * (len(found) + 1)]
    for arm in arms:
        means = [float(np.mean(gains[arm])) for gains in found.values()]
        lines.append(f"| {arm} | {' | '.join(f'{mean:+.2f}' for mean in means)} | {np.mean(means):+.2f} |")
    for a, b in (("all_kept", "all"), ("all_kept", "unadapted"), ("fitted_all_kept", "all_kept")):
        cells = [interval(np.stack(gains[a]) - np.stack(gains[b])) for gains in found.values()]
        lines.append(f"| {a} − {b} | {' | '.join(cells)} | |")
    return "\n".join(lines)


def interval(differences: NDArray[np.float64]) -> str:
    """Writes the mean of differences (seeds, photographs), with its 95% interval."""
    one = len(differences) == 1
    result = (
        paired_difference(differences[0], np.zeros_like(differences[0])) if one else crossed_difference(differences)
    )
    return f"{result.mean:+.2f} [{result.low:+.2f}, {result.high:+.2f}]"


PAGE = """\
# Adapting trained networks to five pairs of a camera

dB of PSNR-Y over bicubic upscaling, single forward pass, the first five pairs by name as the shots; tested on
{counts}. {steps} Adam steps on batches of {batch} patches of {patch}x{patch} HR pixels, cosine decay; rates: {rates}
({lora} times as high for `lora_kept`, low-rank changes of rank 4). `all`: all parameters; `_hr_kept`: the low
frequencies of LR are kept in the HR images that are learned from; `_kept`: also in the output; `tail`: the last layer;
`fitted`: first trained for {fitted_steps} steps on the distribution fitted to the five pairs, unadapted. Differences
with 95% intervals over photographs{over_seeds}.

Command: `{command}`; {date}, 2 cores, one thread.

{tables}
"""


def main() -> None:
    """Runs all comparisons, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--networks", nargs="+", type=network_of, required=True, metavar="NETWORK:RATE")
    parser.add_argument("--cameras", nargs="+", choices=CAMERAS, default=CAMERAS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--fitted-steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("runs/camera_adaptation"))
    options = parser.parse_args()
    make_project(options)
    found: dict[str, dict[str, Gains]] = {}
    for network in options.networks:
        for camera in options.cameras:
            seeds = [compare(network, camera, seed, options) for seed in options.seeds]
            gains = {arm: [one[arm] for one in seeds] for arm in seeds[0]}
            found.setdefault(network.name, {})[camera] = gains
        write(options, found)


def write(options: argparse.Namespace, found: Mapping[str, Mapping[str, Gains]]) -> None:
    """Writes page and figures of the networks that are finished."""
    numbers = {
        network: {camera: {arm: np.stack(one).tolist() for arm, one in gains.items()} for camera, gains in rows.items()}
        for network, rows in found.items()
    }
    (options.out / "camera_adaptation.json").write_text(json.dumps(numbers))
    counts = ", ".join(
        f"{len(next(iter(gains.values()))[0])} pairs of {camera}"
        for camera, gains in next(iter(found.values())).items()
    )
    given = {network.name: network.rate for network in options.networks}
    text = PAGE.format(
        counts=counts,
        steps=options.steps,
        batch=BATCH,
        patch=PATCH,
        lora=LORA_RATE,
        fitted_steps=options.fitted_steps,
        rates=", ".join(f"{name} {given[name]:g}" for name in found),
        over_seeds=f" and {len(options.seeds)} seeds" if len(options.seeds) > 1 else "",
        command=f"python {' '.join(sys.argv)}",
        date=datetime.datetime.now(datetime.UTC).date(),
        tables="\n\n".join(table(network, rows) for network, rows in found.items()),
    )
    (options.out / "camera_adaptation.md").write_text(text)


if __name__ == "__main__":
    main()

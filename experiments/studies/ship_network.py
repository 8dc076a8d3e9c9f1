"""Copies a trained network to experiments/networks/, from where it travels with the package, and writes its card.

The data are not part of this repository: DATA needs valid/ with photographs, on which a network that restores is
measured: on the protocol gaussian8, on bicubic LR (its card then states its gain, by which `metarestore restore`
chooses a network), or with metrics from a file, e.g. after adaptation to each photograph alone. A teacher cannot
restore without HR images; it is measured by the planted relations that it finds on the embedded photographs.

Run:     python experiments/studies/ship_network.py DATA --run RUN --after RUN... --name NAME --purpose TEXT
             --command TEXT [--measure gaussian8 | bicubic | FILE.json]
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import cast

import planted_relations

from metarestore.evaluation.folder import bicubic_restore, evaluate_folder
from metarestore.evaluation.protocol import evaluate_protocol
from metarestore.models.checkpoint import load_model, network_file
from metarestore.models.restore import image_restorer
from metarestore.models.shipped import BICUBIC_LR, Card, folder
from metarestore.project import Project
from metarestore.tasks.spec import Scale
from metarestore.training.state import last_data
from metarestore.workspace.process import prepare_process

PROTOCOL = "gaussian8"
LICENCE = "research use: the sets of photographs carry no licence, or one for research"


PHOTOGRAPHS = "other photographs of BSDS500, Kodak and McMaster"
RESTORED_ON = f"{PROTOCOL}, {PHOTOGRAPHS}; PSNR-Y in dB"
PLANTED_IN = "experiments/studies/planted_relations.py --estimator descriptor --draws 20, on the embedded photographs"


@dataclass(frozen=True)
class Measured:
    """Metrics of a network: by name, on what, and gains over bicubic upscaling by kind of LR."""

    metrics: dict[str, float]
    on: str
    gains: dict[str, float] = field(default_factory=dict)


def measured(data: Path, run: Path, measure: str) -> Measured:
    """Measures a network."""
    if load_model(run).privileged:
        return Measured(found(run), PLANTED_IN)
    if measure.endswith(".json"):
        return Measured(**json.loads(Path(measure).read_text(encoding="utf-8")))
    if measure == "bicubic":
        return on_bicubic(data, run)
    return Measured(restored(data, run), RESTORED_ON)


def on_bicubic(data: Path, run: Path) -> Measured:
    """Measures a network on bicubic LR, also on the photographs of BSDS500 alone."""
    network = load_model(run)
    reports = [
        evaluate_folder(data / "valid", network.scale, restore).images
        for restore in (image_restorer(network), bicubic_restore(network.scale))
    ]
    own, bicubic = ({name: one["psnr_y"] for name, one in report.items()} for report in reports)
    bsds = [name for name in own if name.startswith("bsdtest")]
    metrics = {
        "PSNR-Y": round(fmean(own.values()), 3),
        "bicubic": round(fmean(bicubic.values()), 3),
        "gain on BSDS500": round(fmean(own[name] - bicubic[name] for name in bsds), 3),
    }
    gain = round(metrics["PSNR-Y"] - metrics["bicubic"], 3)
    return Measured(metrics, f"bicubic LR, {PHOTOGRAPHS}; PSNR-Y in dB", {BICUBIC_LR: gain})


def found(run: Path) -> dict[str, float]:
    """Measures how often a network finds planted relations."""
    result = planted_relations.run("descriptor", 0, 20, 128, {"network": str(network_file(run).resolve())})
    names = {"one": "planted found", "two": "both of two found", "family_auc": "family AUC"}
    return {name: round(result[key], 3) for key, name in names.items()}


def restored(data: Path, run: Path) -> dict[str, float]:
    """Measures a network and bicubic upscaling on the protocol."""
    network = load_model(run)
    scale = cast("Scale", network.scale)
    spec = Project(Path.cwd()).protocol(PROTOCOL, scale)
    figures = {}
    for name, restore in (("PSNR-Y", image_restorer(network)), ("bicubic", bicubic_restore(scale))):
        report = evaluate_protocol(PROTOCOL, spec, data / "valid", restore)
        figures[name] = round(report.psnr_y, 3)
    return figures


def card_of(run: Path, before: Sequence[Path], name: str, purpose: str, command: str, measured: Measured) -> Card:
    """Collects what is known of a network."""
    network = load_model(run)
    record = json.loads((run / "run.json").read_text())["study"]
    states = {stage.name: last_data(stage) for stage in (*before, run)}
    learned = {name: spec for name, spec in record["tasks"].items() if name != record["graph"]["target"]}
    tasks = {name: spec["content"] for name, spec in learned.items()}
    return Card(
        name=name,
        purpose=purpose,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        scale=network.scale,
        sha256=hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest(),
        data="photographs of T91, BSDS500 (train, part of test), Kodak and McMaster",
        tasks=tasks,
        seed=record["seed"],
        steps={stage: state["step"] for stage, state in states.items()},
        minutes=round(sum(state["seconds"] for state in states.values()) / 60, 1),
        command=command,
        metrics=measured.metrics,
        measured_on=measured.on,
        date=str(datetime.date.today()),
        gains=measured.gains,
        licence=LICENCE,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--after", type=Path, nargs="*", default=[], help="runs that it started from")
    for option in ("name", "purpose", "command"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--measure", default="gaussian8", help="gaussian8, bicubic, or a file with metrics")
    options = parser.parse_args()
    prepare_process()
    metrics = measured(options.data, options.run, options.measure)
    card = card_of(options.run, options.after, options.name, options.purpose, options.command, metrics)
    folder().mkdir(parents=True, exist_ok=True)
    (folder() / f"{card.name}.safetensors").write_bytes((options.run / "model.safetensors").read_bytes())
    (folder() / f"{card.name}.json").write_text(json.dumps(asdict(card), indent=1) + "\n", encoding="utf-8")

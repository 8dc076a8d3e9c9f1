"""Copies a trained network to experiments/networks/, from where it travels with the package, and writes its card.

The data are not part of this repository: DATA needs valid/ with photographs, on which a network that restores is
measured. A teacher cannot restore without HR images; it is measured by the planted relations that it finds on the
embedded photographs.

Run:     python experiments/studies/ship_network.py DATA --run RUN --after RUN... --name NAME --purpose TEXT
             --command TEXT
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import planted_relations

from metarestore.evaluation.folder import bicubic_restore
from metarestore.evaluation.protocol import evaluate_protocol
from metarestore.models.checkpoint import load_model, network_file
from metarestore.models.restore import image_restorer
from metarestore.models.shipped import Card, folder
from metarestore.project import TASK_FILE, Project
from metarestore.tasks.spec import Scale, content_hash
from metarestore.training.state import last_data
from metarestore.workspace.process import prepare_process

PROTOCOL = "gaussian8"


RESTORED_ON = f"{PROTOCOL}, other photographs of BSDS500, Kodak and McMaster; PSNR-Y in dB"
PLANTED_IN = "experiments/studies/planted_relations.py --estimator descriptor --draws 20, on the embedded photographs"


def measured(data: Path, run: Path) -> tuple[dict[str, float], str]:
    """Measures a network, and tells on what."""
    if load_model(run).privileged:
        return found(run), PLANTED_IN
    return restored(data, run), RESTORED_ON


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


def card_of(data: Path, run: Path, before: Sequence[Path], name: str, purpose: str, command: str) -> Card:
    """Collects what is known of a network."""
    network = load_model(run)
    record = json.loads((run / "run.json").read_text())["study"]
    states = {stage.name: last_data(stage) for stage in (*before, run)}
    metrics, measured_on = measured(data, run)
    learned = {name: spec for name, spec in record["tasks"].items() if name != record["graph"]["target"]}
    tasks = {name: content_hash(TASK_FILE.validate_python(spec)) for name, spec in learned.items()}
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
        metrics=metrics,
        measured_on=measured_on,
        date=str(datetime.date.today()),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--after", type=Path, nargs="*", default=[], help="runs that it started from")
    for option in ("name", "purpose", "command"):
        parser.add_argument(f"--{option}", required=True)
    options = parser.parse_args()
    prepare_process()
    card = card_of(options.data, options.run, options.after, options.name, options.purpose, options.command)
    folder().mkdir(parents=True, exist_ok=True)
    (folder() / f"{card.name}.safetensors").write_bytes((options.run / "model.safetensors").read_bytes())
    (folder() / f"{card.name}.json").write_text(json.dumps(asdict(card), indent=1) + "\n", encoding="utf-8")

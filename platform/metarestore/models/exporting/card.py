"""The card beside an exported network: what it is, where it comes from, and how it was measured."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from metarestore.config.yaml_text import YamlError, parse_yaml
from metarestore.files import write_atomically
from metarestore.models.shipped import read_card, shipped

_ADAPTED = "adapted.safetensors"
_UNKNOWN_LICENCE = "not stated: that of the photographs that the network was trained on applies"


def source_of(file: Path) -> dict[str, Any]:
    """Describes the file of a network, and the training and results that are known of it."""
    content = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    names = {path.resolve(): name for name, path in shipped().items()}
    if (name := names.get(file.resolve())) is not None:
        return {"name": name, "source": content, **_of_shipped(name)}
    return {"name": _name(file), "source": content, **_of_run(file)}


def _name(file: Path) -> str:
    """Returns the name of a run or of a file."""
    named = file.parent if file.name in {_ADAPTED, "model.safetensors"} else file
    return named.resolve().name if named != file else file.stem


def _of_shipped(name: str) -> dict[str, Any]:
    card = read_card(shipped()[name])
    return {
        "trained_on": {"data": card.data, "tasks": sorted(card.tasks)},
        "measured": {"gains_psnr_y_db": card.gains, "metrics": card.metrics, "on": card.measured_on},
        "licence_of_data": card.licence,
    }


def _of_run(file: Path) -> dict[str, Any]:
    """Describes the run that a file belongs to, as far as its folder does."""
    configuration = _configuration(file.parent / "config.yaml")
    if configuration is None:
        return {"trained_on": None, "measured": None, "licence_of_data": _UNKNOWN_LICENCE}
    graph, training = configuration.get("graph") or {}, configuration.get("training") or {}
    start, adaptation = training.get("init"), configuration.get("adaptation") or {}
    trained = {
        "target": graph.get("target"),
        "tasks": graph.get("auxiliary"),
        "data": configuration.get("data"),
        "learner": (configuration.get("learner") or {}).get("kind"),
        "steps": training.get("steps"),
        "started_from": start,
    }
    if file.name == _ADAPTED:
        trained["adapted_to"] = {"shots": adaptation.get("shots"), "steps": adaptation.get("steps")}
    licence = _UNKNOWN_LICENCE
    if start in shipped():
        licence = f"{_UNKNOWN_LICENCE}; of {start}: {read_card(shipped()[start]).licence}"
    return {"trained_on": trained, "measured": _measured(file), "licence_of_data": licence}


def _configuration(file: Path) -> Mapping[str, Any] | None:
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))[0]
    except (OSError, UnicodeDecodeError, YamlError):
        return None
    return content if isinstance(content, dict) else None


def _measured(file: Path) -> dict[str, Any] | None:
    """Returns a run's gain over bicubic upscaling on the photographs of its target, if it is recorded."""
    folder, arm = file.parent, None
    if folder.parent.name == "arms":
        folder, arm = folder.parent.parent, folder.name
    try:
        arms = json.loads((folder / "results.json").read_text(encoding="utf-8"))["arms"]
        bicubic = arms["bicubic"]
        own = arms[arm] if arm is not None else next(one for name, one in arms.items() if name != "bicubic")
        psnr_y = fmean(own["psnr_y"]) if file.name == _ADAPTED else float(own["psnr_y_by_step"][0])
        gain, photographs = psnr_y - fmean(bicubic["psnr_y"]), len(bicubic["psnr_y"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration):
        return None
    if not math.isfinite(gain):
        return None
    return {"gain_psnr_y_db": round(gain, 3), "photographs": photographs, "on": "test photographs of the target"}


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Writes a card as JSON."""
    write_atomically(path, json.dumps(card, indent=1, ensure_ascii=False) + "\n")

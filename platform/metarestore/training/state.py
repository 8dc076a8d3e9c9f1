"""The state of a training run, and its checkpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from metarestore.errors import UserError
from metarestore.files import write_atomically
from metarestore.graphs.relations import Relations
from metarestore.training.log import LogRow
from metarestore.training.optimizer import OuterOptimizer

_TENSORS, _DATA = "state.safetensors", "state.json"
_CARRIED = "relations.carried"


@dataclass
class TrainState:
    """Everything that the next outer step depends on, and the log of the previous steps."""

    optimizer: OuterOptimizer
    step: int = 0
    relations: Relations | None = None
    norms: list[float] = field(default_factory=list)
    """EMA of each distribution's gradient norm, for `balance: ema`."""
    log: list[LogRow] = field(default_factory=list)
    """One row per outer step."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    """Wall time of all steps, including relation estimates."""
    relating: float = 0.0
    """Wall time of the relation estimates."""


def save_state(folder: Path, state: TrainState, keep: int = 1) -> None:
    """Writes the checkpoint of a step and removes all but the last `keep` checkpoints.

    The JSON file is written last and refers to the tensors, so a crash or a full disk leaves the previous checkpoint
    intact.

    Raises:
        UserError: The disk is full, or the folder is not writable.
    """
    name = f"{state.step:08d}"
    tensors = state.optimizer.tensors()
    if state.relations is not None and state.relations.carried is not None:
        tensors[_CARRIED] = torch.from_numpy(state.relations.carried)
    write_atomically(folder / f"{name}.{_TENSORS}", save(tensors))
    data = {
        "step": state.step,
        "tensors": f"{name}.{_TENSORS}",
        "relations": None if state.relations is None else state.relations.to_json(),
        "norms": state.norms,
        "log": [row.to_json() for row in state.log],
        "validation": state.validation,
        "seconds": state.seconds,
        "relating": state.relating,
    }
    write_atomically(folder / f"{name}.{_DATA}", json.dumps(data).encode())
    _remove_old(folder, keep)


def _remove_old(folder: Path, keep: int) -> None:
    """Removes all checkpoints but the last `keep`, and temporary files of interrupted writes."""
    kept = {path.name.split(".")[0] for path in sorted(folder.glob(f"*.{_DATA}"))[-keep:]}
    # Data files are removed first: tensors without data are ignored, data without tensors would be a broken checkpoint.
    for old in [folder / _DATA, *folder.glob(f"*.{_DATA}"), *folder.glob(f"*.{_TENSORS}"), *folder.glob(".*.part")]:
        if old.name.split(".")[0] not in kept:
            old.unlink(missing_ok=True)


def last_checkpoint(folder: Path) -> Path | None:
    """Returns the data file of the last checkpoint in a folder; file names start with the zero-padded step."""
    legacy = folder / _DATA  # written by version 0.1
    return max(folder.glob(f"*.{_DATA}"), default=legacy if legacy.is_file() else None)


def last_data(run: Path) -> dict[str, Any]:
    """Returns the data of the last checkpoint of a run: its step, log, validation PSNR and wall time.

    Raises:
        UserError: There is no checkpoint.
    """
    path = last_checkpoint(run / "checkpoints")
    if path is None:
        raise UserError(f"{run}: has no checkpoint; give the folder of a run")
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def load_state(folder: Path, state: TrainState) -> bool:
    """Loads the last checkpoint in a folder into `state`; returns whether there was one.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    path = last_checkpoint(folder)
    if path is None:
        return False
    try:
        data = json.loads(path.read_text())
        tensors = load((folder / data["tensors"]).read_bytes())
        carried = tensors.pop(_CARRIED, None)
        state.optimizer.restore(tensors)
        state.step = data["step"]
        state.relations = None if data["relations"] is None else Relations.from_json(data["relations"])
        if state.relations is not None and carried is not None:
            state.relations = replace(state.relations, carried=carried.numpy())
        state.norms = data["norms"]
        state.log = [LogRow.from_json(row) for row in data["log"]]
        state.validation = [(int(step), float(psnr)) for step, psnr in data["validation"]]
        state.seconds = data["seconds"]
        state.relating = data.get("relating", 0.0)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error!r}); remove it to resume from the previous checkpoint or from the start"
        ) from error
    return True

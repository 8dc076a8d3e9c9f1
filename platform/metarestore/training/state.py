"""The state of a training run, and its checkpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from metarestore.errors import UserError
from metarestore.graphs.relations import Relations
from metarestore.models.checkpoint import write_atomically
from metarestore.training.optimizer import OuterOptimizer

_TENSORS, _DATA = "state.safetensors", "state.json"


@dataclass
class TrainState:
    """Everything that the next outer step depends on, and the log of the steps behind."""

    optimizer: OuterOptimizer
    step: int = 0
    relations: Relations | None = None
    norms: list[float] = field(default_factory=list)
    """Running mean of each distribution's gradient norm, for `balance: ema`."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """One row per outer step."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0


def save_state(folder: Path, state: TrainState) -> None:
    """Writes a checkpoint; the JSON file comes last and names the tensors, so a crash leaves the one before intact."""
    tensors = f"{state.step:08d}.{_TENSORS}"
    write_atomically(folder / tensors, save(state.optimizer.tensors()))
    data = {
        "step": state.step,
        "tensors": tensors,
        "relations": None if state.relations is None else state.relations.to_json(),
        "norms": state.norms,
        "log": state.log,
        "validation": state.validation,
        "seconds": state.seconds,
    }
    write_atomically(folder / _DATA, json.dumps(data).encode())
    for old in folder.glob(f"*.{_TENSORS}"):
        if old.name != tensors:
            old.unlink()


def load_state(folder: Path, state: TrainState) -> bool:
    """Takes over the checkpoint in a folder; returns whether there was one.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    path = folder / _DATA
    if not path.is_file():
        return False
    try:
        data = json.loads(path.read_text())
        state.optimizer.restore(load((folder / data["tensors"]).read_bytes()))
        state.step = data["step"]
        state.relations = None if data["relations"] is None else Relations.from_json(data["relations"])
        state.norms = data["norms"]
        state.log = data["log"]
        state.validation = [(int(step), float(psnr)) for step, psnr in data["validation"]]
        state.seconds = data["seconds"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{folder}: cannot be read ({error!r}); remove the folder to start again") from error
    return True

"""Trained networks on disk: safetensors with what is needed to rebuild the network."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from metarestore.config.experiment import FSRCNNModel
from metarestore.errors import UserError
from metarestore.models.build import build_model
from metarestore.models.fsrcnn import FSRCNN
from metarestore.models.parameters import Layout

# One metadata key only: safetensors writes several in arbitrary order, and equal weights must give equal bytes.
_KEY = "metarestore"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Raises:
        UserError: The folder cannot be written to, or the disk is full; what was there before is as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        remedy = "make room, then go on" if full else "choose another place"
        raise UserError(f"{path}: cannot be written ({error.strerror}); {remedy}") from error


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut: the name of a file belongs to its folder, which has to be written too."""
    if os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_model(path: Path, spec: FSRCNNModel, scale: int, flat: Tensor) -> None:
    """Writes a network's parameters (P,) with its specification; equal input gives equal bytes."""
    layout = Layout.of(build_model(spec, scale, seed=0))
    tensors = {name: value.contiguous() for name, value in layout.unflatten(flat.detach().cpu()).items()}
    description = json.dumps({"model": spec.model_dump(mode="json"), "scale": scale}, sort_keys=True)
    write_atomically(path, save(tensors, {_KEY: description}))


def load_model(path: Path) -> FSRCNN:
    """Reads a network written by `save_model`; a folder stands for the `model.safetensors` in it.

    Raises:
        UserError: There is no such file, or it is not a network of ours.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such file; give a run's folder or its model.safetensors")
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{file}: not a safetensors file ({error})") from error
    if _KEY not in metadata:
        raise UserError(f"{file}: was not written by metarestore; its metadata has no '{_KEY}' entry")
    try:
        description = json.loads(metadata[_KEY])
        model = build_model(FSRCNNModel.model_validate(description["model"]), description["scale"], seed=0)
        model.load_state_dict(tensors)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: its weights do not fit its description ({reason}); take another file") from error
    return model.eval()

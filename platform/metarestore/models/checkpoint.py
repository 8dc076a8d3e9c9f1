"""Trained networks on disk: safetensors with what is needed to rebuild the network."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from metarestore.config.model import AnyModelSpec, ModelSpec
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.models.shipped import shipped

if TYPE_CHECKING:
    from torch import Tensor

    from metarestore.models.network import Network

# One metadata key only: safetensors writes several in arbitrary order, and equal weights must give equal bytes.
_KEY = "metarestore"

_FREE = ("estimator", "embedding")
"""What may differ between a KDSR and the one it starts from."""

_SPEC: TypeAdapter[AnyModelSpec] = TypeAdapter(ModelSpec)


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


def require_writable(path: Path, option: str) -> None:
    """Finds out before hours of work, not after, whether a file can be written.

    Args:
        path: The file.
        option: The option that names it, for the message.

    Raises:
        UserError: It is a folder, or its folder is missing or not the user's.
    """
    parent = path.absolute().parent
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"{option}: {path} cannot be written; name a file in a folder that exists and is yours")


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut: the name of a file belongs to its folder, which has to be written too."""
    if os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_model(path: Path, spec: AnyModelSpec, scale: int, flat: Tensor) -> None:
    """Writes a network's parameters (P,) with its specification; equal input gives equal bytes."""
    from safetensors.torch import save

    from metarestore.models.build import build_model
    from metarestore.models.parameters import Layout

    layout = Layout.of(build_model(spec, scale, seed=0))
    tensors = {name: value.contiguous() for name, value in layout.unflatten(flat.detach().cpu()).items()}
    description = json.dumps({"model": spec.model_dump(mode="json"), "scale": scale}, sort_keys=True)
    write_atomically(path, save(tensors, {_KEY: description}))


def load_model(path: Path) -> Network:
    """Reads a network written by `save_model`.

    Args:
        path: Its file, the folder of its run, or the name of a shipped network.

    Raises:
        UserError: There is no such file, or it is not a network of ours.
    """
    return _read(path)[0].eval()


def load_vector(path: Path, spec: AnyModelSpec, scale: int, key: str, fresh: Network) -> Tensor:
    """Reads the parameters (P,) of a network that must be of the given kind.

    A KDSR may start from one with another estimator, or without: the restorer is taken from it, the estimator from
    `fresh`. Estimators start near 1, which is what a network without one has for an embedding.

    Args:
        path: As for `load_model`.
        spec: The network that is wanted.
        scale: Its upscaling factor.
        key: Key of the configuration that names the file, for the message.
        fresh: The network with its initial weights.

    Raises:
        UserError: There is no such file, or it is not a network of ours, or another one.
    """
    from metarestore.models.parameters import Layout, initial_vector

    try:
        model, found, found_scale = _read(path)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    wanted = spec.model_dump() | {"scale": scale}
    given = found.model_dump() | {"scale": found_scale}
    names = [name for name in wanted if name not in _FREE] if spec.kind == found.kind else ["kind"]
    differing = [name for name in names if wanted[name] != given[name]]
    if differing:
        text = ", ".join(f"{name} {given.get(name)} where {wanted[name]} is wanted" for name in differing)
        raise UserError(f"{key}: {path} holds another network ({text}); make model and scale those of the file")
    if wanted.get("estimator") == given.get("estimator"):
        return initial_vector(model)
    layout, taken = Layout.of(fresh), dict(model.named_parameters())
    own = dict(fresh.named_parameters())
    return layout.flatten({name: (taken if name.startswith("restorer.") else own)[name].detach() for name in own})


def network_hash(path: Path) -> str:
    """Returns 16 hex digits that change with a network's file, which is named as for `load_model`."""
    return hashlib.blake2b(network_file(path).read_bytes(), digest_size=8).hexdigest()


def network_file(path: Path) -> Path:
    """Returns the file of a network: of a folder the `model.safetensors` in it, of a shipped network's name its file.

    Raises:
        UserError: There is none.
    """
    known = shipped()
    if not path.exists() and str(path) in known:
        return known[str(path)]
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        hint = did_you_mean(str(path), known, noun="shipped networks")
        raise UserError(f"{file}: no such file; give a run's folder or its model.safetensors{hint}")
    return file


def _read(path: Path) -> tuple[Network, AnyModelSpec, int]:
    """Reads a network, its specification and its scale."""
    file = network_file(path)

    from metarestore.models.build import build_model

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
        spec, scale = _SPEC.validate_python(description["model"]), int(description["scale"])
        model = build_model(spec, scale, seed=0)
        model.load_state_dict(tensors)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: its weights do not fit its description ({reason}); take another file") from error
    return model, spec, scale

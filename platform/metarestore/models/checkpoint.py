"""Trained networks on disk: safetensors with what is needed to rebuild the network."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError, safe_open

from metarestore.config.model import AnyModelSpec, ModelSpec
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.files import write_atomically
from metarestore.models.shipped import shipped

if TYPE_CHECKING:
    from torch import Tensor

    from metarestore.models.network import Network

# One metadata key only: safetensors writes several in arbitrary order, and equal weights must give equal bytes.
_KEY = "metarestore"

_SPEC: TypeAdapter[AnyModelSpec] = TypeAdapter(ModelSpec, config=ConfigDict(defer_build=True))


def save_model(path: Path, spec: AnyModelSpec, scale: int, flat: Tensor) -> None:
    """Writes a network's parameters (P,) with its specification; equal input gives equal bytes."""
    from safetensors.torch import save

    from metarestore.models.build import build_model
    from metarestore.models.parameters import Layout

    layout = Layout.of(build_model(spec, scale, seed=0))
    tensors = {name: value.contiguous() for name, value in layout.unflatten(flat.detach().cpu()).items()}
    description = json.dumps({"model": spec.model_dump(mode="json"), "scale": scale}, sort_keys=True)
    write_atomically(path, save(tensors, {_KEY: description}))


def load_model(path: str | os.PathLike[str]) -> Network:
    """Reads a network written by `save_model`.

    Args:
        path: Its file, the folder of its run, or the name of a shipped network.

    Raises:
        UserError: There is no such file, or it is not a network of ours.
    """
    return _read(Path(path))[0].eval()


def load_vector(path: Path, spec: AnyModelSpec, scale: int, key: str, fresh: Network) -> Tensor:
    """Reads the parameters (P,) of a network that must be of the given kind.

    A network may differ in what its class calls interchangeable; the class says what is taken then.

    Args:
        path: As for `load_model`.
        spec: The network that is wanted.
        scale: Its upscaling factor.
        key: Key of the configuration that names the file, for the message.
        fresh: The network with its initial weights.

    Raises:
        UserError: There is no such file, or it is not a network of ours, or another one.
    """
    from metarestore.models.parameters import Layout

    try:
        model, found, found_scale = _read(path)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    wanted, given = ({**dict(one), "scale": factor} for one, factor in ((spec, scale), (found, found_scale)))
    names = [name for name in wanted if name not in fresh.interchangeable] if spec.kind == found.kind else ["kind"]
    differing = [name for name in names if wanted[name] != given[name]]
    if differing:
        text = ", ".join(f"{name} {given.get(name)} where {wanted[name]} is wanted" for name in differing)
        raise UserError(f"{key}: {path} holds another network ({text}); make model and scale those of the file")
    try:
        return Layout.of(fresh).flatten(fresh.started_from(model)).clone()
    except ValueError as error:
        raise UserError(f"{key}: {path} is nothing to start from: {error}; name another file") from error


def network_hash(path: str | os.PathLike[str]) -> str:
    """Returns 16 hex digits that change with a network's file, which is named as for `load_model`."""
    return hashlib.blake2b(network_file(path).read_bytes(), digest_size=8).hexdigest()


def network_file(path: str | os.PathLike[str]) -> Path:
    """Returns the file of a network: of a folder the `model.safetensors` in it, of a shipped network's name its file.

    Raises:
        UserError: There is none.
    """
    path, known = Path(path), shipped()
    if not path.exists() and str(path) in known:
        return known[str(path)]
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        if arms := sorted(map(str, path.glob("arms/*/model.safetensors"))):
            raise UserError(f"{path}: is a comparison; name the folder of an arm, e.g. {Path(arms[0]).parent}")
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

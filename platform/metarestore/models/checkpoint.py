"""Saves and loads trained networks: safetensors with the specification needed to rebuild the network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter

from metarestore.config.model import AnyModelSpec, ModelSpec, SpandrelSpec
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.files import write_atomically
from metarestore.models.shipped import shipped
from metarestore.models.tensor_file import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from metarestore.models.network import Network

# A single metadata key: safetensors writes several keys in arbitrary order, but equal weights must give equal bytes.
_KEY = "metarestore"

_SPEC: TypeAdapter[AnyModelSpec] = TypeAdapter(ModelSpec, config=ConfigDict(defer_build=True))


def save_model(path: Path, spec: AnyModelSpec, scale: int, flat: Tensor) -> None:
    """Writes a network's parameters (P,) with its specification; equal inputs give equal bytes."""
    from safetensors.torch import save

    from metarestore.models.build import build_model
    from metarestore.models.parameters import Layout

    network = build_model(spec, scale, seed=0)
    stored = network.stored(Layout.of(network).unflatten(flat.detach().cpu()))
    tensors = {name: value.contiguous() for name, value in stored.items()}
    description = json.dumps({"model": spec.stored(), "scale": scale}, sort_keys=True)
    write_atomically(path, save(tensors, {_KEY: description}))


def load_model(path: str | os.PathLike[str]) -> Network:
    """Reads a network written by `save_model`, or one of another project that spandrel recognises.

    Args:
        path: The network's file, the folder of its run, or the name of a shipped network.

    Raises:
        UserError: The file does not exist, or is not a network that metarestore or spandrel can open.
    """
    return _read(Path(path))[0].eval()


def network_description(path: str | os.PathLike[str]) -> tuple[AnyModelSpec, int]:
    """Returns the specification and the scale of a network, which is given as for `load_model`.

    Raises:
        UserError: The file does not exist, or is not a network that metarestore or spandrel can open.
    """
    _, spec, scale = _read(Path(path))
    return spec, scale


def network_of_file(scale: int, path: Path) -> Network:
    """Opens a network of another project for an experiment.

    Args:
        scale: Upscaling factor of the experiment.
        path: As for `load_model`.

    Raises:
        UserError: The file is not such a network, or the network has another scale.
    """
    try:
        file = network_file(path)
        network = _foreign(file, read_tensors(file)[0])
    except UserError as error:
        raise UserError(f"model.path: {error}") from error
    if network.scale != scale:
        raise UserError(
            f"model.path: {file} upscales by {network.scale}, but the experiment by {scale}; "
            f"set scale: {network.scale}, or choose another file"
        )
    return network


def load_vector(path: Path, spec: AnyModelSpec, scale: int, key: str, fresh: Network) -> Tensor:
    """Reads the parameters (P,) of a network that must have the given architecture.

    A network may differ in the keys that its class lists as interchangeable; the class then selects the parameters.

    Args:
        path: As for `load_model`.
        spec: Specification of the expected network.
        scale: Its upscaling factor.
        key: Configuration key of the file, for error messages.
        fresh: The network with its initial weights.

    Raises:
        UserError: The file does not exist, is not a metarestore network, or contains another network.
    """
    from metarestore.models.parameters import Layout

    try:
        model, file_spec, file_scale = _read(path)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    expected, given = ({**dict(one), "scale": factor} for one, factor in ((spec, scale), (file_spec, file_scale)))
    names = [name for name in expected if name not in (*fresh.interchangeable, "keep_low_frequencies")]
    names = names if spec.kind == file_spec.kind else ["kind"]
    differing = [name for name in names if expected[name] != given[name]]
    if differing:
        text = ", ".join(f"{name} is {given.get(name)}, expected {expected[name]}" for name in differing)
        raise UserError(f"{key}: {path} contains another network ({text}); set model and scale to match the file")
    try:
        return Layout.of(fresh).flatten(fresh.started_from(model)).clone()
    except ValueError as error:
        raise UserError(f"{key}: {path} cannot initialise this network: {error}; choose another file") from error


def network_hash(path: str | os.PathLike[str]) -> str:
    """Returns a hash (16 hex digits) of a network's file, which is given as for `load_model`."""
    return hashlib.blake2b(network_file(path).read_bytes(), digest_size=8).hexdigest()


def network_file(path: str | os.PathLike[str]) -> Path:
    """Returns the file of a network, given the file, a folder with a `model.safetensors`, or a shipped network's name.

    Raises:
        UserError: There is no such file.
    """
    path, known = Path(path), shipped()
    if not path.exists() and str(path) in known:
        return known[str(path)]
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        if arms := sorted(map(str, path.glob("arms/*/model.safetensors"))):
            raise UserError(f"{path}: is a study; give the folder of one of its arms, e.g. {Path(arms[0]).parent}")
        hint = did_you_mean(str(path), known, noun="shipped networks")
        raise UserError(f"{file}: no such file; give a run's folder or its model.safetensors{hint}")
    return file


def _read(path: Path) -> tuple[Network, AnyModelSpec, int]:
    """Reads a network, its specification and its scale."""
    file = network_file(path)

    from metarestore.models.build import build_model

    tensors, metadata = read_tensors(file)
    try:
        description = json.loads(metadata.get(_KEY, '{"model": {"kind": "spandrel"}}'))
        if description["model"].get("kind") == "spandrel":
            foreign = SpandrelSpec(**description["model"], path=file)
            model = _foreign(file, tensors)
            if foreign.keep_low_frequencies == "both":
                model.keep_low_frequencies()
            return model, foreign, model.scale
        spec, scale = _SPEC.validate_python(description["model"]), int(description["scale"])
        model = build_model(spec, scale, seed=0)
        model.load_state_dict(tensors)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: its weights do not match its description ({reason}); give another file") from error
    return model, spec, scale


def _foreign(file: Path, tensors: Mapping[str, Any]) -> Network:
    """Builds the network of another project that tensors belong to."""
    from metarestore.models.spandrel_library import recognise
    from metarestore.models.spandrel_network import SpandrelNetwork

    return SpandrelNetwork(recognise(file, tensors))

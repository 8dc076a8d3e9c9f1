"""Reads the tensors of a network's file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError, safe_open

from metarestore.errors import UserError

PICKLED = frozenset({".pth", ".pt", ".ckpt"})
"""Suffixes of files that are written by `torch.save`."""
_DAMAGED = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError)


def read_tensors(file: Path) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Reads tensors by name, and the metadata of the file; nothing that a file contains is executed.

    Raises:
        UserError: The file is damaged or contains anything but tensors.
    """
    if file.suffix.lower() in PICKLED:
        return _unpickled(file), {}
    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            return tensors, stored.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{file}: not a safetensors file ({error})") from error


def _unpickled(file: Path) -> dict[str, Any]:
    """Reads a file of `torch.save` that consists of tensors and plain data."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on unusual pickles, which are read or refused all the same
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"{file}: contains more than tensors and was not opened, because such a file could run any code; convert "
            "it to safetensors, or choose another file"
        ) from error
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{file}: cannot be read ({reason}); choose another file") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: contains a {type(content).__name__} instead of tensors by name; choose another file")
    return content

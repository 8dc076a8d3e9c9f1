"""Recognises networks of other projects with the library spandrel, an optional dependency.

spandrel imports torchvision. Its build in the package registry is compiled for CUDA, so beside a CPU build of torch its
operators do not load, and the import fails with "operator torchvision::nms does not exist". No network uses these
operators. If the plain import fails, their schemas are declared, which is all that the import needs.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metarestore.errors import UserError
from metarestore.models.network import Channels

INSTALL = "pip install 'metarestore[spandrel]'"
_SCALES = (2, 3, 4)
_OPERATORS = ("nms", "qnms")
_CHANNELS: Mapping[tuple[int, int], Channels] = {(3, 3): "rgb", (1, 1): "y"}
_REFUSALS = (LookupError, ValueError, RuntimeError, AssertionError, TypeError, AttributeError, ArithmeticError)
"""What spandrel's loaders raise on tensors that merely resemble an architecture."""


@dataclass(frozen=True)
class Recognised:
    """A network that spandrel has recognised, with its weights.

    Attributes:
        architecture: Name of the architecture.
        module: The network.
        call: Restores images with the module, not clamped.
        scale: Upscaling factor.
        channels: Whether images are luma or RGB.
        padding: Returns the columns and rows to add to an image, given its width and height.
        multiple: The sides of an image must be a multiple of this number.
        minimum: The smallest side of an image.
        square: Whether images must be square.
    """

    architecture: str
    module: nn.Module
    call: Callable[[nn.Module, Tensor], Tensor]
    scale: int
    channels: Channels
    padding: Callable[[int, int], tuple[int, int]]
    multiple: int
    minimum: int
    square: bool


def recognise(file: Path, tensors: Mapping[str, Any]) -> Recognised:
    """Builds the network that tensors belong to, on the CPU; the global random state is not changed.

    Args:
        file: The file of the tensors, for messages.
        tensors: The content of the file.

    Raises:
        UserError: spandrel is not installed or does not know the architecture, or the network does not restore single
            images at a scale of metarestore.
    """
    loaded = _loaded(file, dict(tensors))
    problem = _problem(loaded)
    if problem is None and not _reopens(loaded, tensors):
        problem = "has tensors that spandrel renames, so that it could not open the network again after training"
    if problem is not None:
        raise UserError(f"{file}: the network ({loaded.architecture.name}) {problem}; choose another file")
    return Recognised(
        loaded.architecture.name,
        loaded.model,
        loaded._call_fn,
        loaded.scale,
        _CHANNELS[loaded.input_channels, loaded.output_channels],
        loaded.size_requirements.get_padding,
        loaded.size_requirements.multiple_of,
        loaded.size_requirements.minimum,
        loaded.size_requirements.square,
    )


def _loaded(file: Path, tensors: dict[str, Any]) -> Any:
    """Returns spandrel's description of a network, with the network itself."""
    spandrel = library(file)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # some architectures are written for earlier versions of torch
            return spandrel.MAIN_REGISTRY.load(tensors)
    except spandrel.UnsupportedModelError as error:
        raise UserError(
            f"{file}: was not written by metarestore, and spandrel does not know its architecture; choose another file"
        ) from error
    except _REFUSALS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{file}: spandrel cannot open it ({reason}); choose another file") from error


def _problem(loaded: Any) -> str | None:
    """Returns why a network cannot be used, if so."""
    purpose = getattr(loaded, "purpose", "")
    if purpose not in ("SR", "Restoration"):
        return f"does not restore single photographs (its purpose is {purpose})"
    if loaded.scale not in _SCALES:
        return f"upscales by {loaded.scale}, but metarestore by 2, 3 or 4"
    if (loaded.input_channels, loaded.output_channels) not in _CHANNELS:
        return (
            f"maps {loaded.input_channels} channels to {loaded.output_channels}, instead of RGB to RGB or luma to luma"
        )
    return None


def _reopens(loaded: Any, tensors: Mapping[str, Any]) -> bool:
    """Whether spandrel recognises the tensors of the network that it has built itself."""
    own = loaded.model.state_dict()
    if set(own) == set(tensors):
        return True
    try:
        again = _loaded(Path(), dict(own))
    except UserError:
        return False
    same = [(one.architecture.id, one.scale, one.input_channels) for one in (loaded, again)]
    return same[0] == same[1] and set(again.model.state_dict()) == set(own)


@cache
def _declared() -> Any:
    """Declares the operators of torchvision that its import asks for; the library must be kept alive."""
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def library(file: Path) -> Any:
    """Imports spandrel to open a file.

    Raises:
        UserError: It is not installed.
    """
    try:
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            _declared()
        return importlib.import_module("spandrel")
    except ImportError as error:
        raise UserError(
            f"{file}: networks of other projects are opened by spandrel, which cannot be imported ({error}); "
            f"install it: {INSTALL}"
        ) from error

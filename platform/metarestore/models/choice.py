"""Selects a network from the folder of a run or study: by default the adapted network of the best arm."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.models.checkpoint import network_file, network_hash

Weights = Literal["adapted", "unadapted"]

_FILES: Mapping[Weights, str] = {"adapted": "adapted.safetensors", "unadapted": "model.safetensors"}


@dataclass(frozen=True)
class Choice:
    """A selected network.

    Attributes:
        file: Its file.
        reason: A description of the network for the user.
    """

    file: Path
    reason: str


def choose_network(
    given: str | os.PathLike[str],
    arm: str | None = None,
    weights: Weights | None = None,
    content: str | None = None,
) -> Choice:
    """Selects a network from the folder of a run or a study.

    Args:
        given: The folder of a run or a study, a file of weights, or the name of a shipped network.
        arm: Arm of a study; by default the arm with the highest mean gain over bicubic upscaling.
        weights: The network before or after its adaptation to the shots; by default after, if that file exists.
        content: Hash of a file (see `network_hash`) to prefer among the two if `weights` is None.

    Raises:
        UserError: There is no such network, or `arm` or `weights` cannot be combined with `given`.
    """
    path = Path(given)
    if not path.is_dir():
        if arm is not None or weights is not None:
            option = "--arm" if arm is not None else "--weights"
            raise UserError(f"{option}: needs the folder of a run, but {given} is not a folder; remove this option")
        return Choice(network_file(path), str(given))
    folder, description = _arm(path, arm)
    files = {kind: folder / name for kind, name in _FILES.items() if (folder / name).is_file()}
    if weights is not None and weights not in files:
        raise UserError(f"--weights: {folder} contains no {weights} network ({_FILES[weights]}); finish the run first")
    if not files:
        return Choice(network_file(folder), description)
    same = [kind for kind, file in files.items() if content is not None and network_hash(file) == content]
    chosen: Weights = [*same, *files][0] if weights is None else weights
    return Choice(files[chosen], f"the {chosen} network of {description}")


def _arm(path: Path, arm: str | None) -> tuple[Path, str]:
    """Returns the folder that contains the weights, and its description."""
    arms = _arms(path)
    if not arms:
        if arm is not None:
            raise UserError(f"--arm: {path} is not a study, so it has no arms; remove this option")
        return path, str(path)
    if arm is None:
        return _best(path, arms)
    if arm not in arms:
        raise UserError(f"--arm: there is no arm '{arm}' in {path}{did_you_mean(arm, arms, noun='arms')}")
    return arms[arm], f"arm '{arm}' of {path}"


def _arms(path: Path) -> dict[str, Path]:
    """Returns the arms of a study that have weights, by name."""
    if any((path / name).is_file() for name in _FILES.values()) or not (path / "arms").is_dir():
        return {}
    folders = sorted(folder for folder in (path / "arms").iterdir() if folder.is_dir())
    return {f.name: f for f in folders if any((f / name).is_file() for name in _FILES.values())}


def _best(path: Path, arms: Mapping[str, Path]) -> tuple[Path, str]:
    """Returns the folder of the arm with the highest mean gain, and its description."""
    gains = {name: gain for name, gain in _gains(path / "results.json").items() if name in arms}
    if not gains:
        raise UserError(f"{path}: has no results yet to select an arm by; add --arm {' or --arm '.join(arms)}")
    best = max(gains, key=lambda name: gains[name])
    among = f", the best of {len(arms)} by mean gain ({gains[best]:+.2f} dB)" if len(arms) > 1 else ""
    return arms[best], f"arm '{best}' of {path}{among}"


def _gains(results: Path) -> dict[str, float]:
    """Returns each arm's mean gain over bicubic in dB, over the photographs with a finite PSNR in both."""
    try:
        results_by_arm: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))["arms"]
        values_by_arm = {name: arm["psnr_y"] for name, arm in results_by_arm.items()}
        bicubic = values_by_arm.pop("bicubic")
        gains = {
            name: [a - b for a, b in zip(arm, bicubic, strict=True) if _finite(a) and _finite(b)]
            for name, arm in values_by_arm.items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: fmean(values) for name, values in gains.items() if values}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)

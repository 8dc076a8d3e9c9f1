"""A small study on the embedded photographs, with task distributions of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarestore.config.experiment import Experiment
from metarestore.project import catalogue, resolve
from metarestore.workspace.study import Study

SMALL: dict[str, Any] = {
    "graph": {
        "target": "phone_camera",
        "auxiliary": ["bicubic", "blur_iso_wide", "noise_gaussian"],
        "estimator": {"kind": "response", "draws": 4},
    },
    "model": {"kind": "fsrcnn", "d": 8, "s": 4, "m": 1},
    "learner": {"kind": "fomaml"},
    "training": {"steps": 4, "tasks_per_step": 4, "shard_size": 2, "support": 2, "query": 2, "patch": 32},
    "adaptation": {"shots": 4, "shot_size": 64, "steps": 2},
    "evaluation": {"crop": 64, "crops": 1},
    "engine": {"kind": "local"},
}


def merged(base: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Replaces top-level sections; a mapping without `kind` is merged into its section."""
    result = dict(base)
    for key, value in changes.items():
        result[key] = {**result.get(key, {}), **value} if isinstance(value, dict) and "kind" not in value else value
    return result


def small_experiment(**changes: Any) -> Experiment:
    """Returns a small experiment with changed sections."""
    return Experiment.model_validate(merged(SMALL, **changes))


def small_study(root: Path | None = None, **changes: Any) -> Study:
    """Returns the study of a small experiment with changed sections.

    Args:
        root: The project's folder; the catalogue if omitted.
        changes: The changed sections.
    """
    return resolve(small_experiment(**changes), root or catalogue())

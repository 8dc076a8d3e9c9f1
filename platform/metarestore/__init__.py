"""metarestore: distributed meta-learning for the restoration of real photographs.

Example:
    >>> import metarestore as mr
    >>> pair = mr.load_task("phone_camera").draw(seed=0, index=3)
    >>> mr.restore(pair.lr, model="fsrcnn_pisr_x4").shape == pair.hr.shape
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarestore.api.images import load_model, restore
    from metarestore.api.runs import Run, load_run, train
    from metarestore.api.tasks import DrawnPair, LoadedTask, load_task
    from metarestore.api.tuning import trainable

__version__ = "0.1.0"

__all__ = [
    "DrawnPair",
    "LoadedTask",
    "Run",
    "load_model",
    "load_run",
    "load_task",
    "restore",
    "train",
    "trainable",
]

_MODULES = {
    **dict.fromkeys(("load_model", "restore"), "images"),
    **dict.fromkeys(("Run", "load_run", "train"), "runs"),
    **dict.fromkeys(("DrawnPair", "LoadedTask", "load_task"), "tasks"),
    "trainable": "tuning",
}


def __getattr__(name: str) -> Any:
    """Imports a function when it is first used: PyTorch, Ray and MLflow take seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module 'metarestore' has no attribute {name!r}")
    return getattr(importlib.import_module(f"metarestore.api.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""What the tests of engines share: a training that hears everything, and its final weights as bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metarestore.engines.local import LocalEngine
from metarestore.engines.ray import RayEngine
from metarestore.learners.workspace import Study, Workspace
from metarestore.training.run import RunFolder, train


class Listener:
    """Hears everything and does something after each step."""

    def __init__(self, act: Callable[[int], None] = lambda step: None) -> None:
        self._act = act

    def step(self, row: dict[str, Any]) -> None:
        self._act(row["step"])

    def validated(self, step: int, psnr: float) -> None:
        pass

    def related(self, step: int, relations: object) -> None:
        pass

    def saved(self, step: int) -> None:
        pass


Weights = Callable[..., bytes]


@pytest.fixture
def weights() -> Weights:
    """Trains a study with an engine, calling `act` after each step, and returns the bytes of the final weights."""

    def train_study(
        study: Study, folder: Path, engine: LocalEngine | RayEngine, act: Callable[[int], None] = lambda step: None
    ) -> bytes:
        run = RunFolder(folder, study, resume=False)
        train(Workspace(study), run, engine.session(study), Listener(act))
        return (folder / "model.safetensors").read_bytes()

    return train_study

"""A tiny network whose estimator is random, and photographs to describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metarestore.config.model import KDSRSpec
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.kdsr import KDSR
from metarestore.models.parameters import initial_vector
from metarestore.tasks.images import write_image


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny KDSR at scale 4 and returns its folder."""

    def save(name: str = "net", seed: int = 0, **options: str) -> Path:
        spec = KDSRSpec(kind="kdsr", size="tiny", **options)
        save_model(tmp_path / name / "model.safetensors", spec, 4, initial_vector(build_model(spec, 4, seed)))
        return tmp_path / name

    return save


@pytest.fixture
def student(saved: Callable[..., Path]) -> KDSR:
    return load_model(saved())


@pytest.fixture
def photographs(tmp_path: Path) -> dict[str, Path]:
    """Two noisy photographs of different brightness."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name, top in (("dark", 80), ("light", 256)):
        write_image(tmp_path / "photos" / f"{name}.png", rng.integers(0, top, (40, 50, 3)).astype(np.uint8))
    return {name: tmp_path / "photos" / f"{name}.png" for name in ("dark", "light")}

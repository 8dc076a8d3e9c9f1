"""What the tests of engines share: clusters, a training that hears everything, and its final weights as bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from metarestore.engines import ray as engine_module
from metarestore.engines.local import LocalEngine
from metarestore.engines.ray import RayEngine
from metarestore.training.log import LogRow, Observer
from metarestore.training.run import RunFolder, train
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace


class Listener(Observer):
    """Hears everything and does something after each step."""

    def __init__(self, act: Callable[[int], None] = lambda step: None) -> None:
        self._act = act

    def step(self, row: LogRow) -> None:
        self._act(row.step)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One local cluster for all tests of a file: starting one takes seconds."""
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def machines() -> Iterator[Cluster]:
    """Several machines; the head offers no CPU, so that removing a machine never removes the driver's."""
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        ray.init(address=machines.address, log_to_driver=False, logging_level="ERROR")
        yield machines
    finally:
        ray.shutdown()
        machines.shutdown()


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Does something before the Ray engine calls one of its functions for the n-th time, and counts the calls.

    A step that sums gradients among workers calls `split` when they are computed, `tree_sum` when they are being
    weighted, and `fetched` when they are being added.
    """

    def hook(name: str, number: int, act: Callable[[], None]) -> list[int]:
        original, calls = getattr(engine_module, name), []

        def hooked(*args: Any) -> Any:
            calls.append(len(calls) + 1)
            if calls[-1] == number:
                act()
            return original(*args)

        monkeypatch.setattr(engine_module, name, hooked)
        return calls

    return hook


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

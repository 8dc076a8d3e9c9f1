"""Ray and local engines give the same bytes, for any number of workers and after a killed one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from metarestore.config.experiment import RayEngine as RaySpec
from metarestore.engines.build import build_engine
from metarestore.engines.local import LocalEngine
from metarestore.engines.ray import RayEngine
from metarestore.errors import UserError
from metarestore.learners.workspace import Study, Workspace
from metarestore.training.run import RunFolder, train

pytestmark = pytest.mark.xdist_group("ray")


class Quiet:
    """Hears everything; kills a worker of an engine after a step."""

    def __init__(self, victim: RayEngine | None = None) -> None:
        self._victim = victim

    def step(self, row: dict[str, Any]) -> None:
        if self._victim is not None and row["step"] == 2:
            os.kill(self._victim.process_ids()[0], signal.SIGKILL)

    def validated(self, step: int, psnr: float) -> None:
        pass

    def related(self, step: int, relations: object) -> None:
        pass

    def saved(self, step: int) -> None:
        pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One local cluster for all tests of this file: starting one takes seconds."""
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def weights(study: Study, folder: Path, engine: LocalEngine | RayEngine, observer: Quiet | None = None) -> bytes:
    run = RunFolder(folder, study, resume=False)
    train(Workspace(study), run, engine.session(study), observer or Quiet())
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("learner", ["pretrain", "fomaml", "maml"])
def test_same_bytes_for_local_and_any_number_of_workers(
    small_study: Callable[..., Study], tmp_path: Path, learner: str
) -> None:
    study = small_study(learner={"kind": learner}, training={"tasks_per_step": 6, "validate_every": 2})
    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    for count in (1, 2, 3):
        with RayEngine(RaySpec(kind="ray", workers=count)) as engine:
            assert weights(study, tmp_path / f"ray{count}", engine) == expected


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_changes_nothing(small_study: Callable[..., Study], tmp_path: Path) -> None:
    study = small_study()
    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    with RayEngine(RaySpec(kind="ray", workers=2)) as engine:
        before = engine.process_ids()
        assert weights(study, tmp_path / "ray", engine, Quiet(engine)) == expected
        assert engine.process_ids() != before, "no worker was killed"


@pytest.mark.usefixtures("cluster")
def test_the_others_take_over_from_a_worker_that_does_not_come_back(
    small_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = small_study()
    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    with RayEngine(RaySpec(kind="ray", workers=2, max_restarts=0)) as engine:
        assert weights(study, tmp_path / "ray", engine, Quiet(engine)) == expected
        assert len(engine.workers) == 1


@pytest.mark.usefixtures("cluster")
def test_a_users_mistake_in_a_worker_is_a_users_error(small_study: Callable[..., Study], tmp_path: Path) -> None:
    study = small_study(training={"patch": 256})
    with RayEngine(RaySpec(kind="ray", workers=1)) as engine, pytest.raises(UserError, match="smaller than"):
        weights(study, tmp_path / "ray", engine)


@pytest.mark.usefixtures("cluster")
def test_more_workers_than_the_cluster_has_room_for() -> None:
    with pytest.raises(UserError, match=r"engine.workers: 64 workers .* room for 3"):
        build_engine(RaySpec(kind="ray", workers=64))


@pytest.mark.usefixtures("cluster")
def test_fractional_workers() -> None:
    with RayEngine(RaySpec(kind="ray", workers=4, cpus_per_worker=0.5)) as engine:
        assert len(set(engine.process_ids())) == 4

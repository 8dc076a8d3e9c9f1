"""Ray and local engines give the same bytes, for any number of workers and after a killed one."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from metarestore.config.engine import RayEngineSpec
from metarestore.engines.build import build_engine
from metarestore.engines.local import LocalEngine
from metarestore.engines.ray import RayEngine
from metarestore.errors import UserError
from metarestore.workspace.study import Study

Weights = Callable[..., bytes]

pytestmark = pytest.mark.xdist_group("ray")


def kill_first(engine: RayEngine) -> Callable[[int], None]:
    """Kills a worker after step 2."""

    def act(step: int) -> None:
        if step == 2:
            os.kill(engine.process_ids()[0], signal.SIGKILL)

    return act


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("learner", ["pretrain", "fomaml", "maml"])
def test_same_bytes_for_local_and_any_number_of_workers(
    small_study: Callable[..., Study], weights: Weights, tmp_path: Path, learner: str
) -> None:
    study = small_study(learner={"kind": learner}, training={"tasks_per_step": 6, "validate_every": 2})
    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    for count in (1, 2, 3):
        with RayEngine(RayEngineSpec(kind="ray", workers=count)) as engine:
            assert weights(study, tmp_path / f"ray{count}", engine) == expected


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_changes_nothing(small_study: Callable[..., Study], weights: Weights, tmp_path: Path) -> None:
    study = small_study()
    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    with RayEngine(RayEngineSpec(kind="ray", workers=2)) as engine:
        before = engine.process_ids()
        assert weights(study, tmp_path / "ray", engine, kill_first(engine)) == expected
        assert engine.process_ids() != before, "no worker was killed"


@pytest.mark.usefixtures("cluster")
def test_the_others_take_over_from_a_worker_that_does_not_come_back(
    small_study: Callable[..., Study], weights: Weights, tmp_path: Path
) -> None:
    study = small_study()
    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    with RayEngine(RayEngineSpec(kind="ray", workers=2, max_restarts=0)) as engine:
        assert weights(study, tmp_path / "ray", engine, kill_first(engine)) == expected
        assert len(engine.workers) == 1


@pytest.mark.usefixtures("cluster")
def test_a_users_mistake_in_a_worker_is_a_users_error(
    small_study: Callable[..., Study], weights: Weights, tmp_path: Path
) -> None:
    study = small_study(training={"patch": 4096})
    with RayEngine(RayEngineSpec(kind="ray", workers=1)) as engine, pytest.raises(UserError, match="smaller than"):
        weights(study, tmp_path / "ray", engine)


@pytest.mark.usefixtures("cluster")
def test_more_workers_than_the_cluster_has_room_for() -> None:
    with pytest.raises(UserError, match=r"engine.workers: 64 workers .* can run 3"):
        build_engine(RayEngineSpec(kind="ray", workers=64))


@pytest.mark.usefixtures("cluster")
def test_fractional_workers() -> None:
    with RayEngine(RayEngineSpec(kind="ray", workers=4, cpus_per_worker=0.5)) as engine:
        assert len(set(engine.process_ids())) == 4


def worker_processes() -> list[int]:
    """Returns the process ids of the actors of this process's own cluster: others may run on the machine."""
    parents = {}
    actors = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::Worker"):
                actors.append(int(folder.name))
    return sorted(pid for pid in actors if parents.get(parents.get(pid, 0)) == os.getpid())


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("learner", ["fomaml", "maml"])
def test_twenty_killed_workers_change_nothing(
    small_study: Callable[..., Study], weights: Weights, tmp_path: Path, learner: str
) -> None:
    """Random workers are killed at random moments; experiments/studies/kill_test.py kills more of them."""
    study = small_study(learner={"kind": learner}, training={"steps": 60, "tasks_per_step": 6})
    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    rng, killed, finished = random.Random(0), [], threading.Event()

    def kill() -> None:
        while len(killed) < 20 and not finished.wait(rng.uniform(0.05, 0.3)):
            found = worker_processes()
            if found:
                killed.append(rng.choice(found))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)

    def act(step: int) -> None:
        if step == 1:
            killer.start()
        # The last step waits for the last kill.
        if step == 59:
            killer.join(timeout=100)

    with RayEngine(RayEngineSpec(kind="ray", workers=3, max_restarts=-1)) as engine:
        try:
            assert weights(study, tmp_path / "ray", engine, act) == expected
        finally:
            finished.set()
    assert len(killed) == 20

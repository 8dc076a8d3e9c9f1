"""Several machines, played by Ray's own cluster utility on one: they join, leave, and change no byte."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from metarestore.config.engine import RayEngineSpec
from metarestore.engines import cluster
from metarestore.engines.cluster import alive_nodes, connect, socket_room
from metarestore.engines.local import LocalEngine
from metarestore.engines.ray import RayEngine
from metarestore.errors import UserError
from metarestore.workspace.study import Study

pytestmark = pytest.mark.xdist_group("ray")


def test_three_machines_of_which_one_is_removed_and_one_joins_in_mid_run(
    machines: Cluster, small_study: Callable[..., Study], weights: Callable[..., bytes], tmp_path: Path
) -> None:
    study = small_study(training={"steps": 40, "tasks_per_step": 4, "shard_size": 1})
    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    nodes = [machines.add_node(num_cpus=1) for _ in range(3)]
    machines.wait_for_nodes()
    seen: dict[int, int] = {}

    def change(step: int) -> None:
        seen[step] = len(engine.workers)
        if step == 3:
            machines.remove_node(nodes[0])
        if step == 20:
            machines.add_node(num_cpus=1)
        # Steps take milliseconds here, and a cluster seconds to start a worker on a machine that joined.
        deadline = time.monotonic() + 30
        while step == 30 and len(engine.workers) < 3 and time.monotonic() < deadline:
            engine.session(study).map([], torch.zeros(1))
            time.sleep(0.2)

    with RayEngine(RayEngineSpec(kind="ray", placement="spread")) as engine:
        assert len({member.node for member in engine.pool.up}) == 3
        assert weights(study, tmp_path / "ray", engine, change) == expected
        assert "3 Ray workers" in engine.describe()
    assert seen[3] == 3
    assert seen[20] == 2
    assert seen[40] == 3


def test_a_step_goes_on_with_a_machine_that_joins_when_all_are_gone(
    machines: Cluster, small_study: Callable[..., Study], weights: Callable[..., bytes], tmp_path: Path
) -> None:
    study = small_study()
    node = machines.add_node(num_cpus=1)
    machines.wait_for_nodes()

    def change(step: int) -> None:
        if step == 2:
            machines.remove_node(node)
            machines.add_node(num_cpus=1)

    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    with RayEngine(RayEngineSpec(kind="ray", max_restarts=-1)) as engine:
        assert weights(study, tmp_path / "ray", engine, change) == expected


def test_machines_that_leave_while_gradients_are_summed_change_nothing(
    machines: Cluster,
    small_study: Callable[..., Study],
    weights: Callable[..., bytes],
    tmp_path: Path,
    before: Callable[..., list[int]],
) -> None:
    """Gradients are lost with them, and their workers wait for another machine for ever; that must hold up nobody."""
    # Ray leaves results of 100 kB and more where they were computed.
    large = {"kind": "fsrcnn", "d": 128, "s": 32, "m": 1}
    study = small_study(model=large, training={"tasks_per_step": 5, "shard_size": 1})
    with LocalEngine() as local:
        expected = weights(study, tmp_path / "local", local)
    nodes = [machines.add_node(num_cpus=1) for _ in range(3)]
    machines.wait_for_nodes()

    def leave_and_be_missed() -> None:
        machines.remove_node(nodes[0])
        while len(engine.pool.up) == 3:
            engine.pool.refresh()
            time.sleep(0.1)

    with RayEngine(RayEngineSpec(kind="ray", placement="spread", reduction="tree", max_restarts=-1)) as engine:
        attempts = before("split", 1, leave_and_be_missed)
        before("tree_sum", 3, lambda: machines.remove_node(nodes[1]))
        assert weights(study, tmp_path / "ray", engine) == expected
    assert len(attempts) > 4


def test_packed_workers_fill_a_machine_and_none_spans_two(machines: Cluster) -> None:
    for _ in range(2):
        machines.add_node(num_cpus=3)
    machines.wait_for_nodes()
    with RayEngine(RayEngineSpec(kind="ray", cpus_per_worker=2)) as engine:
        assert len(engine.workers) == 2
        assert len({member.node for member in engine.pool.up}) == 2
    with pytest.raises(UserError, match="can run 2"):
        RayEngine(RayEngineSpec(kind="ray", workers=3, cpus_per_worker=2))
    assert len(alive_nodes()) == 3


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_at_an_address(address: str) -> None:
    with pytest.raises(UserError, match=r"engine.address: no Ray cluster responds .*`ray start --head`"):
        connect(RayEngineSpec(kind="ray", address=address))


@pytest.mark.parametrize("address", ["cluster", "ray://cluster", "ray://:1"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match="is not auto, host:port or ray://host:port"):
        connect(RayEngineSpec(kind="ray", address=address))


@pytest.mark.parametrize(
    ("folder", "fits"),
    [
        ("/tmp/ray", True),
        ("/" + "a" * 40, True),
        ("/" + "a" * 41, False),
        ("/scratch/project_12345/users/some_user_name/jobs/job_0123456789_array_17/ray", False),
        ("/tmp/" + "夜" * 15, False),
    ],
)
def test_the_room_for_a_socket_is_counted_in_bytes(folder: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert (socket_room(folder) >= 0) == fits


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_path_of_temporary_files_is_no_obstacle(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "scratch" / "project_12345" / "users" / "some_user_name" / "job_0123456789_array_17"
    long.mkdir(parents=True)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, str(long))
    try:
        connect(RayEngineSpec(kind="ray", workers=1))
        assert alive_nodes()
    finally:
        ray.shutdown()
    assert not list(long.rglob("plasma_store"))


def test_a_short_path_of_temporary_files_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert cluster._short_folder() is None

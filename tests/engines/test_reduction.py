"""Gradients are summed to the same bytes here and among workers, for any number of them and whoever is lost."""

from __future__ import annotations

import os
import pickle
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from metarestore.config.engine import RayEngineSpec
from metarestore.engines.local import LocalEngine
from metarestore.engines.ray import RayEngine
from metarestore.engines.reduction import reduced, split, tree_sum
from metarestore.errors import UserError
from metarestore.learners.gradients import TaskGradients, TaskMetrics
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

Studies = Callable[..., Study]
Weights = Callable[..., bytes]

LARGE = {"kind": "fsrcnn", "d": 128, "s": 32, "m": 1}
"""A network whose gradients take 125 kB: Ray leaves results of 100 kB and more where they were computed."""

pytestmark = pytest.mark.xdist_group("ray")


def found(*gradients: float) -> TaskGradients:
    """Returns gradients of one parameter, whose losses are the gradients again."""
    values = np.asarray(gradients, np.float32)
    return TaskGradients(values[:, None], TaskMetrics(values, values, np.abs(values)))


@pytest.mark.parametrize("count", range(1, 18))
def test_the_order_of_a_sum_depends_on_the_number_of_parts_alone(count: int) -> None:
    def written(names: str) -> str:
        return tree_sum([*names], lambda left, right: f"({left}{right})")

    names = "abcdefghijklmnopq"[:count]
    assert re.sub(r"[()]", "", written(names)) == names
    assert re.sub(r"\w", "x", written(names)) == written("x" * count)
    depth = tree_sum([0] * count, lambda left, right: max(left, right) + 1)
    assert depth == ceil(log2(count))


def test_tasks_are_summed_in_turn_and_shards_as_a_tree() -> None:
    """In float32 10⁸ + 1 is 10⁸, so each order of summation has a sum of its own."""
    big = 1e8
    assert reduced([found(big, -big, 1, 1)], lambda figures: np.ones(4, np.float32)).gradient == [2]
    assert reduced([found(x) for x in (big, -big, 1, 1)], lambda figures: np.ones(4, np.float32)).gradient == [2]
    assert reduced([found(big, 1, -big, 1)], lambda figures: np.ones(4, np.float32)).gradient == [1]
    assert reduced([found(x) for x in (big, 1, -big, 1)], lambda figures: np.ones(4, np.float32)).gradient == [0]


def test_factors_see_the_figures_of_all_tasks_and_reach_their_own() -> None:
    shards = [found(1, 2), found(3), found(4, 5, 6)]
    whole = reduced(shards, lambda figures: 10 * figures.losses / figures.losses.sum())
    np.testing.assert_allclose(whole.gradient, [10 * (1 + 4 + 9 + 16 + 25 + 36) / 21], rtol=1e-6)
    np.testing.assert_array_equal(whole.metrics.losses, [1, 2, 3, 4, 5, 6])
    pieces = split(np.arange(6, dtype=np.float32), [shard.metrics for shard in shards])
    assert [piece.tolist() for piece in pieces] == [[0, 1], [2], [3, 4, 5]]


def tree(workers: int, **changes: Any) -> RayEngineSpec:
    return RayEngineSpec(kind="ray", workers=workers, reduction="tree", **changes)


@pytest.fixture
def study(small_study: Studies) -> Studies:
    """Builds a study of few steps of five shards."""

    def build(balance: str = "none", model: dict[str, Any] = LARGE, **training: Any) -> Study:
        training = {"steps": 3, "tasks_per_step": 5, "shard_size": 1, **training}
        return small_study(model=model, graph={"weights": {"balance": balance}}, training=training)

    return build


@pytest.mark.usefixtures("cluster")
def test_same_bytes_here_and_among_workers(study: Studies, weights: Weights, tmp_path: Path) -> None:
    studies = {balance: study(balance) for balance in ("none", "unit", "ema")}
    with LocalEngine() as local:
        expected = {name: weights(study, tmp_path / name, local) for name, study in studies.items()}
    assert len(set(expected.values())) == 3
    for spec in (tree(1), tree(2), tree(3), RayEngineSpec(kind="ray", workers=2)):
        with RayEngine(spec) as engine:
            for name, study_ in studies.items():
                folder = tmp_path / f"{name}-{spec.reduction}-{spec.workers}"
                assert weights(study_, folder, engine) == expected[name]


@contextmanager
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Writes down how many bytes the driver takes from the object stores each time."""
    sizes: list[int] = []
    original = ray.get

    def get(*args: Any, **kwargs: Any) -> Any:
        value = original(*args, **kwargs)
        sizes.append(len(pickle.dumps(value)))
        return value

    with monkeypatch.context() as patch:
        patch.setattr(ray, "get", get)
        yield sizes


@pytest.mark.usefixtures("cluster")
def test_the_driver_fetches_one_gradient_for_each_step(
    study: Studies, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study()
    gradient = 4 * Workspace(whole).layout.size
    assert gradient > 100 * 1024
    with RayEngine(tree(1)) as engine, taken(monkeypatch) as sizes:
        weights(whole, tmp_path / "tree", engine)
    assert len([size for size in sizes if size > 4096]) == 3
    assert 3 * gradient < sum(sizes) < 3.2 * gradient


@pytest.mark.usefixtures("cluster")
def test_a_mistake_is_one_users_error_and_leaves_the_state_as_it_was(
    study: Studies, weights: Weights, tmp_path: Path
) -> None:
    diverging = study(optimizer={"kind": "sgd", "lr": 1e30}, checkpoint_every=1, steps=9)
    with LocalEngine() as local:
        expected = weights(study(), tmp_path / "local", local)
        with pytest.raises(UserError, match=r"step \d+: the loss .* not finite") as here:
            weights(diverging, tmp_path / "diverged here", local)
    with RayEngine(tree(1)) as engine:
        with pytest.raises(UserError, match=r"step \d+: the loss .* not finite") as there:
            weights(diverging, tmp_path / "diverged there", engine)
        with pytest.raises(UserError, match="smaller than"):
            weights(study(patch=4096), tmp_path / "mistaken", engine)
        assert weights(study(), tmp_path / "tree", engine) == expected
    assert str(here.value) == str(there.value)
    states = [sorted((tmp_path / f"diverged {where}").glob("**/*.safetensors")) for where in ("here", "there")]
    assert [path.name for path in states[0]] == [path.name for path in states[1]] != []
    assert [path.read_bytes() for path in states[0]] == [path.read_bytes() for path in states[1]]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("restarts", "model", "moments"),
    [(-1, {"kind": "fsrcnn", "d": 8, "s": 4, "m": 1}, ("tree_sum", "fetched")), (0, LARGE, ("split", "tree_sum"))],
)
def test_workers_killed_while_gradients_are_summed_change_nothing(
    study: Studies,
    weights: Weights,
    tmp_path: Path,
    before: Callable[..., list[int]],
    restarts: int,
    model: dict[str, Any],
    moments: tuple[str, str],
) -> None:
    whole = study(model=model)
    with LocalEngine() as local:
        expected = weights(whole, tmp_path / "local", local)
    with RayEngine(tree(3, max_restarts=restarts)) as engine:
        victims = engine.process_ids()[:2]
        attempts = before("joined", 0, lambda: None)
        before(moments[0], 1, lambda: os.kill(victims[0], signal.SIGKILL))
        before(moments[1], 3, lambda: os.kill(victims[1], signal.SIGKILL))
        assert weights(whole, tmp_path / "ray", engine) == expected
        assert len(attempts) > 3
        if restarts == 0:
            assert len(engine.workers) < 3
        else:
            assert not set(engine.process_ids()) & set(victims)

"""What a step carries beside parameters (its number, learned rates, sketches) is the same on every worker."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import ray

from metarestore.config.engine import RayEngineSpec
from metarestore.config.model import FSRCNNSpec, PISRTeacherSpec
from metarestore.engines.engine import Engine
from metarestore.engines.local import LocalEngine
from metarestore.engines.ray import RayEngine
from metarestore.models.build import build_model
from metarestore.models.checkpoint import save_model
from metarestore.models.parameters import initial_vector
from metarestore.training.run import RunFolder, train
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def workers() -> Iterator[RayEngine]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with RayEngine(RayEngineSpec(kind="ray", workers=2)) as engine:
        yield engine
    ray.shutdown()


ANNEALED = {"inner_steps": 2, "multi_step": {"weights": "annealed", "steps": 3}}
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": {"kind": "maml", **ANNEALED},
    "meta_sgd": {"kind": "meta_sgd", **ANNEALED, "inner_clip": 0.05},
    "anil": {"kind": "anil", "adapts": ["tail.*"]},
    "reptile": {"kind": "reptile"},
    "pisr": {"kind": "pretrain", "distillation": {"teacher": "", "weight": 0.1}},
}
TEACHER = PISRTeacherSpec(kind="pisr_teacher", decoder=FSRCNNSpec(d=8, s=4, m=1), d=6, s=5)


@pytest.mark.parametrize("name", LEARNERS)
def test_workers_compute_the_same_bytes(
    small_study: Callable[..., Study], tmp_path: Path, workers: RayEngine, name: str
) -> None:
    training = {"ema": 0.9, "sketch": 32, "microbatch": 1, "optimizer": {"kind": "adamw", "weight_decay": 0.1}}
    learner = copy.deepcopy(LEARNERS[name])
    if name == "pisr":  # its teacher is opened by every worker, and its heads travel behind the network
        save_model(tmp_path / "teacher/model.safetensors", TEACHER, 4, initial_vector(build_model(TEACHER, 4, 1)))
        learner["distillation"]["teacher"] = tmp_path / "teacher"
    study = small_study(learner=learner, training=training)

    def trained(engine: Engine, place: Path) -> tuple[bytes, list[Any]]:
        found = train(Workspace(study), RunFolder(place, study, resume=False), engine.session(study), Mock())
        return found.flat.numpy().tobytes(), [row.agreement for row in found.state.log]

    assert trained(workers, tmp_path / "ray") == trained(LocalEngine(), tmp_path / "local")

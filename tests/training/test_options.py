"""Learners and options of training in whole runs: each acts, and each continues to the same bytes when interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.config.experiment import Experiment
from metarestore.engines.local import LocalEngine
from metarestore.errors import UserError
from metarestore.evaluation.few_shot import AdaptationJob
from metarestore.models.checkpoint import save_model
from metarestore.project import resolve
from metarestore.training.interrupt import Interrupted
from metarestore.training.jobs import SketchJob, ValidationJob
from metarestore.training.log import LogRow, Observer
from metarestore.training.run import RunFolder, Trained, train
from metarestore.training.sampler import TaskSampler
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

StudyMaker = Callable[..., Study]


class Silent(Observer):
    """Keeps the rows; can ask to stop after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rows: list[LogRow] = []
        self.figures: list[float] = []
        self._stop_after = stop_after

    def step(self, row: LogRow) -> None:
        self.rows.append(row)
        if row.step == self._stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    def validated(self, step: int, psnr: float) -> None:
        self.figures.append(psnr)


def trained(study: Study, folder: Path, observer: Silent | None = None, *, resume: bool = False) -> Trained:
    with LocalEngine() as engine:
        run = RunFolder(folder, study, resume=resume)
        return train(Workspace(study), run, engine.session(study), observer or Silent())


ANIL = {"kind": "anil", "adapts": ["tail.*"]}
MULTI_STEP = {"kind": "maml", "inner_steps": 2, "multi_step": {"steps": 4}}
OPTIONS: dict[str, dict[str, Any]] = {
    "meta_sgd": {"learner": {"kind": "meta_sgd"}},
    "anil": {"learner": ANIL},
    "reptile": {"learner": {"kind": "reptile", "inner_steps": 2}},
    "multi_step": {"learner": MULTI_STEP},
    "charbonnier": {"learner": {"kind": "maml", "loss": "charbonnier", "inner_loss": "mse"}},
    "inner_clip": {"learner": {"kind": "maml", "inner_clip": 1e-3}},
    "support_set": {"training": {"support_set": "internal", "patch": 64}},
    "distinct": {"training": {"distinct": 2}},
    "ema": {"training": {"ema": 0.9}},
    "adamw": {"training": {"optimizer": {"kind": "adamw", "weight_decay": 0.1}}},
    "momentum": {"training": {"optimizer": {"kind": "sgd", "momentum": 0.9}}},
    "warmup_steps": {"training": {"optimizer": {"warmup_steps": 2, "min_lr": 1e-4}}},
    "clip": {"training": {"optimizer": {"kind": "sgd", "clip": 1e-4}}},
    "precision": {"training": {"precision": "bfloat16"}},
    "microbatch": {"training": {"microbatch": 1}},
    "balance": {"graph": {"weights": {"balance": "ema"}}},
    "gradient": {"graph": {"estimator": {"kind": "gradient", "draws": 2}}},
    "shot_tasks": {"training": {"shot_tasks": 1}, "graph": {"weights": {"acts_on": "both", "balance": "ema"}}},
    "meta_sgd, ema, adamw": {
        "learner": {"kind": "meta_sgd", "inner_steps": 2, "multi_step": {"steps": 3}},
        "training": {"ema": 0.5, "optimizer": {"kind": "adamw", "weight_decay": 0.1, "clip": 0.1}},
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_interrupted_run_continues_to_the_same_bytes(small_study: StudyMaker, tmp_path: Path, name: str) -> None:
    study = small_study(**OPTIONS[name])
    trained(study, tmp_path / "whole")
    with pytest.raises(Interrupted, match="after step 2"):
        trained(study, tmp_path / "parts", Silent(stop_after=2))
    trained(study, tmp_path / "parts", resume=True)
    for file in ("model.safetensors", "inner_rates.safetensors"):
        if file == "model.safetensors" or "meta_sgd" in name:
            assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_acts(small_study: StudyMaker, tmp_path: Path, name: str) -> None:
    options = OPTIONS[name]
    plain = {"kind": "maml", "inner_steps": 2} if name == "multi_step" else {"kind": "maml"}
    base = {"training": {"optimizer": {"kind": "sgd"}}} if name in ("momentum", "clip") else {}
    learner = {} if "learner" in options else {"learner": {"kind": "maml"}}
    before = trained(small_study(**{"learner": plain, **base}), tmp_path / "plain").flat
    after = trained(small_study(**{**learner, **options}), tmp_path / "other").flat
    assert not torch.equal(before, after[: len(before)])


def test_learned_rates_travel_are_saved_and_are_used_by_sgd(small_study: StudyMaker, tmp_path: Path) -> None:
    study = small_study(learner={"kind": "meta_sgd", "inner_lr": 0.02})
    found = trained(study, tmp_path)
    workspace = Workspace(study)
    size = workspace.layout.size
    assert found.flat.shape == (2 * size,)
    rates = load_file(tmp_path / "inner_rates.safetensors")
    assert torch.equal(workspace.layout.flatten(rates), found.flat[size:])
    assert not torch.equal(found.flat[size:], torch.full((size,), 0.02))
    assert torch.equal(workspace.layout.flatten(load_file(tmp_path / "model.safetensors")), found.flat[:size])
    sgd, adam = AdaptationOptimizerSpec(optimizer="sgd", steps=2, lr=1e-3), AdaptationOptimizerSpec(steps=2)
    still = torch.cat([found.flat[:size], torch.zeros(size)])
    assert torch.equal(AdaptationJob(sgd).run(workspace, still).flat, found.flat[:size])
    assert not torch.equal(AdaptationJob(sgd).run(workspace, found.flat).flat, found.flat[:size])
    assert torch.equal(
        AdaptationJob(adam).run(workspace, still).flat, AdaptationJob(adam).run(workspace, found.flat).flat
    )


@pytest.mark.parametrize("estimator", ["response", "gradient", "transfer"])
def test_relations_see_the_network_alone(small_study: StudyMaker, tmp_path: Path, estimator: str) -> None:
    graph = {"estimator": {"kind": estimator, "draws": 2}}
    maml = trained(small_study(learner={"kind": "maml"}, graph=graph, training={"steps": 0}), tmp_path / "maml")
    meta = trained(small_study(learner={"kind": "meta_sgd"}, graph=graph, training={"steps": 0}), tmp_path / "meta")
    assert maml.relations is not None
    assert meta.relations is not None
    np.testing.assert_array_equal(maml.relations.values, meta.relations.values)


def test_the_running_mean_is_validated_and_saved(small_study: StudyMaker, tmp_path: Path) -> None:
    observer = Silent()
    study = small_study(training={"ema": 0.5, "validate_every": 4})
    found = trained(study, tmp_path, observer)
    workspace, optimizer = Workspace(study), found.state.optimizer
    assert torch.equal(found.flat, optimizer.averaged)
    assert not torch.equal(found.flat, optimizer.flat)
    assert torch.equal(workspace.layout.flatten(load_file(tmp_path / "model.safetensors")), found.flat)
    figures = [ValidationJob(name).run(workspace, found.flat) for name in study.auxiliary]
    assert observer.figures == [pytest.approx(float(np.mean(figures)))]


@pytest.mark.parametrize("learner", [{"kind": "finetune"}, {"kind": "maml"}, {"kind": "meta_sgd"}])
def test_training_starts_from_a_run_or_a_file(small_study: StudyMaker, tmp_path: Path, learner: dict[str, Any]) -> None:
    first = trained(small_study(learner={"kind": "pretrain"}), tmp_path / "first")
    for init in (tmp_path / "first", tmp_path / "first/model.safetensors"):
        study = small_study(learner=learner, training={"init": init, "steps": 0})
        assert torch.equal(Workspace(study).network(Workspace(study).initial()), first.flat)
    study = small_study(learner=learner, training={"init": tmp_path / "first"})
    assert not torch.equal(trained(study, tmp_path / "second").flat[: len(first.flat)], first.flat)
    # Other weights under the same name would make another run of it.
    trained(small_study(learner={"kind": "pretrain"}, seed=1), tmp_path / "third")
    (tmp_path / "first/model.safetensors").write_bytes((tmp_path / "third/model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"another configuration \(networks\W+training.init\W+was"):
        trained(study, tmp_path / "second", resume=True)


def test_finetuning_is_longer_pretraining(small_study: StudyMaker, tmp_path: Path) -> None:
    trained(small_study(learner={"kind": "pretrain"}), tmp_path / "first")
    studies = [
        small_study(learner={"kind": k}, training={"init": tmp_path / "first"}) for k in ("finetune", "pretrain")
    ]
    assert torch.equal(*(trained(study, tmp_path / str(n)).flat for n, study in enumerate(studies)))


def test_a_relative_path_starts_at_the_project(
    small_experiment: Callable[..., Experiment], small_study: StudyMaker, tmp_path: Path
) -> None:
    study = small_study()
    save_model(tmp_path / "runs/a/model.safetensors", study.experiment.model, 4, Workspace(study).initial())
    (tmp_path / "tasks").mkdir()
    found = resolve(small_experiment(training={"init": "runs/a"}), tmp_path)
    assert found.experiment.training.init == tmp_path / "runs/a"
    with pytest.raises(UserError, match=r"training.init: there is no .*runs/b; give a run's folder"):
        resolve(small_experiment(training={"init": "runs/b"}), tmp_path)


def test_another_network_is_refused(small_study: StudyMaker, tmp_path: Path) -> None:
    study = small_study(model={"kind": "fsrcnn", "d": 12, "s": 4, "m": 1})
    save_model(tmp_path / "model.safetensors", study.experiment.model, 4, Workspace(study).initial())
    with pytest.raises(UserError, match=r"training.init: .* contains another network \(d is 12, expected 8\)"):
        Workspace(small_study(training={"init": tmp_path})).open_all()
    (tmp_path / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"training.init: .*not a safetensors file"):
        Workspace(small_study(training={"init": tmp_path})).open_all()


def test_sketches_are_logged_and_change_nothing(small_study: StudyMaker, tmp_path: Path) -> None:
    observer = Silent()
    plain = trained(small_study(), tmp_path / "plain")
    found = trained(small_study(training={"sketch": 64}), tmp_path / "sketch", observer)
    assert torch.equal(plain.flat, found.flat)
    assert all(-1 <= row.agreement <= 1 for row in observer.rows)
    assert plain.state.log[0].agreement is None


def test_a_sketch_job_returns_bytes_instead_of_gradients(small_study: StudyMaker) -> None:
    for kind in ("maml", "meta_sgd"):
        study = small_study(learner={"kind": kind})
        workspace = Workspace(study)
        shard = TaskSampler(tuple(study.auxiliary), 0, 3, 3).shards(0)[0]
        found = SketchJob(shard, 32).run(workspace, workspace.initial())
        assert found.shape == (3, 32)
        if kind == "maml":
            first = found
    np.testing.assert_allclose(first, found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner": {"kind": "finetune"}}, "finetune requires training.init"),
        (
            {"learner": {"kind": "maml", "backend": "learn2learn"}, "training": {"precision": "bfloat16"}},
            "bfloat16 requires learner.backend: vectorised",
        ),
        ({"training": {"shot_tasks": 4, "tasks_per_step": 4}}, "must be below tasks_per_step .4., got 4"),
        ({"training": {"shot_tasks": 1, "patch": 64}, "adaptation": {"shot_size": 48}}, "shot_size is 48"),
        ({"training": {"source": "target", "patch": 64}, "adaptation": {"shot_size": 48}}, "lower it, got 64"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    small_experiment: Callable[..., Experiment], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        small_experiment(**changes)


def test_a_pattern_without_parameters_is_found_before_anything_is_written(small_study: StudyMaker) -> None:
    study = small_study(learner={"kind": "anil", "adapts": ["tial.*"]})
    with pytest.raises(UserError, match=r"learner.adapts: 'tial.\*'.*did you mean 'tail.\*'"):
        Workspace(study).open_all()

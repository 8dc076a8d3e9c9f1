"""The outer loop: sampling, update, and bit-identical results for every engine and after every interruption."""

from __future__ import annotations

import errno
import math
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metarestore.config.experiment import OptimizerSpec
from metarestore.engines.local import LocalEngine
from metarestore.errors import UserError
from metarestore.graphs.graph import load_graph
from metarestore.graphs.relations import Relations
from metarestore.models.checkpoint import load_model
from metarestore.models.parameters import initial_vector
from metarestore.training.interrupt import Interrupted, graceful_stop
from metarestore.training.log import LogRow, Observer
from metarestore.training.run import RunFolder, train
from metarestore.training.sampler import TaskSampler, positions
from metarestore.training.state import OuterOptimizer, TrainState, load_state, save_state
from metarestore.workspace.refs import TaskRef
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

NAMES = ("a", "b", "c")


class Silent(Observer):
    """Hears everything and says nothing; can ask to stop after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rows: list[LogRow] = []
        self.relations: list[tuple[int, Relations]] = []
        self.validations: list[tuple[int, float]] = []
        self._stop_after = stop_after

    def step(self, row: LogRow) -> None:
        self.rows.append(row)
        if row.step == self._stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    def validated(self, step: int, psnr: float) -> None:
        self.validations.append((step, psnr))

    def related(self, step: int, relations: Relations) -> None:
        self.relations.append((step, relations))


def trained(study: Study, folder: Path, *, resume: bool = False, observer: Silent | None = None) -> bytes:
    workspace = Workspace(study)
    with LocalEngine() as engine:
        run = RunFolder(folder, study, resume=resume)
        train(workspace, run, engine.session(study), observer or Silent())
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("tasks", "size"), [(4, 2), (5, 2), (3, 8)])
def test_shards_cut_the_tasks_of_a_step_in_order(tasks: int, size: int) -> None:
    sampler = TaskSampler(NAMES, 0, tasks, size)
    shards = sampler.shards(7)
    assert [len(shard) for shard in shards] == [size] * (tasks // size) + ([tasks % size] if tasks % size else [])
    assert [ref.index for shard in shards for ref in shard] == list(range(7 * tasks, 8 * tasks))
    assert shards == sampler.shards(7)
    lookup = positions(shards, NAMES)
    assert [NAMES[i] for i in lookup] == [ref.distribution for shard in shards for ref in shard]


def test_uniform_sampling_takes_every_distribution_equally_often() -> None:
    sampler = TaskSampler(NAMES, 3, 4, 2)
    counts = Counter(ref.distribution for step in range(30) for shard in sampler.shards(step) for ref in shard)
    assert counts == {"a": 40, "b": 40, "c": 40}


def test_sampling_among_some_deals_them_alone() -> None:
    sampler = TaskSampler(NAMES, 3, 4, 2)
    among = np.asarray([True, False, True])
    counts = Counter(
        ref.distribution for step in range(30) for shard in sampler.shards(step, among=among) for ref in shard
    )
    assert counts == {"a": 60, "c": 60}
    assert sampler.shards(5, among=np.ones(3, bool)) == sampler.shards(5)


def test_weighted_sampling_follows_its_probabilities() -> None:
    sampler = TaskSampler(NAMES, 3, 8, 4)
    weights = np.asarray([0.3, 2.4, 0.3])
    drawn = [ref.distribution for step in range(200) for shard in sampler.shards(step, weights) for ref in shard]
    expected = 1600 * weights / weights.sum()
    for name, count in zip(NAMES, expected, strict=True):
        # Systematic draws deviate by less than one per step, and far less on average.
        assert drawn.count(name) == pytest.approx(count, abs=40)
    assert not any(ref.distribution == "a" for shard in sampler.shards(0, np.asarray([0.0, 1.0, 1.0])) for ref in shard)


def test_tasks_repeat_after_the_distinct_ones() -> None:
    sampler = TaskSampler(NAMES[:1], 3, 4, 2, distinct=12)
    steps = [sampler.shards(step) for step in range(6)]
    assert steps[3:] == steps[:3]
    assert len({ref for shards in steps for shard in shards for ref in shard}) == 12


def test_cosine_schedule() -> None:
    optimizer = OuterOptimizer(OptimizerSpec(lr=2.0), torch.zeros(3), steps=10)
    assert optimizer.rate(0) == 2.0
    assert optimizer.rate(5) == pytest.approx(1.0)
    assert optimizer.rate(10) == pytest.approx(0.0)
    assert OuterOptimizer(OptimizerSpec(lr=2.0, schedule="constant"), torch.zeros(3), 10).rate(9) == 2.0


def test_sgd_update() -> None:
    optimizer = OuterOptimizer(OptimizerSpec(kind="sgd", lr=0.5, schedule="constant"), torch.ones(2), 10)
    optimizer.update(0, torch.tensor([1.0, -2.0]))
    assert optimizer.flat.tolist() == [0.5, 2.0]


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_restored_optimizer_continues_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    def fresh() -> TrainState:
        spec = OptimizerSpec(kind=kind, lr=0.1)  # type: ignore[arg-type]
        return TrainState(OuterOptimizer(spec, torch.linspace(-1, 1, 5), 6))

    def advance(state: TrainState, steps: int) -> None:
        for _ in range(steps):
            state.optimizer.update(state.step, torch.sin(state.optimizer.flat.detach() * (state.step + 1)))
            state.step += 1

    whole, first, second = fresh(), fresh(), fresh()
    advance(whole, 6)
    advance(first, 3)
    save_state(tmp_path, first)
    assert load_state(tmp_path, second)
    advance(second, 3)
    assert torch.equal(whole.optimizer.flat, second.optimizer.flat)


def test_only_the_last_checkpoint_is_kept_and_a_broken_one_is_named(tmp_path: Path) -> None:
    state = TrainState(OuterOptimizer(OptimizerSpec(), torch.zeros(3), 4))
    assert not load_state(tmp_path, state)
    for step in (1, 2):
        state.step = step
        save_state(tmp_path, state)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    (tmp_path / "00000002.state.json").write_text("{")
    with pytest.raises(UserError, match=r"00000002.state.json: cannot be read.*remove it"):
        load_state(tmp_path, state)


def test_the_last_checkpoints_are_kept_and_any_of_them_can_be_gone_on_from(tmp_path: Path) -> None:
    state = TrainState(OuterOptimizer(OptimizerSpec(), torch.zeros(3), 9))
    for step in range(5):
        state.step = step
        save_state(tmp_path, state, keep=3)
    assert sorted(path.name[:8] for path in tmp_path.glob("*.json")) == ["00000002", "00000003", "00000004"]
    assert len(list(tmp_path.iterdir())) == 6
    (tmp_path / "00000004.state.json").unlink()
    assert load_state(tmp_path, state)
    assert state.step == 3


def test_a_checkpoint_of_the_first_version_is_read_and_replaced(tmp_path: Path) -> None:
    state = TrainState(OuterOptimizer(OptimizerSpec(), torch.zeros(3), 9), step=7)
    save_state(tmp_path, state)
    (tmp_path / "00000007.state.json").rename(tmp_path / "state.json")
    state.step = 0
    assert load_state(tmp_path, state)
    assert state.step == 7
    state.step = 8
    save_state(tmp_path, state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000008.state.json", "00000008.state.safetensors"]


@pytest.mark.parametrize("failing", ["safetensors", "json"])
def test_a_full_disk_leaves_the_checkpoint_before_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    state = TrainState(OuterOptimizer(OptimizerSpec(), torch.zeros(3), 9), step=1)
    save_state(tmp_path, state)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    sync = os.fsync

    def full(descriptor: int) -> None:
        if failing in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    state.step = 2
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); make room") as caught:
        save_state(tmp_path, state)
    assert len(caught.value.problems) == 1
    assert before.items() <= {path.name: path.read_bytes() for path in tmp_path.iterdir()}.items()
    assert not list(tmp_path.glob("*.part"))
    state.step = 0
    assert load_state(tmp_path, state)
    assert state.step == 1


CONTRASTED = {"kind": "pretrain", "contrast": {}, "warmup_steps": 3}


@pytest.mark.parametrize(
    "sections",
    [
        *({"learner": {"kind": kind}} for kind in ("pretrain", "fomaml", "maml")),
        {"model": {"kind": "kdsr", "size": "tiny"}, "learner": CONTRASTED},
    ],
    ids=["pretrain", "fomaml", "maml", "contrast"],
)
def test_an_interrupted_run_continues_to_the_same_bytes(
    small_study: Callable[..., Study], tmp_path: Path, sections: dict[str, Any]
) -> None:
    study = small_study(**sections)
    whole = trained(study, tmp_path / "whole")
    with pytest.raises(Interrupted, match="after step 2"):
        trained(study, tmp_path / "parts", observer=Silent(stop_after=2))
    assert trained(study, tmp_path / "parts", resume=True) == whole


def test_the_backends_train_to_nearly_the_same_weights(small_study: Callable[..., Study], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trained(small_study(learner={"kind": "maml"}), tmp_path / "ours")
    trained(small_study(learner={"kind": "maml", "backend": "learn2learn"}), tmp_path / "reference")
    ours, reference = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "reference"))
    start = Workspace(small_study()).initial()
    moved = torch.cat([t.flatten() for t in reference.values()]) - start
    for name, tensor in reference.items():
        assert float((ours[name] - tensor).abs().max()) < 0.05 * float(moved.abs().max())


def test_a_finished_run_is_not_trained_again_and_not_overwritten(
    small_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = small_study()
    weights = trained(study, tmp_path)
    observer = Silent()
    assert trained(study, tmp_path, resume=True, observer=observer) == weights
    assert observer.rows == []
    with pytest.raises(UserError, match=r"holds a run already.*--resume"):
        trained(study, tmp_path)
    with pytest.raises(UserError, match=r"\(training.steps was 4, is 3\); a run can be extended"):
        trained(small_study(training={"steps": 3}), tmp_path, resume=True)


def test_the_log_of_a_run(small_study: Callable[..., Study], tmp_path: Path) -> None:
    observer = Silent()
    trained(small_study(training={"validate_every": 2}), tmp_path, observer=observer)
    assert [row.step for row in observer.rows] == [1, 2, 3, 4]
    assert [step for step, _ in observer.validations] == [2, 4]
    for row in observer.rows:
        assert np.mean(row.weights) == pytest.approx(1)
        assert sum(row.shares) == pytest.approx(1)
        assert 1 <= row.effective_tasks <= 3
        assert math.isfinite(row.loss)
    assert [step for step, _ in observer.relations] == [0]


def test_the_log_tells_the_terms_of_a_loss(small_study: Callable[..., Study], tmp_path: Path) -> None:
    observer = Silent()
    learner = {"kind": "pretrain", "contrast": {}}
    model = {"kind": "kdsr", "size": "tiny"}
    trained(small_study(model=model, learner=learner, training={"steps": 3}), tmp_path, observer=observer)
    assert len(observer.rows) == 3
    assert all(math.isfinite(row.terms["contrast"]) for row in observer.rows)


def test_the_network_of_the_best_validation_figure_is_kept(small_study: Callable[..., Study], tmp_path: Path) -> None:
    class Remembering(Silent):
        def validated(self, step: int, psnr: float) -> None:
            super().validated(step, psnr)
            self.kept.append((tmp_path / "best.safetensors").read_bytes())

        kept: list[bytes] = []  # noqa: RUF012

    observer = Remembering()
    weights = trained(small_study(training={"validate_every": 1}), tmp_path, observer=observer)
    figures = [psnr for _, psnr in observer.validations]
    best = max(range(4), key=lambda i: figures[i])
    assert observer.kept[best] == observer.kept[-1]
    assert (observer.kept[-1] == weights) == (best == 3)


def test_refreshed_relations(small_study: Callable[..., Study], tmp_path: Path) -> None:
    observer = Silent()
    graph = {"estimator": {"kind": "gradient", "draws": 2}, "refresh": 2}
    whole = trained(small_study(graph=graph), tmp_path / "whole", observer=observer)
    assert [step for step, _ in observer.relations] == [0, 2]
    first, second = (relations.values for _, relations in observer.relations)
    assert not np.array_equal(first, second)
    with pytest.raises(Interrupted):
        trained(small_study(graph=graph), tmp_path / "parts", observer=Silent(stop_after=2))
    assert trained(small_study(graph=graph), tmp_path / "parts", resume=True) == whole


def test_what_an_estimator_carries_along_survives_an_interruption(
    small_study: Callable[..., Study], tmp_path: Path
) -> None:
    graph = {"estimator": {"kind": "gradient", "draws": 2, "memory": 0.5}, "refresh": 1}
    observer = Silent()
    whole = trained(small_study(graph=graph), tmp_path / "whole", observer=observer)
    assert all(relations.carried is not None for _, relations in observer.relations)
    forgetful = trained(small_study(graph={**graph, "estimator": {"kind": "gradient", "draws": 2}}), tmp_path / "other")
    assert forgetful != whole
    with pytest.raises(Interrupted):
        trained(small_study(graph=graph), tmp_path / "parts", observer=Silent(stop_after=2))
    assert trained(small_study(graph=graph), tmp_path / "parts", resume=True) == whole


def test_what_weighs_nothing_is_not_drawn(small_study: Callable[..., Study], tmp_path: Path) -> None:
    observer = Silent()
    trained(small_study(graph={"weights": {"top": 2}}), tmp_path, observer=observer)
    for row in observer.rows:
        assert [norm is not None for norm in row.norms] == [weight > 0 for weight in row.weights]
    assert sum(weight > 0 for weight in observer.rows[0].weights) == 2


@pytest.mark.parametrize("probabilities", [None, np.array([2.0, 1.0, 0.0])])
def test_shots_take_their_share_of_every_step(probabilities: np.ndarray | None) -> None:
    with_shots = TaskSampler(NAMES, 0, 5, 2, target="real", shot_tasks=2)
    without = TaskSampler(NAMES, 0, 3, 3)
    assert with_shots.sources == (*NAMES, "real")
    assert without.sources == NAMES
    for step in range(6):
        drawn = [ref for shard in with_shots.shards(step, probabilities) for ref in shard]
        assert [ref.index for ref in drawn] == list(range(5 * step, 5 * step + 5))
        assert [ref.distribution for ref in drawn[3:]] == ["real", "real"]
        others = [ref.distribution for shard in without.shards(step, probabilities) for ref in shard]
        assert [ref.distribution for ref in drawn[:3]] == others


def test_the_shots_weigh_1(small_study: Callable[..., Study], tmp_path: Path) -> None:
    """With plain gradient descent, a step goes along the mean of the weighted gradients of both tasks."""
    observer = Silent()
    graph = {"estimator": {"kind": "expert"}, "edges": [{"from": "blur_iso_wide", "relation": 0.5}]}
    study = small_study(
        learner={"kind": "pretrain"},
        graph={**graph, "weights": {"rule": "relu"}},
        training={
            "steps": 1,
            "tasks_per_step": 2,
            "shot_tasks": 1,
            "optimizer": {"kind": "sgd", "lr": 1e-2, "schedule": "constant"},
        },
    )
    trained(study, tmp_path, observer=observer)
    row = observer.rows[0]
    assert row.weights == [0, 3, 0, 1]
    assert row.drawn == [0, 1, 0, 1]
    assert row.effective_tasks == pytest.approx(1.0)
    workspace = Workspace(study)
    sampler = TaskSampler(tuple(study.auxiliary), study.experiment.seed, 2, 2, target="phone_camera", shot_tasks=1)
    refs = [TaskRef("blur_iso_wide", study.experiment.seed, 0), sampler.shards(0)[0][1]]
    gradients = torch.from_numpy(workspace.gradients(workspace.initial(), workspace.tasks(refs)).gradients)
    moved = workspace.initial() - initial_vector(load_model(tmp_path / "model.safetensors"))
    # The weight 3 is the mean of 3, 0, 0 for the whole of what is synthetic.
    torch.testing.assert_close(moved, 1e-2 * gradients.mean(dim=0), atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize(
    "changes", [({"acts_on": "sampling"}, {"acts_on": "inner"}), ({"balance": "unit"}, {"balance": "ema"})]
)
def test_shots_stand_beside_the_nearest_distribution(
    small_study: Callable[..., Study], tmp_path: Path, changes: tuple[dict[str, Any], ...]
) -> None:
    """Where one distribution has all the weight, its inner factor is 1, as that of the shots is.

    In a first step, a running mean of norms is the norm itself, each source's own.
    """
    graph = {"estimator": {"kind": "expert"}, "edges": [{"from": "blur_iso_wide", "relation": 0.5}]}
    found = [
        trained(
            small_study(
                learner={"kind": "fomaml", "inner_lr": 0.1},
                graph={**graph, "weights": {"rule": "relu", **change}},
                training={"steps": 1, "tasks_per_step": 2, "shot_tasks": 1, "optimizer": {"kind": "sgd", "lr": 1e-2}},
            ),
            tmp_path / str(k),
        )
        for k, change in enumerate(changes)
    ]
    assert found[0] == found[1]


def test_one_task_a_step_still_feels_its_weight(small_study: Callable[..., Study], tmp_path: Path) -> None:
    """With plain gradient descent, a step is as long as its task weighs; a distribution of weight 0 is not drawn."""
    observer = Silent()
    graph = {"estimator": {"kind": "expert"}, "edges": [{"from": "blur_iso_wide", "relation": 0.5}]}
    optimizer = {"kind": "sgd", "lr": 1e-2, "schedule": "constant"}
    study = small_study(
        learner={"kind": "pretrain"},
        graph={**graph, "weights": {"rule": "relu"}},
        training={"steps": 1, "tasks_per_step": 1, "optimizer": optimizer},
    )
    trained(study, tmp_path, observer=observer)
    row = observer.rows[0]
    assert row.weights == [0, 3, 0]
    assert [norm is not None for norm in row.norms] == [False, True, False]
    workspace = Workspace(study)
    model = load_model(tmp_path / "model.safetensors")
    moved = initial_vector(model) - workspace.initial()
    # The weight 3 is the mean of 3, 0, 0 for the whole of what is learned from: the step is the gradient's own.
    assert float(moved.norm()) == pytest.approx(1e-2 * row.norms[1], rel=1e-3)


@pytest.mark.parametrize("acts_on", ["inner", "both"])
def test_inner_weights_reach_the_tasks(small_study: Callable[..., Study], tmp_path: Path, acts_on: str) -> None:
    learner = {"kind": "fomaml", "inner_lr": 0.1}
    plain = trained(small_study(learner=learner), tmp_path / "plain")
    assert trained(small_study(learner=learner, graph={"weights": {"acts_on": acts_on}}), tmp_path / acts_on) != plain
    even = {"estimator": {"kind": "uniform"}, "weights": {"acts_on": acts_on}}
    uniform = trained(small_study(learner=learner, graph={"estimator": {"kind": "uniform"}}), tmp_path / "uniform")
    assert trained(small_study(learner=learner, graph=even), tmp_path / "even") == uniform


def test_inner_weights_need_inner_steps(small_study: Callable[..., Study]) -> None:
    with pytest.raises(
        ValidationError, match=r"acts_on: inner scales inner learning rates.*write gradients or sampling"
    ):
        small_study(learner={"kind": "pretrain"}, graph={"weights": {"acts_on": "inner"}})


@pytest.mark.parametrize(
    "switch",
    [
        {"balance": "unit"},
        {"balance": "ema"},
        {"acts_on": "sampling"},
        {"temperature": 0.2},
        {"final_temperature": 5.0},
        {"effective": 1.5},
        {"top": 1},
        {"shrink": True},
        {"warmup_steps": 2},
        {"rule": "relu"},
    ],
)
def test_each_switch_of_the_weights_acts(
    small_study: Callable[..., Study], tmp_path: Path, switch: dict[str, Any]
) -> None:
    plain = trained(small_study(), tmp_path / "plain")
    assert trained(small_study(graph={"weights": switch}), tmp_path / "other") != plain


def test_a_vanishing_temperature_does_not_break_the_network(small_study: Callable[..., Study], tmp_path: Path) -> None:
    """Steps that draw only tasks of weight 0 change nothing, instead of dividing 0 by 0."""
    from safetensors.torch import load_file

    study = small_study(graph={"weights": {"temperature": 1e-4}}, training={"tasks_per_step": 1, "shard_size": 1})
    trained(study, tmp_path)
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "model.safetensors").values())


def test_a_diverging_run_is_stopped_and_named(small_study: Callable[..., Study], tmp_path: Path) -> None:
    study = small_study(training={"optimizer": {"kind": "sgd", "lr": 1e30}})
    with pytest.raises(UserError, match=r"step \d+: the loss .* not finite; lower training.optimizer.lr"):
        trained(study, tmp_path)


def test_a_changed_task_file_is_noticed_on_resume(small_study: Callable[..., Study], tmp_path: Path) -> None:
    import dataclasses

    study = small_study()
    trained(study, tmp_path)
    changed = dataclasses.replace(study, target=study.auxiliary["blur_iso_wide"])
    with pytest.raises(UserError, match=r"another configuration \(tasks.phone_camera"):
        trained(changed, tmp_path, resume=True)


@pytest.mark.parametrize("content", ["", "[]", '{"step": 3}'])
def test_broken_records_are_named(small_study: Callable[..., Study], tmp_path: Path, content: str) -> None:
    study = small_study()
    trained(study, tmp_path)
    (tmp_path / "checkpoints/00000004.state.json").write_text(content)
    with pytest.raises(UserError, match=r"state.json: cannot be read"):
        trained(study, tmp_path, resume=True)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json: (cannot be read|is not the record)"):
        trained(study, tmp_path, resume=True)


@pytest.mark.parametrize("shot_tasks", [0, 1])
def test_learning_from_the_shots_alone_needs_no_relations(
    small_study: Callable[..., Study], tmp_path: Path, shot_tasks: int
) -> None:
    observer = Silent()
    trained(small_study(training={"source": "target", "shot_tasks": shot_tasks}), tmp_path, observer=observer)
    assert observer.relations == []
    assert observer.rows[0].weights == [1.0]
    assert not (tmp_path / "graph.json").exists()


def test_training_lowers_the_loss(small_study: Callable[..., Study], tmp_path: Path) -> None:
    observer = Silent()
    study = small_study(
        learner={"kind": "pretrain"},
        graph={"auxiliary": ["blur_iso_wide"]},
        training={"steps": 60, "optimizer": {"kind": "adam", "lr": 3e-3}, "validate_every": 20},
    )
    trained(study, tmp_path, observer=observer)
    assert observer.validations[-1][1] > observer.validations[0][1]


def test_a_folder_that_cannot_be_written(small_study: Callable[..., Study], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*another folder"):
        RunFolder(blocked / "run", small_study(), resume=False)


def test_a_second_interrupt_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell runs the tests in the background
    with graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_changed_prior_is_noticed_on_resume(small_study: Callable[..., Study], tmp_path: Path) -> None:
    """The graph of a training is the prior of the next; what it says is part of the configuration."""
    trained(small_study(), tmp_path / "first")
    study = small_study(graph={"prior": {"graph": str(tmp_path / "first")}})
    trained(study, tmp_path / "next")
    graph = load_graph(tmp_path / "next")
    node = graph.nodes["phone_camera"]
    assert (node["prior"], node["seed"]) == (str(tmp_path / "first"), 0)
    assert sum(graph.nodes[name]["tasks"] for name in study.auxiliary) == 4 * 4
    path = tmp_path / "first/graph.json"
    path.write_text(path.read_text().replace('"weight": ', '"weight": 1'))
    with pytest.raises(UserError, match=r"another configuration \(prior was"):
        trained(study, tmp_path / "next", resume=True)


def test_the_log_tells_every_estimate(small_study: Callable[..., Study], tmp_path: Path) -> None:
    observer = Silent()
    trained(small_study(graph={"refresh": 2}), tmp_path, observer=observer)
    log = observer.rows
    assert [row.step for row in log if row.related] == [1, 3]
    assert len(log[0].related.values) == len(log[0].related.standard_errors) == 3

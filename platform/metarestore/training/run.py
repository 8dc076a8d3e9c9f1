"""Trains one study and writes configuration, checkpoints, final weights and relation graph into a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor

from metarestore import __version__
from metarestore.config.dump import dump_yaml
from metarestore.config.estimators import measure
from metarestore.config.experiment import Experiment
from metarestore.config.keypath import KeyPath
from metarestore.engines.engine import Session
from metarestore.errors import UserError
from metarestore.files import occupied, write_atomically
from metarestore.graphs.estimate import estimate
from metarestore.graphs.graph import Graph, build_graph, save_graph
from metarestore.graphs.relations import Relations
from metarestore.models.checkpoint import save_model
from metarestore.training.identity import changes_on_resume, portable, study_record, upgraded
from metarestore.training.log import LogRow, Observer
from metarestore.training.loop import Plan, gradient_weights, run
from metarestore.training.optimizer import OuterOptimizer
from metarestore.training.sampler import TaskSampler
from metarestore.training.state import TrainState, load_state
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

_RECORD = "run.json"
_FORMAT = 2
"""Version of the record's format; version 1 contained absolute paths."""


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        flat: All learned parameters, (P,), or their EMA if `training.ema` is set; the network's parameters come first.
        state: The final state, with the log of all steps.
        sources: Names of the sources of tasks: the distributions, and the target (last) if its shots were used.
        weights: Final gradient weight of each distribution.
        graph: The relation graph, or None if only the target's shots were used.
    """

    flat: Tensor
    state: TrainState
    sources: tuple[str, ...]
    weights: dict[str, float]
    graph: Graph | None

    @property
    def relations(self) -> Relations | None:
        """The final relations."""
        return self.state.relations


class RunFolder:
    """The folder of one run.

    Args:
        path: The folder; created if it does not exist.
        study: The resolved configuration and its task files.
        resume: Whether to continue an existing run.
        trained: Whether the study itself is trained, not only its arms.
        restated: Keys that were given explicitly in addition to the file: if a run is extended, their values apply to
            the remaining steps.

    Raises:
        UserError: The folder is not writable, or contains another run or a run of another configuration.
    """

    def __init__(
        self, path: Path, study: Study, *, resume: bool, trained: bool = True, restated: Sequence[KeyPath] = ()
    ) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._record = path / _RECORD
        described = study_record(study)
        if self._record.is_file():
            before = _read(self._record)
            if not resume:
                raise occupied(path)
            changes = _changes(path, before, study, described, trained=trained, restated=restated)
            self.notes: dict[str, Any] = before["notes"]
            if changes:
                self.notes.setdefault("lengthened", []).append({"before": changes})
        else:
            self.notes = {"started": f"{datetime.now(UTC):%Y-%m-%d}"}
        self._described = described
        self.save_notes()
        inside = path.absolute().is_relative_to(study.root.absolute())
        configuration = study.experiment.model_dump(mode="json", by_alias=True)
        dump_yaml(
            portable(configuration, study.root) if inside else configuration,
            path / "config.yaml",
            header="The resolved configuration of this run.",
        )

    @property
    def changed(self) -> dict[str, Any]:
        """The keys that changed when the run was extended, with their original values."""
        first: dict[str, Any] = {}
        for change in self.notes.get("lengthened", ()):
            first = change["before"] | first
        return first

    def save_notes(self) -> None:
        """Writes the data that a resumed run needs, e.g. the id of the MLflow run."""
        record = {
            "metarestore": __version__,
            "format": _FORMAT,
            "study": self._described,
            "notes": self.notes,
        }
        write_atomically(self._record, json.dumps(record, indent=1).encode())


def require_continuable(path: Path, study: Study, *, trained: bool = True, restated: Sequence[KeyPath] = ()) -> None:
    """Checks that a folder contains no run, or one that can be continued as this study; writes nothing.

    Raises:
        UserError: It contains another run, or one that cannot be extended.
    """
    record = path / _RECORD
    if record.is_file():
        _changes(path, _read(record), study, study_record(study), trained=trained, restated=restated)


def _changes(
    path: Path,
    record: dict[str, Any],
    study: Study,
    now: dict[str, Any],
    *,
    trained: bool,
    restated: Sequence[KeyPath],
) -> dict[str, Any]:
    before = record["study"] if record.get("format") == _FORMAT else upgraded(record["study"], now)
    return changes_on_resume(path, before, study, now, trained=trained, restated=restated)


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another --out") from error
    if not isinstance(record, dict) or not {"study", "notes"} <= set(record):
        raise UserError(f"{path}: is not the record of a run; choose another --out")
    return record


def make_plan(workspace: Workspace, session: Session) -> Plan:
    """Returns the plan of the training loop for a study."""
    experiment, study = workspace.experiment, workspace.study
    training = experiment.training
    from_target = training.source == "target"
    names = (experiment.graph.target,) if from_target else tuple(study.auxiliary)

    def relate(step: int, flat: Tensor, previous: Relations | None) -> Relations:
        return estimate(workspace, session.map, workspace.network(flat), step, previous)

    validated = [] if from_target else [n for n in names if study.auxiliary[n].own_images is None]
    return Plan(
        steps=training.steps,
        sampler=TaskSampler(
            names,
            experiment.seed,
            training.tasks_per_step,
            training.shard_size,
            shared_until=experiment.shared_until,
            target=experiment.graph.target,
            shot_tasks=0 if from_target else training.shot_tasks,
            distinct=training.distinct,
        ),
        weights=experiment.graph.weights,
        relate=None if from_target else relate,
        refresh=experiment.graph.refresh,
        validate=tuple(validated) if "validation" in study.images else (),
        validate_every=training.validate_every,
        checkpoint_every=training.checkpoint_every,
        keep=training.keep,
    )


def initial_state(workspace: Workspace) -> TrainState:
    """Returns the state before the first step."""
    training = workspace.experiment.training
    start, decayed = workspace.initial(), workspace.layout.size
    return TrainState(OuterOptimizer(training.optimizer, start, training.steps, ema=training.ema, decayed=decayed))


def train(workspace: Workspace, folder: RunFolder, session: Session, observer: Observer) -> Trained:
    """Trains a study, or resumes it from its last checkpoint, and writes weights and graph into its folder.

    `model.safetensors` contains the final parameters, `best.safetensors` those with the best validation PSNR.

    Raises:
        Interrupted: The user asked to stop; the state is saved.
    """
    experiment, study = workspace.experiment, workspace.study
    plan = replace(
        make_plan(workspace, session),
        best=lambda flat: save_model(
            folder.path / "best.safetensors", experiment.model, study.scale, workspace.network(flat)
        ),
    )
    state = initial_state(workspace)
    load_state(folder.checkpoints, state)
    if plan.relate and plan.steps == 0:
        state.relations = plan.relate(0, state.optimizer.flat.detach(), None)
    run(plan, state, session, observer, folder.checkpoints)
    flat = state.optimizer.averaged
    save_model(folder.path / "model.safetensors", experiment.model, study.scale, workspace.network(flat))
    if rates := workspace.inner_rates(flat):
        write_atomically(folder.path / "inner_rates.safetensors", save(rates))
    names = plan.sampler.distributions
    weights = dict(zip(names, gradient_weights(plan, state).tolist(), strict=True))
    graph = None
    if state.relations is not None:
        provenance = portable(_provenance(folder, experiment, state.relations), study.root)
        drawn = _drawn(plan.sampler.sources, state.log)
        graph = build_graph(state.relations, weights, study.auxiliary, study.target, provenance, drawn)
        for node in graph.nodes.values():
            node["parameters"] = json.dumps(portable(json.loads(node["parameters"]), study.root), sort_keys=True)
        save_graph(graph, folder.path)
    return Trained(flat, state, plan.sampler.sources, weights if graph is not None else {}, graph)


def _provenance(folder: RunFolder, experiment: Experiment, relations: Relations) -> dict[str, Any]:
    prior = experiment.graph.prior
    used = {"prior": str(prior.graph)} if prior is not None and relations.estimated is not None else {}
    run_id, date = (str(folder.notes.get(key) or "") for key in ("mlflow_run", "started"))
    measured = measure(experiment.graph.estimator)
    origin = {"run": run_id, "seed": experiment.seed, "metarestore": __version__, "date": date}
    return {"measure": measured, **origin, **used}


def _drawn(names: tuple[str, ...], log: Sequence[LogRow]) -> dict[str, int]:
    """Returns the number of tasks drawn from each distribution."""
    rows = np.asarray([row.drawn for row in log if row.drawn], np.int64).reshape(-1, len(names))
    return dict(zip(names, rows.sum(axis=0).tolist(), strict=True))

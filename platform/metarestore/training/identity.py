"""Identity of runs: their configuration with contents instead of paths, and the changes allowed on resume.

A project may be moved, so nothing here depends on its location: photographs, networks and kernels are compared by
content, and other paths are relative to the project.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from metarestore.config.affects import MEASURED, Affects, unaffecting
from metarestore.config.estimators import LearnedEstimatorSpec, estimate_behind, takes_prior
from metarestore.config.experiment import Experiment
from metarestore.config.keypath import KeyPath, format_path
from metarestore.config.network_path import network_paths
from metarestore.errors import UserError
from metarestore.graphs.graph import graph_file
from metarestore.models.checkpoint import network_hash
from metarestore.models.shipped import shipped
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.spec import DistributionSpec, content_hash
from metarestore.training.optimizer import learning_rate
from metarestore.workspace.study import Study

_BY_CONTENT = frozenset(
    {"train", "validation", "test", "init", "teacher", "network", "graph", "lr", "hr", "image", "path"}
)
"""Keys of paths that are recorded by content."""
_STEPS: KeyPath = ("training", "steps")
_SCHEDULE: frozenset[KeyPath] = frozenset(
    {
        *(("training", "optimizer", key) for key in ("schedule", "lr", "min_lr", "warmup_steps")),
        *(("graph", "weights", key) for key in ("temperature", "final_temperature")),
    }
)
"""Keys that may change when a run is extended."""


def portable(data: Any, root: Path) -> Any:
    """Replaces paths inside a project by relative paths, and those of shipped networks by names, in nested plain data.

    Args:
        data: Mappings and lists, which may contain paths as `Path` or text.
        root: The project's folder.
    """
    if isinstance(data, Mapping):
        return {key: portable(value, root) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [portable(value, root) for value in data]
    if not isinstance(data, Path | str) or not Path(data).is_absolute():
        return str(data) if isinstance(data, Path) else data
    for folder in (root.absolute(), root.resolve()):
        if Path(data).is_relative_to(folder):
            return Path(data).relative_to(folder).as_posix()
    names = {path.resolve(): name for name, path in shipped().items()}
    return names.get(Path(data), str(data))


def study_record(study: Study) -> dict[str, Any]:
    """Returns everything a run's result depends on: configuration except engine, task files, photographs, networks.

    It is equal for a project and its copies.
    """
    experiment = study.experiment
    described = _without_contents(
        experiment.model_dump(by_alias=True, exclude=unaffecting(Experiment, MEASURED | Affects.COMPARE))
    )
    tasks = {**study.auxiliary, experiment.graph.target: study.target}
    described["tasks"] = {name: _task_record(spec) for name, spec in tasks.items()}
    if networks := network_paths(experiment):
        described["networks"] = {key: network_hash(path) for key, path in networks.items()}
    if experiment.graph.prior is not None and takes_prior(experiment.graph.estimator):
        described["prior"] = _prior_hash(experiment.graph.prior.graph)
    described["images"] = {split: _photographs(source) for split, source in study.images.items()}
    record: dict[str, Any] = to_jsonable_python(portable(described, study.root))
    return record


def merged_contents(studies: Sequence[Study]) -> dict[str, str]:
    """Returns the content hashes of task files, photographs, networks and priors of several studies, by key.

    They are equal for a project and its copies.
    """
    merged: dict[str, set[str]] = {}
    for study in studies:
        record = study_record(study)
        contents = {f"tasks.{name}": task["content"] for name, task in record["tasks"].items()}
        contents |= record.get("networks", {}) | {f"data.{split}": value for split, value in record["images"].items()}
        contents |= {"graph.prior": record["prior"]} if "prior" in record else {}
        for key, value in contents.items():
            merged.setdefault(key, set()).add(value)
    return {key: ", ".join(sorted(values)) for key, values in sorted(merged.items())}


def without_contents(described: Mapping[str, str]) -> dict[str, str]:
    """Removes the paths of files that are compared by content from a flattened configuration."""
    return {key: value for key, value in described.items() if key.rpartition(".")[2] not in _BY_CONTENT}


def _task_record(spec: DistributionSpec) -> dict[str, Any]:
    return {**_without_contents(spec.model_dump()), "content": content_hash(spec)}


def _without_contents(data: Any) -> Any:
    """Removes the paths of files that are compared by content from nested data."""
    if isinstance(data, Mapping):
        kept = {key: value for key, value in data.items() if not (isinstance(value, Path) and key in _BY_CONTENT)}
        return {key: _without_contents(value) for key, value in kept.items()}
    return [_without_contents(value) for value in data] if isinstance(data, list | tuple) else data


def _photographs(source: ImageSource) -> str:
    if source.kind == "embedded":
        return str(source)
    try:
        return ImageStore.open(source).content
    except UserError:
        return "not readable"  # and therefore unused: a training opens the photographs that it needs before this


def _prior_hash(path: Path) -> str:
    return hashlib.blake2b(graph_file(path).read_bytes(), digest_size=8).hexdigest()


def upgraded(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a record of an earlier version, which contains paths instead of contents, to the current format.

    Contents that it does not record are assumed to be unchanged.
    """
    known = {key: value if key == "arms" else _without_texts(value) for key, value in before.items()}
    for name, task in known.get("tasks", {}).items():
        if name in now["tasks"]:
            task["content"] = now["tasks"][name]["content"]
    networks = {key: known.pop(key) for key in ("init", "teacher", "describer") if key in known}
    if networks:
        same = sorted(networks.values()) == sorted(now.get("networks", {}).values())
        known["networks"] = now["networks"] if same else networks
    if set(before.get("images", ())) == set(now["images"]):
        known["images"] = now["images"]
    return known


def _without_texts(data: Any) -> Any:
    if isinstance(data, Mapping):
        kept = {key: value for key, value in data.items() if not (isinstance(value, str) and key in _BY_CONTENT)}
        return {key: _without_texts(value) for key, value in kept.items()}
    return [_without_texts(value) for value in data] if isinstance(data, list) else data


def differences(before: Any, now: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any, Any]]:
    """Yields the key paths at which two records differ, with both values; None for a missing value."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), (*path, key))
    elif before != now:
        yield path, before, now


def changes_on_resume(
    folder: Path,
    before: Mapping[str, Any],
    study: Study,
    now: Mapping[str, Any],
    *,
    trained: bool,
    restated: Sequence[KeyPath] = (),
) -> dict[str, Any]:
    """Returns the changes of a resumed run, which may only affect its length, as keys with their previous values.

    An extended run gives the same bytes as one with the final length from the start, unless a setting depends on the
    length. Such a setting must be changed or restated together with the length, and then applies to the remaining
    steps.

    Args:
        folder: The run's folder, for messages.
        before: The record of the run.
        study: The study to continue the run as.
        now: The record of that study.
        trained: Whether the study itself is trained, not only its arms.
        restated: Keys that were given explicitly in addition to the file.

    Raises:
        UserError: The changes are not allowed.
    """
    changes = list(differences(before, now))
    if not changes:
        return {}
    bare = [(_of_arm(path), old, new) for path, old, new in changes]
    longer = [old < new for path, old, new in bare if path == _STEPS and isinstance(old, int) and isinstance(new, int)]
    allowed = {_STEPS, *_SCHEDULE} if longer and all(longer) else set()
    for (path, old, new), (key, _, _) in zip(changes, bare, strict=True):
        if key not in allowed:
            hint = "; a run can be extended but not shortened" if key == _STEPS else ""
            raise UserError(
                f"{folder}: was started with another configuration ({_described(path, old, new)}){hint}; only engine, "
                "training.keep and a larger training.steps may change on --resume"
            )
    changed = {key for key, _, _ in bare}
    steps = before["training"]["steps"]
    for key, reason in _depends_on_length(study.experiment, steps) if trained else ():
        explicit = key in changed or any(prefix == key[: len(prefix)] for prefix in restated)
        if key not in _REMEDIES or not explicit:
            remedy = f", or set a value for the remaining steps, e.g. {_REMEDIES[key]}" if key in _REMEDIES else ""
            raise UserError(
                f"{folder}: {format_path(key)}: {reason}, so a run of {steps} steps cannot be extended to "
                f"{study.experiment.training.steps} steps; start a new run{remedy}"
            )
    return {format_path(path): old for path, old, _ in changes}


_COSINE: KeyPath = ("training", "optimizer", "schedule")
_ANNEALED: KeyPath = ("graph", "weights", "final_temperature")
_JOINT: KeyPath = ("graph", "estimator", "joint")
_REMEDIES = {
    _COSINE: "training.optimizer.schedule=constant",
    _ANNEALED: "graph.weights.final_temperature=null",
}


def _depends_on_length(experiment: Experiment, steps: int) -> Iterator[tuple[KeyPath, str]]:
    """Yields the keys whose effect on the first `steps` steps depends on the length of the whole run."""
    training, graph = experiment.training, experiment.graph
    spec, after = training.optimizer, training.steps
    if any(learning_rate(spec, step, steps) != learning_rate(spec, step, after) for step in range(steps)):
        yield _COSINE, f"the {spec.schedule} schedule ends at the last step"
    if training.source == "target":
        return
    final = graph.weights.final_temperature
    if final is not None and final != graph.weights.temperature:
        yield _ANNEALED, "the final temperature is reached at the last step"
    estimator = estimate_behind(graph.estimator)
    if isinstance(estimator, LearnedEstimatorSpec) and estimator.joint:
        yield _JOINT, "the relation network's training is spread over all steps"


def _of_arm(path: KeyPath) -> KeyPath:
    return path[2:] if path[:1] == ("arms",) else path


def _described(path: KeyPath, before: Any, now: Any) -> str:
    name = format_path(path)
    if path[:1] == ("images",) or path[-1:] == ("content",):
        return f"{name}: the files have changed since the run was started"
    return f"{name} was {before}, is {now}"

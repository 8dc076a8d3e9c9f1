"""Validation of files without running them, and the schemas for editors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metarestore.config.document import project_root, read_document, validate
from metarestore.config.experiment import Experiment, ExperimentFile
from metarestore.config.file_names import yaml_files
from metarestore.config.graph import GraphSpec
from metarestore.config.schema import write_schemas
from metarestore.config.search_check import require_search
from metarestore.config.search_space import lies_in
from metarestore.errors import UserError
from metarestore.project import TASK_FILE, Project, arm_experiments, read_experiment, read_task, resolve
from metarestore.tasks.pair_images import open_sides

KINDS = ("tasks", "graphs", "experiments")
_RESOLVED = (
    *("graph", "learner.kind", "learner.teacher", "learner.warmup_steps", "training.patch", "training.init"),
    *("adaptation.patch", "adaptation.alternatives"),
)
"""Searchable keys that determine whether an experiment can be resolved."""


def project_files(paths: Sequence[Path]) -> list[Path]:
    """Returns the YAML files in `paths`, where a folder stands for its tasks/, graphs/ and experiments/ folders.

    Raises:
        UserError: A path does not exist, or there is nothing to check.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        if path.is_file():
            files.append(path)
            continue
        folders = [path] if path.name in KINDS else [path / kind for kind in KINDS]
        files += [file for folder in folders for file in yaml_files(folder).values()]
    if not files:
        raise UserError(
            f"{paths[0]}: holds no YAML files in tasks/, graphs/ or experiments/; create some with `metarestore init`"
        )
    return files


def check_files(files: Sequence[Path]) -> list[str]:
    """Returns the problems of all files, one line each."""
    problems: list[str] = []
    for file in files:
        try:
            _check(file)
        except UserError as error:
            problems += error.problems
    return list(dict.fromkeys(problems))


def _check(file: Path) -> None:
    kind = file.absolute().parent.name
    root = project_root(file)
    if kind == "tasks":
        spec = read_task(file)
        if spec.pairs is not None:
            open_sides(spec.pairs.folder)
        if problems := spec.implausible_pairs():
            raise UserError(problems)
    elif kind == "graphs":
        graph = validate(read_document(file), GraphSpec)
        Project(root).auxiliary(graph)
    else:
        experiment = read_experiment(file)
        arms = arm_experiments(experiment).values() if experiment.arms else ()
        for single in (experiment, *arms):
            resolve(single, root)


def require_resolvable(experiment: Experiment, root: Path, *, arms: bool) -> None:
    """Checks names and sizes of an experiment before PyTorch is loaded to run it.

    Raises:
        UserError: An experiment, or one of its arms, cannot be resolved, or one of its folders holds no photographs.
    """
    for single in arm_experiments(experiment).values() if arms else (experiment,):
        study = resolve(single, root)
        used = {
            "train": any(spec.own_images is None for spec in (study.target, *study.auxiliary.values())),
            "test": study.target.own_images is None,
        }
        for split, source in study.images.items():
            if used.get(split):
                source.files()


def require_searchable_names(experiment: Experiment, root: Path) -> None:
    """Checks the same for tuning, as far as it does not depend on the searched values.

    Raises:
        UserError: There is nothing to search, or the experiment cannot be resolved.
    """
    require_search(experiment)
    if not any(lies_in(key, named) or lies_in(named, key) for key in experiment.search for named in _RESOLVED):
        resolve(experiment, root)


def write_all_schemas(folder: Path) -> list[Path]:
    """Writes task.json, graph.json and experiment.json."""
    return write_schemas(folder, {"task": TASK_FILE, "graph": GraphSpec, "experiment": ExperimentFile})

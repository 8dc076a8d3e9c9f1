"""Checking files without running them, and the schemas that editors check them by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metarestore.config.document import project_root, read_document, validate
from metarestore.config.experiment import ExperimentFile
from metarestore.config.graph import GraphSpec
from metarestore.config.schema import write_schemas
from metarestore.errors import UserError
from metarestore.project import TASK_FILE, Project, arm_experiments, read_experiment, read_task, resolve
from metarestore.tasks.pair_images import open_sides, require_plausible
from metarestore.tasks.spec import PairsSpec

KINDS = ("tasks", "graphs", "experiments")


def project_files(paths: Sequence[Path]) -> list[Path]:
    """Lists the YAML files among `paths`: files as they are, of folders what lies in tasks/, graphs/ and experiments/.

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
        files += [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
    if not files:
        raise UserError(
            f"{paths[0]}: holds no YAML files in tasks/, graphs/ or experiments/; make some with `metarestore init`"
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
        if isinstance(spec, PairsSpec):
            open_sides(spec)
            require_plausible(spec)
    elif kind == "graphs":
        graph = validate(read_document(file), GraphSpec)
        Project(root).auxiliary(graph)
    else:
        experiment = read_experiment(file)
        arms = arm_experiments(experiment).values() if experiment.arms else ()
        for single in (experiment, *arms):
            resolve(single, root)


def write_all_schemas(folder: Path) -> list[Path]:
    """Writes task.json, graph.json and experiment.json."""
    try:
        return write_schemas(folder, {"task": TASK_FILE, "graph": GraphSpec, "experiment": ExperimentFile})
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder with --out") from error

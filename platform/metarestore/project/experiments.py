"""Reading experiment files, and the experiments of their arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from metarestore.config.affects import Affects, keys
from metarestore.config.document import Document, project_root, read_document, validate
from metarestore.config.experiment import MANY, Experiment, ExperimentFile
from metarestore.config.grid import single
from metarestore.config.grid_check import check_grid
from metarestore.config.overrides import Override, merge
from metarestore.config.problems import Problem, problems_of
from metarestore.config.search_check import check_search
from metarestore.config.shape import Shape
from metarestore.errors import UserError
from metarestore.project.names import Project


def read_experiment(path: Path, overrides: Sequence[Override] = ()) -> Experiment:
    """Reads an experiment file, inserts its graph, applies `--set` overrides, and checks arms, search and grid.

    Raises:
        UserError: The file, the graph's file, an override, an arm, the search or the grid is invalid.
    """
    document = read_document(path)
    named = [override for override in overrides if override.path == ("graph",) and isinstance(override.value, str)]
    # Overrides inside a graph that the file only names can be checked after the graph was inserted.
    outside = [override for override in overrides if override.path[0] != "graph" or override in named]
    overrides = [override for override in overrides if override not in named]
    written = validate(document, ExperimentFile, outside)
    if isinstance(written.graph, str):
        spec = Project(project_root(path)).graph(written.graph)
        inlined = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        document = replace(document, data={**document.data, "graph": inlined})
    experiment = validate(document, Experiment, overrides)
    _check_arms(document, experiment)
    check_search(document, experiment)
    check_grid(document, experiment)
    return experiment


def arm_experiments(experiment: Experiment) -> dict[str, Experiment]:
    """Returns the experiment of each arm, with the arm's changes merged in.

    Raises:
        UserError: The experiment has no arms.
    """
    if not experiment.arms:
        raise UserError("arms: is missing, so there is nothing to compare; name some, or use `metarestore train`")
    return {name: Experiment.model_validate(_patched(experiment, patch)) for name, patch in experiment.arms.items()}


def _patched(experiment: Experiment, patch: Mapping[str, Any]) -> dict[str, Any]:
    return merge(single(experiment), patch)


def _check_arms(document: Document, experiment: Experiment) -> None:
    """Reports what is invalid in any arm, with the arm's position in the file."""
    adapter = TypeAdapter(Experiment)
    lines = []
    for name, patch in experiment.arms.items():
        merged = _patched(experiment, patch)
        try:
            problems = _incomparable(experiment, adapter.validate_python(merged))
        except ValidationError as error:
            problems = problems_of(error, merged, Shape(adapter, merged))
        lines += [document.message(problem.within(("arms", name)))[1] for problem in problems]
    if lines:
        raise UserError(lines)


def _incomparable(experiment: Experiment, arm: Experiment) -> list[Problem]:
    """Lists what an arm changes although all arms share it."""
    text = "differs from the experiment's, but all arms are run and measured alike; set it for the whole experiment"
    # One engine computes all arms.
    alike = [tuple(key.split(".")) for key in (*keys(Experiment, Affects.COMPARISON), "engine")]
    differs = [path for path in alike if reduce(getattr, path, arm) != reduce(getattr, path, experiment)]
    nested = [(key,) for key in MANY if key in arm.model_fields_set and getattr(arm, key)]
    return [Problem(path, text, path) for path in (*differs, *nested)]

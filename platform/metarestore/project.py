"""Names to files: a user's project first, then the catalogue that travels with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from metarestore.config.affects import Affects, keys
from metarestore.config.document import Document, display_path, followed, project_root, read_document, validate
from metarestore.config.estimators import estimate_behind, measure, takes_prior
from metarestore.config.experiment import MANY, Experiment, ExperimentFile, FolderDataSpec
from metarestore.config.file_names import full_path, yaml_files
from metarestore.config.graph import GraphSpec
from metarestore.config.grid import single
from metarestore.config.grid_check import check_grid
from metarestore.config.keypath import format_path
from metarestore.config.network_path import with_network_paths
from metarestore.config.overrides import Override, merge
from metarestore.config.pattern import matching
from metarestore.config.problems import Problem, problems_of
from metarestore.config.search_check import check_search
from metarestore.config.shape import Shape
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.models.shipped import shipped
from metarestore.tasks.images import ImageSource
from metarestore.tasks.kinds import TaskSpec
from metarestore.tasks.remarks import give_remarks
from metarestore.tasks.spec import DistributionSpec, Scale
from metarestore.tasks.task import Split
from metarestore.workspace.study import Study

TASK_FILE: TypeAdapter[DistributionSpec] = TypeAdapter(TaskSpec)


def catalogue() -> Path:
    """Returns the folder of the shipped tasks, graphs and experiments: in the wheel, or the repository's own."""
    packaged = Path(__file__).parent / "catalogue"
    return packaged if packaged.is_dir() else Path(__file__).parents[2]


@dataclass(frozen=True)
class Project:
    """A folder with `tasks/`, `graphs/` and `experiments/`; what it lacks comes from the catalogue.

    Attributes:
        root: The project's folder; relative paths in its files start here.
    """

    root: Path

    def names(self, kind: str) -> dict[str, Path]:
        """Returns the files of `kind` (tasks, graphs, experiments) by name; the project's own hide the catalogue's."""
        found: dict[str, Path] = {}
        for folder in (catalogue() / kind, self.root / kind):
            found |= yaml_files(folder)
        return dict(sorted(found.items()))

    def path(self, kind: str, name: str, key: str = "") -> Path:
        """Returns the file of a name.

        Args:
            kind: tasks, graphs or experiments.
            name: Name of the file, without `.yaml`.
            key: Key of the configuration that names it, for the message.

        Raises:
            UserError: There is none.
        """
        known = self.names(kind)
        if name not in known:
            place = f"{key}: " if key else ""
            hint = did_you_mean(name, known, noun=kind)
            missing = f"there is no {kind.removesuffix('s')} '{name}' in {self.root / kind} or in the catalogue"
            raise UserError(f"{place}{missing}{hint}")
        return known[name]

    def task(self, name: str, key: str = "", scale: Scale | None = None) -> DistributionSpec:
        """Reads a task file; relative paths in it become absolute.

        Args:
            name: Name of the file, without `.yaml`.
            key: Key of the configuration that names it, for the message.
            scale: Factor that the distribution is wanted for, if not that of its file.

        Raises:
            UserError: The file is missing or wrong, or something that it names is missing, or it is not for this scale.
        """
        return read_task(self.path("tasks", name, key), scale)

    def unresolved_task(self, name: str, key: str, scale: Scale) -> DistributionSpec:
        """Reads a task file as `task` does, and leaves its kernel open."""
        return read_task(self.path("tasks", name, key), scale, resolved=False)

    def protocol(self, name: str, scale: Scale) -> DistributionSpec:
        """Reads a task file that is an evaluation protocol.

        Raises:
            UserError: The file is missing or wrong, or it is no protocol, or not for this scale.
        """
        spec = self.task(name, "--protocol", scale)
        if not spec.cases:
            raise UserError(f"--protocol: '{name}' is of kind {spec.kind}; name a task file of kind protocol")
        return spec

    def graph(self, name: str) -> GraphSpec:
        """Reads a graph file."""
        return validate(read_document(self.path("graphs", name, "graph")), GraphSpec)

    def distributions(
        self, pattern: str, key: str, scale: Scale | None = None, without: str | None = None
    ) -> dict[str, DistributionSpec]:
        """Returns the distributions that a name or pattern stands for; evaluation protocols are none.

        Args:
            pattern: A name, or a pattern such as `blur_*`.
            key: Key or option that gives it, for the message.
            scale: Factor that synthetic distributions are wanted for, if not that of their files.
            without: Name of a distribution that is left out.

        Raises:
            UserError: It stands for nothing, or names a protocol, or a file is wrong or not for this scale.
        """
        known = self.names("tasks")
        matches = [name for name in matching(pattern, known) if name != without]
        found = {name: self.task(name, key, scale) for name in matches}
        if pattern in found and found[pattern].cases:
            raise UserError(f"{key}: '{pattern}' is an evaluation protocol; name a task distribution")
        if not matches and pattern == without:
            raise UserError(f"{key}: '{pattern}' is the target itself; name other distributions to learn from")
        distributions = {name: spec for name, spec in found.items() if not spec.cases}
        if not distributions:
            raise UserError(f"{key}: '{pattern}' is and matches no task distribution{did_you_mean(pattern, known)}")
        return distributions

    def auxiliary(self, graph: GraphSpec, scale: Scale | None = None) -> dict[str, DistributionSpec]:
        """Returns the distributions that a graph's names and patterns stand for, without its target.

        Args:
            graph: The graph.
            scale: Factor that synthetic distributions are wanted for, if not that of their files.

        Raises:
            UserError: A name or pattern stands for nothing, or the scales differ.
        """
        target = self.task(graph.target, "graph.target", scale)
        if target.cases:
            raise UserError(f"graph.target: '{graph.target}' is an evaluation protocol; name a task distribution")
        specs: dict[str, DistributionSpec] = {}
        for pattern in graph.auxiliary:
            specs |= self.distributions(pattern, "graph.auxiliary", scale, without=graph.target)
        for name, spec in specs.items():
            if spec.own_images and target.own_images and spec.own_images.samefile(target.own_images):
                raise UserError(
                    f"graph.auxiliary: '{name}' has the same pairs as the target '{graph.target}', so its test pairs "
                    "could be learned from; leave it out"
                )
            if spec.scale != target.scale:
                raise UserError(
                    f"graph.auxiliary: '{name}' is for scale {spec.scale}, but the target '{graph.target}' is for "
                    f"scale {target.scale}; all distributions of a graph need one scale"
                )
        for edge in graph.edges:
            if edge.source not in specs:
                hint = did_you_mean(edge.source, specs, noun="distributions")
                raise UserError(f"graph.edges: '{edge.source}' is not among the auxiliary distributions{hint}")
        forbidden = [set(matching(pattern, specs)) for pattern in graph.forbidden]
        for pattern, names in zip(graph.forbidden, forbidden, strict=True):
            if not names:
                hint = did_you_mean(pattern, specs, noun="distributions")
                raise UserError(f"graph.forbidden: '{pattern}' is and matches no auxiliary distribution{hint}")
        if set().union(*forbidden) == set(specs):
            raise UserError("graph.forbidden: forbids all auxiliary distributions; leave some to learn from")
        return specs


def read_task(path: Path, scale: Scale | None = None, *, resolved: bool = True) -> DistributionSpec:
    """Reads a task file; relative paths in it start at its project's folder and become absolute.

    Args:
        path: The file.
        scale: Factor that the distribution is wanted for, if not that of its file.
        resolved: Whether kernels that it leaves open are estimated or read.

    Raises:
        UserError: The file is missing or wrong, or something that it names is missing, or it is not for this scale.
    """
    document = read_document(path)
    spec = validate(document, TASK_FILE).rooted(project_root(path))
    if problems := spec.missing():
        places = [(document.locate(at), format_path(at), text) for at, text in problems]
        raise UserError([f"{display_path(path)}:{line}:{col}: {key}: {text}" for (line, col), key, text in places])
    if resolved and spec.unresolved:
        from metarestore.zero_shot.kernel_source import Kernels

        spec = spec.resolved(Kernels(Project(project_root(path)).unresolved_task))
    give_remarks(document, spec.remarks())
    if scale is None or scale == spec.scale:
        return spec
    try:
        return spec.at_scale(scale)
    except PydanticCustomError as error:
        at = (error.context or {}).get("at", ())
        line, column = document.locate(at)
        raise UserError(f"{display_path(path)}:{line}:{column}: {format_path(at)}: {error.message()}") from error


def read_experiment(path: Path, overrides: Sequence[Override] = ()) -> Experiment:
    """Reads an experiment file, puts its graph in place, applies `--set` overrides, and checks arms, search and grid.

    Raises:
        UserError: The file, the graph's file, an override, an arm, the search or the grid is wrong.
    """
    document = read_document(path)
    named = [override for override in overrides if override.path == ("graph",) and isinstance(override.value, str)]
    # What is set inside a graph that the file only names can be checked once the graph is in its place.
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
    """Returns the experiment of each arm, with the arm's patch merged in.

    Raises:
        UserError: The experiment has no arms.
    """
    if not experiment.arms:
        raise UserError("arms: is missing, so there is nothing to compare; name some, or use `metarestore train`")
    return {name: Experiment.model_validate(_patched(experiment, patch)) for name, patch in experiment.arms.items()}


def _patched(experiment: Experiment, patch: Mapping[str, Any]) -> dict[str, Any]:
    return merge(single(experiment), patch)


def _check_arms(document: Document, experiment: Experiment) -> None:
    """Reports what is wrong with any arm, at the arm's place in the file."""
    adapter = TypeAdapter(Experiment)
    lines = []
    for name, patch in experiment.arms.items():
        merged = _patched(experiment, patch)
        try:
            problems = _incomparable(experiment, adapter.validate_python(merged))
        except ValidationError as error:
            problems = problems_of(error, merged, Shape(adapter, merged))
        for problem in problems:
            line, column = document.locate(("arms", name, *problem.at), key=problem.on_key)
            key = format_path(("arms", name, *problem.path))
            lines.append(f"{display_path(document.path)}:{line}:{column}: {key}: {problem.text}")
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


def resolve(experiment: Experiment, root: Path, project: Project | None = None) -> Study:
    """Looks up everything that an experiment names and checks that it fits together.

    Args:
        experiment: The experiment.
        root: The project's folder.
        project: The same as a project, if there is one already.

    Raises:
        UserError: A name stands for nothing, a folder is missing, or a size does not fit the scale.
    """
    project = project or Project(root)
    experiment = _rooted(experiment, root)
    target = project.task(experiment.graph.target, "graph.target", experiment.scale)
    auxiliary = project.auxiliary(experiment.graph, experiment.scale)
    study = Study(experiment, auxiliary, target, _images(experiment, root), root.absolute())
    sizes = {
        "training.patch": experiment.training.patch,
        "adaptation.shot_size": experiment.adaptation.shot_size,
        "evaluation.crop": experiment.evaluation.crop,
    }
    if experiment.adaptation.patch is not None:
        sizes["adaptation.patch"] = experiment.adaptation.patch
    for position, way in enumerate(experiment.adaptation.alternatives):
        if way.patch is not None:
            sizes[f"adaptation.alternatives[{position}].patch"] = way.patch
    problems = [
        f"{key}: {size} is not a multiple of the scale {study.scale}; write {size - size % study.scale}"
        for key, size in sizes.items()
        if size % study.scale
    ]
    problems += _beyond_crops(study)
    if target.own_images is None and "test" not in study.images:
        problems.append(
            f"data.test: is missing, and the target '{experiment.graph.target}' is synthetic; "
            "name a folder of photographs, e.g. data: {train: DIR, test: DIR}"
        )
    pairs = [name for name, spec in study.auxiliary.items() if spec.own_images]
    if experiment.shared_until and pairs:
        problems.append(
            f"learner.warmup_steps: the contrast warms up on the same clean patches for all, but '{pairs[0]}' is made "
            "of real pairs; leave it out of graph.auxiliary, or write warmup_steps: 0"
        )
    if problems:
        raise UserError(problems)
    _check_prior(study)
    return study


def _beyond_crops(study: Study) -> list[str]:
    """Names patches that are larger than the LR side of a test crop, from which zero-shot adaptation cuts them."""
    how, scale = study.experiment.adaptation, study.scale
    if how.method != "zero_shot":
        return []
    most = study.experiment.evaluation.crop // scale // scale * scale
    keys = {"adaptation.patch": how.patch} | {
        f"adaptation.alternatives[{position}].patch": way.patch for position, way in enumerate(how.alternatives)
    }
    return [
        f"{key}: patches are cut from the LR side of a test crop, of which at most {most} pixels can be used; write no "
        f"more, or raise evaluation.crop, got {patch}"
        for key, patch in keys.items()
        if patch is not None and patch > most
    ]


def _check_prior(study: Study) -> None:
    """Finds out before the training whether the prior can be used."""
    graph = study.experiment.graph
    if graph.prior is not None and takes_prior(graph.estimator):
        from metarestore.graphs.prior import earlier_relations

        earlier_relations(graph.prior.graph, measure(estimate_behind(graph.estimator)), study.auxiliary)


def _rooted(experiment: Experiment, root: Path) -> Experiment:
    """Makes the paths of trained networks and of an earlier graph absolute."""
    graph = experiment.graph
    if graph.prior is not None:
        prior = graph.prior.model_copy(update={"graph": followed(full_path(root, graph.prior.graph))})
        experiment = experiment.model_copy(update={"graph": graph.model_copy(update={"prior": prior})})
    return with_network_paths(experiment, lambda key, path: _network(path, root, key))


def _network(given: Path, root: Path, key: str) -> Path:
    path = followed(full_path(root, given))
    if path.exists():
        return path
    known = shipped()
    if str(given) not in known:
        hint = did_you_mean(str(given), known, noun="shipped networks")
        raise UserError(f"{key}: there is no {path}; give a run's folder or its model.safetensors{hint}")
    return followed(known[str(given)])


def _images(experiment: Experiment, root: Path) -> dict[Split, ImageSource]:
    splits: tuple[Split, ...] = ("train", "validation", "test")
    if not isinstance(experiment.data, FolderDataSpec):
        return {split: ImageSource.embedded(split) for split in splits}
    folders = {split: getattr(experiment.data, split) for split in splits}
    named: dict[Split, Path] = {split: followed(full_path(root, folder)) for split, folder in folders.items() if folder}
    for split, folder in named.items():
        twin = next((other for other in named if other != split and named[other] == folder), None)
        if twin:
            raise UserError(
                f"data.{twin}: is the same folder as data.{split}; photographs must not be learned and tested on"
            )
    return {split: ImageSource.folder(folder) for split, folder in named.items()}

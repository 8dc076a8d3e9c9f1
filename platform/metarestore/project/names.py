"""Names to files: a user's project first, then the catalogue that is installed with the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metarestore.config.document import project_root, read_document, validate
from metarestore.config.file_names import yaml_files
from metarestore.config.graph import GraphSpec
from metarestore.config.pattern import matching
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.project.task_files import read_task_file
from metarestore.tasks.spec import DistributionSpec, Scale


def catalogue() -> Path:
    """Returns the folder of the shipped tasks, graphs and experiments: in the wheel, or the repository's own."""
    packaged = Path(__file__).parents[1] / "catalogue"
    return packaged if packaged.is_dir() else Path(__file__).parents[3]


@dataclass(frozen=True)
class Project:
    """A folder with `tasks/`, `graphs/` and `experiments/`; what it lacks comes from the catalogue.

    Folders are listed and task files are read once: many experiments can be resolved with one project.

    Attributes:
        root: The project's folder; relative paths in its files start here.
    """

    root: Path

    @cached_property
    def _listed(self) -> dict[str, dict[str, Path]]:
        return {}

    @cached_property
    def _tasks(self) -> dict[tuple[str, Scale | None], DistributionSpec]:
        return {}

    def names(self, kind: str) -> dict[str, Path]:
        """Returns the files of `kind` (tasks, graphs, experiments) by name; the project's own hide the catalogue's."""
        if kind not in self._listed:
            files = yaml_files(catalogue() / kind) | yaml_files(self.root / kind)
            self._listed[kind] = dict(sorted(files.items()))
        return self._listed[kind]

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
            prefix = f"{key}: " if key else ""
            hint = did_you_mean(name, known, noun=kind)
            missing = f"there is no {kind.removesuffix('s')} '{name}' in {self.root / kind} or in the catalogue"
            raise UserError(f"{prefix}{missing}{hint}")
        return known[name]

    def task(self, name: str, key: str = "", scale: Scale | None = None) -> DistributionSpec:
        """Reads a task file; relative paths in it become absolute.

        Args:
            name: Name of the file, without `.yaml`.
            key: Key of the configuration that names it, for the message.
            scale: Scale at which the distribution is needed; by default that of its file.

        Raises:
            UserError: The file or something that it names is missing, it is invalid, or it is not for this scale.
        """
        if (name, scale) not in self._tasks:
            self._tasks[name, scale] = self.with_kernels(read_task_file(self.path("tasks", name, key), scale))
        return self._tasks[name, scale]

    def with_kernels(self, spec: DistributionSpec) -> DistributionSpec:
        """Resolves the kernels that a distribution leaves open: estimates them, or takes them from other task files.

        Raises:
            UserError: A photograph, a file or a task file that it names cannot be used.
        """
        if not spec.unresolved:
            return spec
        from metarestore.zero_shot.kernel_source import Kernels

        return spec.resolved(Kernels(lambda name, key, scale: read_task_file(self.path("tasks", name, key), scale)))

    def protocol(self, name: str, scale: Scale) -> DistributionSpec:
        """Reads a task file that is an evaluation protocol.

        Raises:
            UserError: The file is missing or invalid, is not a protocol, or is not for this scale.
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
        """Returns the distributions that match a name or pattern; evaluation protocols are left out.

        Args:
            pattern: A name, or a pattern such as `blur_*`.
            key: Key or option that gives it, for the message.
            scale: Scale at which synthetic distributions are needed; by default that of their files.
            without: Name of a distribution that is left out.

        Raises:
            UserError: It matches nothing, or names a protocol, or a file is invalid or not for this scale.
        """
        known = self.names("tasks")
        matches = [name for name in matching(pattern, known) if name != without]
        specs = {name: self.task(name, key, scale) for name in matches}
        if pattern in specs and specs[pattern].cases:
            raise UserError(f"{key}: '{pattern}' is an evaluation protocol; name a task distribution")
        if not matches and pattern == without:
            raise UserError(f"{key}: '{pattern}' is the target itself; name other distributions to learn from")
        distributions = {name: spec for name, spec in specs.items() if not spec.cases}
        if not distributions:
            raise UserError(f"{key}: '{pattern}' is and matches no task distribution{did_you_mean(pattern, known)}")
        return distributions

    def auxiliary(self, graph: GraphSpec, scale: Scale | None = None) -> dict[str, DistributionSpec]:
        """Returns the distributions that match a graph's names and patterns, without its target.

        Args:
            graph: The graph.
            scale: Scale at which synthetic distributions are needed; by default that of their files.

        Raises:
            UserError: A name or pattern matches nothing, or the scales differ.
        """
        target = self.task(graph.target, "graph.target", scale)
        if target.cases:
            raise UserError(f"graph.target: '{graph.target}' is an evaluation protocol; name a task distribution")
        specs: dict[str, DistributionSpec] = {}
        for pattern in graph.auxiliary:
            specs |= self.distributions(pattern, "graph.auxiliary", scale, without=graph.target)
        _require_usable(graph, target, specs)
        _require_edges(graph, specs)
        return specs


def read_task(path: Path, scale: Scale | None = None) -> DistributionSpec:
    """Reads a task file and resolves the kernels that it leaves open; relative paths start at its project's folder.

    Args:
        path: The file.
        scale: Scale at which the distribution is needed; by default that of its file.

    Raises:
        UserError: The file or something that it names is missing, it is invalid, or it is not for this scale.
    """
    return Project(project_root(path)).with_kernels(read_task_file(path, scale))


def _require_usable(graph: GraphSpec, target: DistributionSpec, specs: Mapping[str, DistributionSpec]) -> None:
    """Checks that the target can be learned from the auxiliary distributions."""
    for name, spec in specs.items():
        if spec.own_images and target.own_images and spec.own_images.samefile(target.own_images):
            raise UserError(
                f"graph.auxiliary: '{name}' has the same images as the target '{graph.target}', so its test images "
                "could be learned from; leave it out"
            )
        if spec.scale != target.scale:
            raise UserError(
                f"graph.auxiliary: '{name}' is for scale {spec.scale}, but the target '{graph.target}' is for "
                f"scale {target.scale}; all distributions of a graph need one scale"
            )


def _require_edges(graph: GraphSpec, specs: Mapping[str, DistributionSpec]) -> None:
    """Checks that edges and forbidden patterns match auxiliary distributions, and leave some to learn from."""
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

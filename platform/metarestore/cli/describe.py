"""The command `metarestore describe`: degradation descriptors as a file, a table and a figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol, cast

import typer

from metarestore.cli.options import Overwrite, Seed
from metarestore.console import bars, console, say
from metarestore.errors import UserError
from metarestore.files import require_output

if TYPE_CHECKING:
    from metarestore.descriptors.describe import Description, Progress
    from metarestore.models.network import Network
    from metarestore.tasks.spec import DistributionSpec, Scale


class _Describe(Protocol):
    def __call__(self, *, progress: Progress) -> Description: ...


class _Job(NamedTuple):
    """A group of photographs or draws to be described, with their number."""

    name: str
    items: int
    describe: _Describe


class _Options(NamedTuple):
    """How the tasks of a distribution are drawn, and which part of an image is described."""

    draws: int
    patches: int
    patch: int
    data: str
    seed: int
    crop: int | None


def describe(
    model: Annotated[
        Path, typer.Option(help="A KDSR network: a run's folder or weights, or a shipped network's name.")
    ],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    images: Annotated[list[Path] | None, typer.Option(help="Folder of LR photographs; repeatable.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Name of a task, or a pattern (blur_*); repeatable.")] = None,
    draws: Annotated[int, typer.Option(min=1, help="Number of draws of each task distribution.")] = 16,
    patches: Annotated[int, typer.Option(min=1, help="Patches of each draw.")] = 8,
    patch: Annotated[int, typer.Option(min=1, help="Side of the HR patches, in pixels.")] = 128,
    data: Annotated[
        str, typer.Option(help="Folder of clean photographs; by default the embedded training photographs.")
    ] = "embedded",
    seed: Seed = 0,
    crop: Annotated[
        int | None, typer.Option("--estimate-on", min=16, help="Describes only the middle N x N LR pixels of an image.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="PNG file for a map of all descriptors.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Describes the degradation of photographs and synthetic tasks by the descriptors of a KDSR network."""
    from metarestore.models.checkpoint import load_model, network_file
    from metarestore.tasks.photographs import list_photographs

    if not images and not task:
        raise UserError("describe: say what to describe, with --images DIR or --task NAME")
    require_output(out, "--out", overwrite=overwrite)
    if figure is not None:
        require_output(figure, "--figure", overwrite=overwrite, endings=(".png",))
    network_file(model)
    for folder in images or ():
        list_photographs(folder)

    from metarestore.descriptors.describe import require_describer
    from metarestore.descriptors.file import DescribedBy, Descriptors, write_descriptors
    from metarestore.reports.networks.descriptors import LEAST_ITEMS, descriptor_map, descriptor_table
    from metarestore.reports.pictures import save_png

    network = require_describer(load_model(model), sees_hr=not images)
    options = _Options(draws, patches, patch, data, seed, crop)
    jobs = _jobs(network, images or [], task or [], options)
    if figure is not None and sum(job.items for job in jobs) < LEAST_ITEMS:
        raise UserError(f"--figure: a map needs at least {LEAST_ITEMS} photographs or draws; describe more of them")
    described = [_described(job) for job in jobs]
    write_descriptors(out, Descriptors.of(DescribedBy.of(model, network), seed, described))
    console.print(descriptor_table(described))
    if figure is not None:
        save_png(descriptor_map(described), figure)
    for path in (out, *([figure] if figure else ())):
        say(path)


def _jobs(network: Network, folders: Sequence[Path], patterns: Sequence[str], options: _Options) -> list[_Job]:
    """Opens everything that is to be described, so that every error is found before the work starts."""
    from metarestore.descriptors.describe import describe_images
    from metarestore.tasks.photographs import list_photographs

    specs = _specs(patterns, network.scale)
    photographs = [list_photographs(folder) for folder in folders]
    jobs = []
    for name, files in zip(_names(folders, list(specs)), photographs, strict=True):
        describe = partial(describe_images, network, files, name=name, crop=options.crop)
        jobs.append(_Job(name, len(files), describe))
    _require_decodable([path for files in photographs for path in files.values()])
    return [*jobs, *(_task_job(network, name, spec, options) for name, spec in specs.items())]


def _names(folders: Sequence[Path], tasks: Sequence[str]) -> list[str]:
    """Names folders by their last part, or by the whole path if several have the same last part."""
    from metarestore.config.document import followed

    short = [followed(folder).name for folder in folders]
    uses = Counter([*short, *tasks])
    names = [name if name and uses[name] == 1 else str(folder) for name, folder in zip(short, folders, strict=True)]
    twice = next((name for name, count in Counter([*names, *tasks]).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"--images: two groups are called '{twice}'; leave one out, or write its path otherwise")
    return names


def _require_decodable(files: Sequence[Path]) -> None:
    from metarestore.tasks.photographs import decoding_problems

    if problems := decoding_problems(files):
        raise UserError(problems)


def _specs(patterns: Sequence[str], scale: int) -> dict[str, DistributionSpec]:
    """Reads the tasks that match names, patterns and YAML files, at the network's scale."""
    from metarestore.config.file_names import is_yaml
    from metarestore.project import Project, read_task

    wanted = cast("Scale", scale)
    specs: dict[str, DistributionSpec] = {}
    for pattern in patterns:
        if is_yaml(pattern):
            matches = {Path(pattern).stem: read_task(Path(pattern), wanted)}
        else:
            matches = Project(Path.cwd()).distributions(pattern, "--task", wanted)
        if other := next((name for name in matches if specs.get(name, matches[name]) != matches[name]), None):
            raise UserError(f"--task: two tasks are called '{other}'; leave one out, or rename its file")
        specs |= matches
    return specs


def _task_job(network: Network, name: str, spec: DistributionSpec, options: _Options) -> _Job:
    from metarestore.descriptors.describe import describe_images, describe_task, open_tasks, require_describer
    from metarestore.tasks.images import ImageSource, ImageStore
    from metarestore.workspace.process import prepare_process

    if files := spec.lr_files():
        require_describer(network, sees_hr=False)
        _require_decodable(list(files.values()))
        describe = partial(describe_images, network, files, name=name, kind="task", crop=options.crop)
        return _Job(name, len(files), describe)
    source = ImageSource.embedded("train") if options.data == "embedded" else ImageSource.folder(options.data)
    tasks = open_tasks(name, spec, ImageStore.open(source), options.patches, options.patch)

    def drawn(*, progress: Progress) -> Description:
        prepare_process()  # on one thread small images are degraded several times faster than on all
        return describe_task(network, tasks, options.draws, seed=options.seed, crop=options.crop, progress=progress)

    return _Job(name, options.draws, drawn)


def _described(job: _Job) -> Description:
    with _bar(job.name, job.items) as progress:
        return job.describe(progress=progress)


@contextmanager
def _bar(name: str, total: int) -> Iterator[Progress]:
    """Draws a bar while items are described; none on a pipe or in a log file."""
    with bars() as shown:
        line = shown.add_task(name, total=total)
        yield lambda _, done, total: shown.update(line, completed=done, total=total)

"""The commands `metarestore tasks ...`: list, preview, sample and fit task distributions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarestore.cli.options import Overwrite, Scale, Seed
from metarestore.console import bars, console, say, tracked
from metarestore.errors import UserError
from metarestore.files import require_output

if TYPE_CHECKING:
    from rich.table import Table

    from metarestore.sampling.record import Header
    from metarestore.sampling.sample import Sample
    from metarestore.tasks.spec import DistributionSpec

tasks_app = typer.Typer(no_args_is_help=True, help="List, preview, sample and fit task distributions.")

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of tasks, or their YAML files.")]


@tasks_app.command("list")
def tasks_list() -> None:
    """Lists the task distributions of the project and the catalogue."""
    from metarestore.project import Project
    from metarestore.reports.tasks.table import task_table

    console.print(task_table(Project(Path.cwd())))


@tasks_app.command("preview")
def tasks_preview(
    names: Names,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("sheet.png"),
    seed: Seed = 0,
    count: Annotated[int, typer.Option(min=1, max=64, help="Number of draws, or of steps along --sweep.")] = 8,
    scale: Scale = None,
    sweep: Annotated[str | None, typer.Option(help="Varies one parameter only, e.g. gaussian_blur.sigma.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draws a contact sheet of HR, enlarged LR and drawn parameters; or a strip along one parameter."""
    require_output(out, "--out", overwrite=overwrite, endings=(".png",), create=True)
    specs = _specs(names, scale)

    from metarestore.reports.tasks.contact_sheet import Section, contact_sheet, save_png
    from metarestore.reports.tasks.parameter_strip import sweep_strips, swept
    from metarestore.reports.tasks.preview import preview_rows

    if sweep is not None:
        figure = sweep_strips([swept(name, spec, sweep, seed=seed, steps=count) for name, spec in specs])
    else:
        figure = contact_sheet(
            [Section(f"{name}, seed {seed}", preview_rows(name, spec, seed=seed, count=count)) for name, spec in specs]
        )
    save_png(figure, out)
    say(out)


@tasks_app.command("sample")
def tasks_sample(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="New folder for lr/, hr/ and params.jsonl.")],
    name: Annotated[str | None, typer.Argument(help="Name of a task, or its YAML file.")] = None,
    seed: Seed = 0,
    count: Annotated[int, typer.Option(min=1, help="Number of pairs.")] = 8,
    start: Annotated[int, typer.Option(min=0, help="Number of the first pair.")] = 0,
    patch: Annotated[int, typer.Option(min=1, help="Side of the HR images, in pixels.")] = 192,
    scale: Scale = None,
    data: Annotated[Path | None, typer.Option(help="Folder of photographs; by default the embedded ones.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the embedded photographs: train, validation or test (the default).")
    ] = None,
    replay: Annotated[Path | None, typer.Option(help="Reproduces the pairs of this params.jsonl.")] = None,
) -> None:
    """Writes LR and HR images with the drawn parameters, or reproduces them from the parameters."""
    given = {key for key in context.params if _is_given(context, key)}
    if replay is not None:
        _refuse(given - {"out", "data", "replay"}, "--replay", "whose file specifies it")
        _replay(replay, data, out)
    elif name is None:
        raise UserError("tasks sample: name a task, or a file of parameters with --replay FILE")
    else:
        _refuse({"split"} if data and split else set(), "--data", "as a folder has no splits")
        _sample(_header(name, scale, seed, patch, data, split), start, count, out)


def _is_given(context: typer.Context, key: str) -> bool:
    source = context.get_parameter_source(key)
    return source is not None and source.name == "COMMANDLINE"  # by name: some versions of typer have a click inside


def _refuse(given: set[str], option: str, reason: str) -> None:
    if given:
        words = ", ".join("NAME" if key == "name" else f"--{key}" for key in sorted(given))
        raise UserError(f"{words}: does not go with {option}, {reason}; leave it out")


def _header(name: str, scale: int | None, seed: int, patch: int, data: Path | None, split: str | None) -> Header:
    [(stem, spec)] = _specs([name], scale)

    from metarestore.sampling.sample import new_header
    from metarestore.tasks.images import ImageSource

    if data is not None:
        return new_header(stem, spec, seed=seed, patch=patch, data=ImageSource.folder(data))
    if split is not None and spec.own_images:
        raise UserError(f"--split: {stem} has images of its own, which have no splits; leave it out")
    return new_header(stem, spec, seed=seed, patch=patch, data=ImageSource.embedded(split) if split else None)


def _sample(header: Header, start: int, count: int, out: Path) -> None:
    from metarestore.sampling.sample import Sampler, require_empty

    require_empty(out)
    _write(out, header, Sampler(header).samples(start, count), count)
    say(f"{out}: {count} pairs of {header.task}, seed {header.seed}")


def _replay(path: Path, data: Path | None, out: Path) -> None:
    from metarestore.sampling.replay import Replay
    from metarestore.sampling.sample import require_empty
    from metarestore.workspace.process import prepare_process

    prepare_process()
    require_empty(out)
    replayed = Replay(path, data)
    _write(out, replayed.header, replayed.samples(), len(replayed.records))
    if problems := replayed.problems():
        raise UserError(problems)
    say(f"{out}: {len(replayed.records)} pairs, all identical")


def _write(out: Path, header: Header, samples: Iterable[Sample], total: int) -> None:
    from metarestore.sampling.sample import write_samples

    try:
        write_samples(out, header, tracked(samples, header.task, total))
    except KeyboardInterrupt as stop:
        done = len(list((out / "hr").glob("*.png")))
        say(f"Stopped. {out} holds {done} of {total} pairs, which are complete.")
        raise SystemExit(130) from stop


@tasks_app.command("fit")
def tasks_fit(
    pairs: Annotated[
        Path, typer.Option(help="Folder of aligned pairs, e.g. with lr/ and hr/; or a task file of kind pairs.")
    ],
    out: Annotated[Path, typer.Option(help="Task file to write; its kernels go into a folder of its name beside it.")],
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of pairs to use, the first by name, like the shots of a study; by default 5, and never all.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="PNG file of real and re-synthesised LR; by default fit.png beside the kernels."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fits a task distribution to a camera: blur kernels, noise, colour and JPEG from a few real pairs."""
    from metarestore.config.adaptation import AdaptationSpec
    from metarestore.pair_source import named_pairs

    drawn = picture or out.with_suffix("") / "fit.png"
    _require_fit(out, drawn, overwrite=overwrite)
    source = named_pairs(pairs)
    shots, available = source.shots(AdaptationSpec().shots)

    from metarestore.fitting import fit_camera, write_task
    from metarestore.reports.pictures import save_png
    from metarestore.reports.tasks.fit import fit_figure
    from metarestore.workspace.process import prepare_process

    used = count or shots
    prepare_process()
    with bars() as bar:
        line = bar.add_task("fitting", total=None)
        fit = fit_camera(
            source.folder,
            count=used,
            source=pairs.as_posix(),
            progress=lambda name, done, total: bar.update(line, completed=done, total=total),
        )
    console.print(_fit_table(fit.rows()))
    if used < available:
        say(
            f"Fitted to the first {used} of {available} pairs by name, the others are left to test on; "
            f"--count {available} uses all."
        )
    files = write_task(fit, out)
    save_png(fit_figure(fit, source.folder), drawn)
    for file in (*files, drawn):
        say(file)


def _require_fit(out: Path, picture: Path, *, overwrite: bool) -> None:
    """Checks before the fit that its files can be written and replace no others."""
    from metarestore.config.file_names import YAML_ENDINGS

    require_output(out, "--out", overwrite=overwrite, endings=YAML_ENDINGS, create=True)
    for path in (out.with_suffix("") / "kernels.npy", out.with_suffix("") / "fit.json"):
        require_output(path, "--out", overwrite=overwrite, create=True)
    require_output(picture, "--picture", overwrite=overwrite, endings=(".png",), create=True)


def _fit_table(rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    return table


@tasks_app.command("gallery")
def tasks_gallery(
    out: Annotated[Path, typer.Option(help="Folder for index.html and its pictures.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Names of tasks; by default all.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Writes a web page that shows every task distribution and every operation."""
    from metarestore.project import Project

    files = [_file(name) for name in names] if names else list(Project(Path.cwd()).names("tasks").values())

    from metarestore.reports.tasks.gallery import write_gallery
    from metarestore.workspace.process import prepare_process

    require_output(out / "index.html", "--out", overwrite=overwrite, create=True)
    prepare_process()
    page = write_gallery(tracked(files, "tasks", len(files)), out)
    say(page)


@tasks_app.command("operations")
def tasks_operations() -> None:
    """Prints every operation and structure of pipelines with its keys, as Markdown."""
    from metarestore.reports.tasks.operation_reference import operation_reference

    typer.echo(operation_reference())


def _file(name: str) -> Path:
    from metarestore.config.file_names import is_yaml
    from metarestore.project import Project

    return Path(name) if is_yaml(name) else Project(Path.cwd()).path("tasks", name)


def _specs(names: Sequence[str], scale: int | None) -> list[tuple[str, DistributionSpec]]:
    """Reads tasks, and prepares to draw them on one thread: small images are degraded several times faster on one."""
    from metarestore.project import read_task

    files = [_file(name) for name in names]
    specs = [(file.stem, read_task(file, scale)) for file in files]  # type: ignore[arg-type]  # typer ensures 2, 3 or 4

    from metarestore.workspace.process import prepare_process

    prepare_process()
    return specs

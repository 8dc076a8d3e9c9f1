"""The command `adapt`: a network for one's own camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarestore.cli.runs import given_command, resumable
from metarestore.console import bars, command_line, console, say
from metarestore.errors import UserError

if TYPE_CHECKING:
    from metarestore.camera import CameraPairs, Outcome
    from metarestore.reports.study.progress import TrainingDisplay

_SAMPLES = 2
ALIGNED = "aligned"
"""Folder of the aligned pairs, in that of the results."""


class _Messages:
    """Shows what happens on the console."""

    def say(self, text: str) -> None:
        """Shows a line."""
        say(text)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[], None]]:
        """Shows a bar, and yields what advances it."""
        with bars() as bar:
            line = bar.add_task(description, total=total)
            yield lambda: bar.advance(line)

    @contextmanager
    def training(self) -> Iterator[TrainingDisplay]:
        """Shows a training."""
        from metarestore.reports.study.progress import TrainingDisplay

        with TrainingDisplay(console) as display:
            yield display


def adapt(
    pairs: Annotated[Path, typer.Option(help="Folder of aligned LR/HR pairs of the camera, or a task file.")],
    out: Annotated[Path, typer.Option(help="Folder for the network, the project it was made in, and the results.")],
    shots: Annotated[int, typer.Option(min=2, help="Pairs to learn from, the first by name; the others test.")] = 5,
    model: Annotated[
        Path | None,
        typer.Option(help="Network to start from: a run, a file, or a shipped network; by default a shipped one."),
    ] = None,
    scale: Annotated[int | None, typer.Option(min=2, max=4, help="HR side over LR side, if it is not clear.")] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Aligns HR to LR first; results then refer to the aligned pairs.")
    ] = False,
    minutes: Annotated[float, typer.Option(min=0.1, help="Time limit, approximately.")] = 10.0,
    data: Annotated[
        Path | None,
        typer.Option(help="Clean photographs, to train on with the fitted degradation; by default embedded ones."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continues in --out.")] = False,
) -> None:
    """Adapts a network to one's own camera from a few pairs, and says whether it is worth using.

    It checks the pairs, fits the degradation to the shots, adapts in several ways, keeps the one that is best on shots
    that it did not see, and measures it on all other pairs.
    """
    from metarestore.camera import Request, adapt_to_camera, open_pairs
    from metarestore.workspace.process import prepare_process

    _require_folder(out, resume=resume)
    prepare_process()
    left_out = _aligned(pairs, out, scale) if align else ()
    found = open_pairs(out / ALIGNED if align else pairs, shots, scale)
    for line in (*left_out, *found.left_out):
        say(f"left out: {line}", style="yellow")
    say(_counts(found))
    request = Request(pairs, shots, model, scale, minutes, data, out, seed)
    with resumable(out):
        outcome = adapt_to_camera(request, found, _Messages(), given_command())
    _report(outcome, found, out)


def _aligned(pairs: Path, out: Path, scale: int | None) -> Sequence[str]:
    """Aligns the pairs into the folder of the results, unless they are there; returns why some were left out."""
    if (out / ALIGNED).is_dir():
        return ()
    from metarestore.pair_source import named_pairs
    from metarestore.registration.folder import align_folder

    files = named_pairs(pairs, scale).folder.files()
    with bars() as bar:
        line = bar.add_task("aligning", total=len(files))
        return align_folder(files, out / ALIGNED, lambda name, done, total: bar.update(line, completed=done)).problems


def _require_folder(out: Path, *, resume: bool) -> None:
    """Makes sure that results of another run are not mixed with these."""
    if resume and not (out / "plan.json").is_file():
        raise UserError(f"--resume: nothing to continue in {out}; leave --resume out to start")
    if not resume and out.exists() and any(out.iterdir()):
        raise UserError(f"--out: {out} is not empty; give a new folder, or continue with --resume")


def _counts(pairs: CameraPairs) -> str:
    few = "; too few for a reliable test, so the shots themselves say more" if pairs.tested < 3 else ""
    return f"{len(pairs.files)} pairs at x{pairs.scale}: {pairs.shots} to learn from, {pairs.tested} to test on{few}"


def _report(outcome: Outcome, pairs: CameraPairs, out: Path) -> None:
    """Prints the verdict first, then the tables, and what to do next."""
    from metarestore.camera.report import left_out_table, write_samples
    from metarestore.reports.study.table import result_table

    say(outcome.verdict, style="bold")
    console.print(left_out_table(outcome))
    console.print(result_table(outcome.study))
    for sample in write_samples(outcome, pairs.files[pairs.shots :][:_SAMPLES], out / "samples"):
        say(sample)
    say(f"Restore:  {command_line('metarestore', 'restore', 'PHOTO', '--model', out, '--out', 'big.png')}")
    say(f"Go on:    {command_line('metarestore', 'compare', out / 'experiments' / 'ways.yaml')}")

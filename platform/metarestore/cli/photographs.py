"""What the commands on photographs share: listing inputs, checking outputs, and running one job for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarestore.console import bars, say
from metarestore.errors import UserError
from metarestore.notices import notice

if TYPE_CHECKING:
    from metarestore.engines.engine import LoneJob, Receive


def listed_photographs(paths: Sequence[Path]) -> dict[str, Path]:
    """Returns photographs and those of folders, by file name without suffix.

    Raises:
        UserError: A file is missing, a folder contains no photographs, or two photographs have the same name.
    """
    from metarestore.tasks.photographs import list_photographs

    files: dict[str, Path] = {}
    problems = []
    for path in paths:
        if not path.exists():
            problems.append(f"{path}: there is no such file or folder; check the path")
            continue
        for name, file in (list_photographs(path) if path.is_dir() else {path.stem: path}).items():
            if name in files and not files[name].samefile(file):
                problems.append(
                    f"{file}: would be written under the same name as {files[name]}; process them separately"
                )
            files.setdefault(name, file.absolute())
    if problems:
        raise UserError(problems)
    return files


def require_outputs(out: Path, files: Mapping[str, Path], endings: Sequence[str], *, overwrite: bool) -> None:
    """Checks that all outputs can be written, and that the output folder contains none of the photographs.

    Raises:
        UserError: An output cannot be written; the first problem is reported.
    """
    from metarestore.files import require_output

    if out.suffix.lower() == ".png" or out.is_file():
        raise UserError(
            f"--out: {out} is a file or has a file's name; give a folder, because each photograph has several outputs"
        )
    require_other_folder(out, files)
    for name in files:
        for ending in endings:
            require_output(out / f"{name}{ending}", "--out", overwrite=overwrite, create=True)


def require_other_folder(out: Path, files: Mapping[str, Path]) -> None:
    """Checks that a folder contains none of the photographs.

    Raises:
        UserError: It does.
    """
    for path in files.values():
        if out.exists() and path.parent.samefile(out):
            raise UserError(
                f"--out: {out} is the folder of {path.name}; choose another, so that inputs and outputs are separate"
            )


def warn_of_colour(path: Path, shift: float, advice: str = "") -> None:
    """Reports a restored photograph whose mean colour differs too much from that of bicubic upscaling.

    Args:
        path: The photograph.
        shift: Largest difference of a channel's mean, in grey levels of 0..255.
        advice: What to do about it.
    """
    from metarestore.restoration.colour import COLOUR_BOUND

    if shift > COLOUR_BOUND:
        notice(
            f"{path}: the mean of a channel differs by {shift:.2f} grey levels from bicubic upscaling, more than "
            f"{COLOUR_BOUND:g}{advice}"
        )


def run_jobs(
    jobs: Mapping[str, LoneJob],
    workers: int | None,
    label: str,
    write: Callable[[str, Any], str],
    *,
    all_threads: bool = False,
) -> None:
    """Runs one job for each photograph and passes each result on as soon as it is available.

    Args:
        jobs: The jobs, by name.
        workers: Number of jobs to run at once; by default one per core, or 1 if `all_threads`.
        label: Label of the progress bar.
        write: Handles the result of a job, given its name, and returns a line to print.
        all_threads: Whether a single worker uses all cores; the last bits of its results then depend on their number.

    Raises:
        UserError: Some photographs failed or could not be written; the others are written.
    """
    from metarestore.restoration.outcome import Failed

    names, problems = list(jobs), list[str]()
    with bars() as progress:
        bar = progress.add_task(label, total=len(jobs))

        def receive(position: int, result: Any) -> None:
            name = names[position]
            if isinstance(result, Failed):
                problems.extend(result.problems)
            else:
                try:
                    say(write(name, result))
                except UserError as error:
                    problems.extend(error.problems)
            progress.advance(bar)

        if all_threads and workers in (None, 1):
            _run_here(list(jobs.values()), receive)
        else:
            _run_on_engine(list(jobs.values()), workers, receive)
    if problems:
        raise UserError(sorted(problems))


def _run_here(jobs: Sequence[LoneJob], receive: Receive) -> None:
    import torch

    for position, job in enumerate(jobs):
        receive(position, job.run(torch.device("cpu")))


def _run_on_engine(jobs: Sequence[LoneJob], workers: int | None, receive: Receive) -> None:
    from metarestore.config.engine import LocalEngineSpec, RayEngineSpec
    from metarestore.engines.build import build_engine

    spec: LocalEngineSpec | RayEngineSpec = LocalEngineSpec(kind="local")
    if len(jobs) > 1 and workers != 1:
        spec = RayEngineSpec(kind="ray", workers=min(workers, len(jobs)) if workers else "auto")
    with build_engine(spec) as engine:
        engine.each(jobs, receive)

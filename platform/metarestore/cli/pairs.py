"""The commands `metarestore pairs ...`: check and align the real pairs of a camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from metarestore.cli.options import Json, Overwrite
from metarestore.console import bars, console, say
from metarestore.errors import UserError
from metarestore.files import require_output

if TYPE_CHECKING:
    from metarestore.registration.check import PairCheck
    from metarestore.tasks.pair_files import PairFiles

pairs_app = typer.Typer(no_args_is_help=True, help="Check and align the real pairs of a camera.")

Pairs = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of pairs, e.g. with lr/ and hr/; or a task file of kind pairs.")
]
PairScale = Annotated[int | None, typer.Option(min=2, max=4, help="HR side over LR side, if all must have one scale.")]


@pairs_app.command("check")
def pairs_check(
    folder: Pairs,
    scale: PairScale = None,
    json_file: Json = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draws LR, HR and their difference into this PNG file.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Checks names, sizes, alignment, exposure and sharpness of pairs, and finds duplicates."""
    from metarestore.pair_source import named_pairs

    if json_file is not None:
        require_output(json_file, "--json", overwrite=overwrite)
    if sheet is not None:
        require_output(sheet, "--sheet", overwrite=overwrite, endings=(".png",), create=True)
    source = named_pairs(folder, scale).folder
    source.matched()  # a missing folder is reported before libraries are loaded, which takes seconds

    from metarestore.evaluation.results import write_json
    from metarestore.registration.check import check_folder
    from metarestore.reports.pairs.sheet import pair_sheet
    from metarestore.reports.pairs.table import check_table
    from metarestore.reports.pictures import save_png
    from metarestore.workspace.process import prepare_process

    prepare_process()
    with bars() as bar:
        line = bar.add_task("checking", total=None)
        checks = check_folder(source, lambda name, done, total: bar.update(line, completed=done, total=total))
    console.print(check_table(checks))
    if json_file is not None:
        write_json(json_file, {"pairs": [check.to_json() for check in checks]})
    if sheet is not None:
        save_png(pair_sheet(source.matched()), sheet)
        say(sheet)
    _conclude(folder, checks)


def _conclude(folder: Path, checks: Sequence[PairCheck]) -> None:
    """Prints a summary.

    Raises:
        UserError: Some pairs cannot be used.
    """
    wrong = [check for check in checks if check.problems]
    remarked = sum(bool(check.remarks) for check in checks if not check.problems)
    say(f"{len(checks) - len(wrong)} of {len(checks)} pairs can be used, {remarked} of them with a remark.")
    if wrong:
        named = ", ".join(check.name for check in wrong[:10]) + (", ..." if wrong[10:] else "")
        raise UserError(
            f"{folder}: {len(wrong)} of {len(checks)} pairs cannot be used ({named}); see the column 'problem'"
        )


@pairs_app.command("align")
def pairs_align(
    folder: Pairs,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for lr/, hr/ and mask/.")],
    scale: PairScale = None,
    overwrite: Overwrite = False,
) -> None:
    """Aligns HR to LR within fractions of a pixel, matches its exposure, and masks moved objects."""
    from metarestore.pair_source import named_pairs

    source = named_pairs(folder, scale).folder
    files = source.files()
    _require_apart(out, files)
    for each in files:
        for side in ("lr", "hr", "mask"):
            require_output(out / side / f"{each.name}.png", "--out", overwrite=overwrite, create=True)

    from metarestore.registration.folder import align_folder
    from metarestore.workspace.process import prepare_process

    prepare_process()
    with bars() as bar:
        line = bar.add_task("aligning", total=len(files))
        result = align_folder(files, out, lambda name, done, total: bar.update(line, completed=done))
    if result.after:
        say(
            f"{out}: {len(result.after)} of {len(files)} pairs aligned; median residual "
            f"{_median(result.before)} -> {_median(result.after)} LR pixels, "
            f"{sum(result.masked) / len(result.masked):.1%} masked"
        )
    if result.problems:
        raise UserError(result.problems)


def _median(values: Sequence[float]) -> str:
    """Returns the median of the numbers among values as text."""
    known = [value for value in values if not math.isnan(value)]
    return f"{median(known):.2f}" if known else "unknown"


def _require_apart(out: Path, files: Sequence[PairFiles]) -> None:
    """Checks that no pair would be written over its source, or into its folders."""
    sources = {each.parent.resolve() for pair in files for each in (pair.lr, pair.hr)}
    inside = {folder.parent for folder in sources if folder.name.lower() in ("lr", "hr")} | sources
    targets = {out.resolve(), *((out / side).resolve() for side in ("lr", "hr", "mask"))}
    if targets & (inside | sources):
        raise UserError(f"--out: {out} holds the pairs themselves, which must not be replaced; choose another folder")

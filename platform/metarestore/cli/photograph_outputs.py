"""The files that `metarestore restore` writes: their names and formats, checked before the work starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metarestore.cli.photographs import require_other_folder
from metarestore.errors import UserError
from metarestore.files import require_new, require_other, require_writable

if TYPE_CHECKING:
    from metarestore.restoration.formats import Format, FormatName


@dataclass(frozen=True)
class Output:
    """The files of one restored photograph.

    Attributes:
        file: The restored photograph.
        kind: Its format.
        sheet: The sheet that compares it with bicubic upscaling, if asked for.
    """

    file: Path
    kind: Format
    sheet: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return (self.file,) if self.sheet is None else (self.file, self.sheet)


def planned_outputs(
    files: Mapping[str, Path],
    out: Path,
    name: FormatName | None,
    quality: int | None,
    *,
    named: bool,
    compare: bool,
    overwrite: bool,
    resume: bool,
) -> dict[str, Output]:
    """Returns the outputs of the photographs that are to be restored.

    Args:
        files: The photographs, by the name of their outputs.
        out: The file or folder of --out.
        name: Name of the format, if given.
        quality: Quality of JPEG and WebP, if given.
        named: Whether there is a single photograph, so that `out` may be a file.
        compare: Whether sheets are drawn.
        overwrite: Whether existing files may be replaced.
        resume: Whether photographs whose files exist are left out.

    Raises:
        UserError: A file cannot be written or may not be replaced, or an option does not fit.
    """
    one_file = _one_file(out, named=named)
    if one_file:
        outputs = {each: _output(out, _kind_of_file(out, name), compare=compare) for each in files}
        for path in files.values():
            require_other(out, "--out", {"the photograph": path})
    else:
        require_other_folder(out, files)
        kind = _kind(name or "png")
        outputs = {each: _output(out / f"{each}{kind.endings[0]}", kind, compare=compare) for each in files}
    if quality is not None and (lossless := [one.file for one in outputs.values() if one.kind.deep]):
        raise UserError(f"--quality: goes with JPEG and WebP, and {lossless[0]} is lossless; leave it out")
    for output in outputs.values():
        for file in output.files:
            require_writable(file, "--out", create=not one_file)
    if resume:
        return {each: one for each, one in outputs.items() if not all(file.exists() for file in one.files)}
    _require_new(outputs, overwrite=overwrite)
    return outputs


def _one_file(out: Path, *, named: bool) -> bool:
    """Returns whether --out is a file, by its extension."""
    from metarestore.restoration.formats import ENDINGS, format_of

    if out.is_dir() or not (out.suffix or out.exists()):
        return False
    if not named and (out.exists() or format_of(out) is not None):
        raise UserError(f"--out: {out} is a file or has a file's name; give a folder for several photographs")
    if named and format_of(out) is None:
        raise UserError(f"--out: {out} must end in {', '.join(ENDINGS)}, or be an existing folder; choose another name")
    return named


def _kind(name: FormatName) -> Format:
    from metarestore.restoration.formats import FORMATS

    return FORMATS[name]


def _kind_of_file(out: Path, name: FormatName | None) -> Format:
    from metarestore.restoration.formats import format_of

    kind = format_of(out)
    if kind is None or name not in (None, kind.name):
        raise UserError(f"--format: is {name}, but {out} ends in {out.suffix}; leave --format out")
    return kind


def _output(file: Path, kind: Format, *, compare: bool) -> Output:
    return Output(file, kind, file.with_name(f"{file.stem}.compare.png") if compare else None)


def _require_new(outputs: Mapping[str, Output], *, overwrite: bool) -> None:
    existing = [file for one in outputs.values() for file in one.files if file.exists() or file.is_symlink()]
    if len(outputs) > 1 and existing and not overwrite:
        raise UserError(
            f"--out: {existing[0]} exists already; add --resume to keep finished files and restore the other "
            "photographs, or --overwrite to replace them"
        )
    for file in existing:
        require_new(file, "--out", overwrite=overwrite)

"""Atomic writing of files, and checks of output paths before the work starts."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from metarestore.errors import UserError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file atomically: after a crash, and for concurrent readers, it has either the old or the new content.

    Args:
        path: The file; missing folders are created.
        content: Bytes, or text, which is encoded as UTF-8.

    Raises:
        UserError: The folder is not writable, or the disk is full; an existing file is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that replaces `path` once it is complete and on disk.

    Raises:
        OSError: It cannot be written; `path` is unchanged.
    """
    # The name is unique, because several processes may write the same file at once, and has of the file's own only
    # the ending, since that may already have as many bytes as the file system allows.
    part = path.with_name(f".{uuid.uuid4().hex}{path.suffix[:16]}.part")
    try:
        with part.open("x+b") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> UserError:
    """Returns the error for a file that cannot be written."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    remedy = "make room, then repeat the command" if full else "choose another folder"
    return UserError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


def require_writable(path: Path, option: str, *, endings: tuple[str, ...] = (), create: bool = False) -> None:
    """Checks before the work starts that a file can be written.

    Args:
        path: The file.
        option: The option that sets the path, for the message.
        endings: Allowed extensions, e.g. `.png`; any if empty.
        create: Whether missing folders will be created.

    Raises:
        UserError: It has another extension, it is a folder, or its folder is missing or not writable.
    """
    if endings and path.suffix.lower() not in endings:
        raise UserError(f"{option}: {path} must end in {' or '.join(endings)}; choose another name")
    parent = path.absolute().parent
    while create and not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"{option}: {path} cannot be written; choose a file in an existing, writable folder")


def require_new(path: Path, option: str, *, overwrite: bool) -> None:
    """Checks that no existing file would be overwritten.

    Args:
        path: The file to be written.
        option: The option that sets the path, for the message.
        overwrite: Whether the file may be replaced.

    Raises:
        UserError: The file exists, and may not be replaced.
    """
    if not overwrite and (path.exists() or path.is_symlink()):
        raise UserError(f"{option}: {path} exists already; choose another name, or add --overwrite to replace it")


def require_output(
    path: Path, option: str, *, overwrite: bool, endings: tuple[str, ...] = (), create: bool = False
) -> None:
    """Checks before the work starts that a file can be written and no existing file would be overwritten.

    Args:
        path: The file.
        option: The option that sets the path, for the message.
        overwrite: Whether the file may be replaced.
        endings: As for `require_writable`.
        create: As for `require_writable`.

    Raises:
        UserError: As for `require_writable` and `require_new`.
    """
    require_writable(path, option, endings=endings, create=create)
    require_new(path, option, overwrite=overwrite)


def holds_run(folder: Path) -> bool:
    """Returns whether a folder is that of a study, a tuning run or an ablation."""
    return any((folder / record).exists() for record in ("run.json", "sweep.json", "grid.json"))


def occupied(folder: Path) -> UserError:
    """Returns the error for a folder that already holds a run."""
    return UserError(f"{folder}: holds a run already; continue it with --resume, or choose another --out")


def require_other(path: Path, option: str, inputs: dict[str, Path]) -> None:
    """Checks that a command does not overwrite its input.

    Args:
        path: The file to be written.
        option: The option that sets the path, for the message.
        inputs: Input files of the command, by their description in messages.

    Raises:
        UserError: The file is one of the inputs, possibly under another name.
    """
    for name, given in inputs.items():
        if path.exists() and given.exists() and path.samefile(given):
            raise UserError(f"{option}: {path} is {name} itself, which must not be replaced; choose another name")


def _sync_folder(folder: Path) -> None:
    """Flushes a folder to disk, so that a rename survives a power failure."""
    if os.name == "nt":
        return  # Windows cannot open folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

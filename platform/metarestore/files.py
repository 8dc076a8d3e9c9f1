"""Files that appear whole or not at all, and what can be refused before the work whose result they hold."""

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
    """Writes a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Args:
        path: The file; missing folders are created.
        content: Its bytes, or its text, which is stored as UTF-8.

    Raises:
        UserError: The folder cannot be written to, or the disk is full; what was there before is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that takes the place of `path` when it is complete and on the disk, and never before.

    Raises:
        OSError: It cannot be written; `path` is as it was.
    """
    # The name is unique, because several processes may write the same file at once, and has of the file's own only
    # the ending, since that may already have as many bytes as the file system allows.
    part = path.with_name(f".{uuid.uuid4().hex}{path.suffix[:16]}.part")
    try:
        with part.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> UserError:
    """Returns the error that says why a file cannot be written."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    remedy = "make room, then repeat the command" if full else "choose another folder"
    return UserError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


def require_writable(path: Path, option: str, *, endings: tuple[str, ...] = (), create: bool = False) -> None:
    """Checks before hours of work, not after, whether a file can be written.

    Args:
        path: The file.
        option: The option that names it, for the message.
        endings: What its name may end in, e.g. `.png`; anything if empty.
        create: Whether missing folders will be created.

    Raises:
        UserError: Its name has another ending, or it is a folder, or its folder is missing or not the user's.
    """
    if endings and path.suffix.lower() not in endings:
        raise UserError(f"{option}: {path} must end in {' or '.join(endings)}; choose such a name")
    parent = path.absolute().parent
    while create and not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"{option}: {path} cannot be written; name a file in a folder that exists and is yours")


def require_new(path: Path, option: str, *, overwrite: bool) -> None:
    """Checks that no existing file would be lost.

    Args:
        path: The file to be written.
        option: The option that names it, for the message.
        overwrite: Whether the user allows to replace it.

    Raises:
        UserError: The file exists, and may not be replaced.
    """
    if not overwrite and (path.exists() or path.is_symlink()):
        raise UserError(f"{option}: {path} exists already; choose another name, or add --overwrite to replace it")


def require_output(
    path: Path, option: str, *, overwrite: bool, endings: tuple[str, ...] = (), create: bool = False
) -> None:
    """Checks before the work that its result can be written to a file, and that no existing file would be lost.

    Args:
        path: The file.
        option: The option that names it, for the message.
        overwrite: Whether the user allows to replace it.
        endings: As for `require_writable`.
        create: As for `require_writable`.

    Raises:
        UserError: As for `require_writable` and `require_new`.
    """
    require_writable(path, option, endings=endings, create=create)
    require_new(path, option, overwrite=overwrite)


def occupied(folder: Path) -> UserError:
    """Returns the error for a folder that already holds a run."""
    return UserError(f"{folder}: holds a run already; continue it with --resume, or choose another --out")


def require_other(path: Path, option: str, inputs: dict[str, Path]) -> None:
    """Checks that a command does not write over what it reads.

    Args:
        path: The file to be written.
        option: The option that names it, for the message.
        inputs: What the command reads, by what it is called in messages.

    Raises:
        UserError: The file is one of them, be it by another name.
    """
    for name, given in inputs.items():
        if path.exists() and given.exists() and path.samefile(given):
            raise UserError(f"{option}: {path} is {name} itself, which is never replaced; choose another name")


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut: the name of a file belongs to its folder, which has to be written too."""
    if os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

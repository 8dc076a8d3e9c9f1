"""Names of YAML files, and resolution of the paths in them."""

from __future__ import annotations

import os
from pathlib import Path

from metarestore.config.document import display_path
from metarestore.errors import UserError

YAML_ENDINGS = (".yaml", ".yml")
"""Extensions of YAML files, in any case."""


def is_yaml(path: str | Path) -> bool:
    """Returns whether a file has the extension of a YAML file."""
    return Path(path).suffix.lower() in YAML_ENDINGS


def yaml_files(folder: Path) -> dict[str, Path]:
    """Returns the YAML files of a folder, sorted, by name without extension; skips what macOS and Emacs add.

    Raises:
        UserError: Two files have the same name without extension.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.*")):
        if is_yaml(path) and not path.name.startswith(("._", ".#")) and files.setdefault(path.stem, path) != path:
            raise UserError(
                f"{display_path(path)}: has the same name as {display_path(files[path.stem])}, '{path.stem}'; rename "
                "or remove one of them"
            )
    return files


def full_path(root: Path, path: Path) -> Path:
    """Expands a path from a YAML file: `~` is the user's home folder; relative paths are resolved against `root`."""
    return root / os.path.expanduser(path)

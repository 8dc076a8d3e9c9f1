"""Which files are YAML files, and what the paths in them stand for."""

from __future__ import annotations

import os
from pathlib import Path

from metarestore.config.document import display_path
from metarestore.errors import UserError

YAML_ENDINGS = (".yaml", ".yml")
"""What the name of a YAML file ends in, be it in small or in capital letters."""


def is_yaml(path: str | Path) -> bool:
    """Returns whether a file's name ends as those of YAML files do."""
    return Path(path).suffix.lower() in YAML_ENDINGS


def yaml_files(folder: Path) -> dict[str, Path]:
    """Returns the visible YAML files of a folder by name, which is the file's without its ending; sorted.

    Raises:
        UserError: Two files differ in nothing but their endings, and so have one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.*")):
        if is_yaml(path) and not path.name.startswith(".") and found.setdefault(path.stem, path) != path:
            raise UserError(
                f"{display_path(path)}: has the same name as {display_path(found[path.stem])}, '{path.stem}'; rename "
                "or remove one of them"
            )
    return found


def full_path(root: Path, path: Path) -> Path:
    """Returns a path of a YAML file in full: `~` is the user's home folder, and relative paths start at `root`."""
    return root / os.path.expanduser(path)

"""Resolves options for pairs, which accept a folder of pairs or a task file of kind pairs."""

from __future__ import annotations

from pathlib import Path

from metarestore.config.file_names import is_yaml
from metarestore.errors import UserError
from metarestore.project import read_task
from metarestore.tasks.pair_files import PairFolder, PairSource


def named_pairs(path: Path, scale: int | None = None) -> PairSource:
    """Returns the pairs of a folder or of a task file.

    Args:
        path: The folder, or the task file.
        scale: HR side over LR side, if known.

    Raises:
        UserError: The task file is invalid, or of another kind, or for another scale.
    """
    if path.is_dir() or not is_yaml(path):
        return PairSource(PairFolder.of_folder(path, scale))
    spec = read_task(path)
    if spec.pairs is None:
        raise UserError(f"--pairs: {path} is of kind {spec.kind}; give a folder of pairs, or a task file of kind pairs")
    if scale is not None and (own := spec.scale) != scale:
        raise UserError(f"--scale: the pairs of {path} are for scale {own}, not {scale}; write --scale {own}")
    return spec.pairs

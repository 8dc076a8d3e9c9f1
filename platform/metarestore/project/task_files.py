"""Reading task files as they are written; `names.read_task` also resolves the kernels that they leave open."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter
from pydantic_core import PydanticCustomError

from metarestore.config.document import project_root, read_document, validate
from metarestore.config.problems import Problem
from metarestore.errors import UserError
from metarestore.tasks.kinds import TaskSpec
from metarestore.tasks.remarks import give_remarks
from metarestore.tasks.spec import DistributionSpec, Scale

TASK_FILE: TypeAdapter[DistributionSpec] = TypeAdapter(TaskSpec)
"""What a task file may contain: any registered kind of task."""


def read_task_file(path: Path, scale: Scale | None = None) -> DistributionSpec:
    """Reads a task file; relative paths in it start at its project's folder and become absolute.

    Args:
        path: The file.
        scale: Scale at which the distribution is needed; by default that of its file.

    Raises:
        UserError: The file or something that it names is missing, it is invalid, or it is not for this scale.
    """
    document = read_document(path)
    spec = validate(document, TASK_FILE).rooted(project_root(path))
    if problems := spec.missing():
        raise UserError([document.message(Problem(at, text, at))[1] for at, text in problems])
    give_remarks(document, spec.remarks())
    if scale is None or scale == spec.scale:
        return spec
    try:
        return spec.at_scale(scale)
    except PydanticCustomError as error:
        at = (error.context or {}).get("at", ())
        raise UserError(document.message(Problem(at, error.message(), at))[1]) from error

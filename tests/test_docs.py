"""The documentation speaks of everything that a task file may say, and its examples work as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import metarestore
from metarestore.degradations import OPERATIONS, Pipeline
from metarestore.degradations.structure import STRUCTURES
from metarestore.reports.operation_reference import operation_reference

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs/tasks.md").read_text()


def test_the_reference_of_operations_is_up_to_date() -> None:
    """`metarestore tasks operations > docs/operations.md` writes it."""
    assert (REPOSITORY / "docs/operations.md").read_text() == operation_reference() + "\n"


@pytest.mark.parametrize(("name", "step"), sorted((OPERATIONS | STRUCTURES).items()))
def test_every_key_says_what_it_means(name: str, step: type) -> None:
    assert step.__doc__
    for key, field in step.model_fields.items():
        assert key in {"op", "probability"} or field.description, f"{name}.{key} has no description"


def test_the_pipelines_of_the_page_are_right() -> None:
    written = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(written) >= 2
    for text in written:
        task = YAML(typ="safe", pure=True).load(text)
        Pipeline.model_validate(task["pipeline"]).check_scale(4)


def test_the_new_operation_of_the_page_passes_the_laws(tmp_path: Path) -> None:
    """Its file, put among the others, is found and held to the contract without another line."""
    package = tmp_path / "metarestore"
    shutil.copytree(Path(metarestore.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "docs/examples/posterise.py", package / "degradations")
    contract = str(REPOSITORY / "tests/degradations/test_contract.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-k", "posterise", contract],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 30

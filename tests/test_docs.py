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
from metarestore.reports.tasks.operation_reference import operation_reference

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs/tasks.md").read_text()


def test_the_reference_of_operations_is_up_to_date() -> None:
    """`metarestore tasks operations > docs/operations.md` writes it."""
    assert (REPOSITORY / "docs/operations.md").read_text() == operation_reference() + "\n"


@pytest.mark.parametrize(("name", "step"), sorted({**OPERATIONS, **STRUCTURES}.items()))
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


def test_the_new_operation_of_the_page_passes_the_contract(tmp_path: Path) -> None:
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


SCISSORS = re.compile(r"^\s*;?-+\s*8\s*<\s*-+.*$", re.MULTILINE)
INCLUDE = re.compile(r'\s*-+8<-+ "(?P<file>[^"]+)"')


def included(text: str) -> list[str]:
    """Returns the files that a page includes; anything else that looks like scissors is an error."""
    lines = SCISSORS.findall(text)
    found = [INCLUDE.fullmatch(line) for line in lines]
    assert all(found), f"no include: {[line for line, match in zip(lines, found, strict=True) if not match]}"
    return [match["file"] for match in found if match]


def destinations(sources: list[str]) -> list[str]:
    """Returns where a site builder puts each source: a page into a folder of its name, anything else where it lies."""
    found = []
    for source in sources:
        path = Path(source)
        folder = path.parent if path.stem in {"index", "README"} else path.with_suffix("")
        found.append(str(folder / "index.html") if path.suffix == ".md" else source)
    return found


def sources() -> list[str]:
    """Lists what the documentation is made of: the files of docs/, and those that `make docs` generates there."""
    makefile = (REPOSITORY / "Makefile").read_text()
    written = re.findall(r"metarestore .*--out docs/(\S+)", makefile)
    assert written
    docs = REPOSITORY / "docs"
    files = [path.relative_to(docs) for path in docs.rglob("*") if path.is_file()]
    kept = [str(path) for path in files if path.parts[0] not in written]
    return [*kept, *(f"{folder}/index.html" for folder in written)]


@pytest.mark.parametrize("page", sorted(path.name for path in (REPOSITORY / "docs").glob("*.md")))
def test_every_include_and_link_of_a_page_leads_to_a_file(page: str) -> None:
    text = (REPOSITORY / "docs" / page).read_text()
    for file in included(text):
        assert (REPOSITORY / file).is_file(), f"{page} includes {file}"
    outside_code = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", outside_code):
        assert target in sources() or (REPOSITORY / "docs" / target).exists(), f"{page} links to {target}"


def test_no_two_sources_make_one_page() -> None:
    found = destinations(sources())
    assert sorted(set(found)) == sorted(found)


def test_every_page_is_in_the_navigation() -> None:
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")}
    named = re.findall(r"^  - (\S+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(pages)


@pytest.mark.parametrize("text", ['--8 < --"docs/a.py"', "--8<-- docs/a.py", '--8<--"docs/a.py"', '--8<-- "docs/a.py'])
def test_a_broken_include_is_noticed(text: str) -> None:
    with pytest.raises(AssertionError):
        included(f"```python\n{text}\n```\n")


@pytest.mark.parametrize(
    "twice", [["gallery.md", "gallery/index.html"], ["a.md", "a/index.md"], ["README.md", "index.md"]]
)
def test_pages_that_overwrite_each_other_are_noticed(twice: list[str]) -> None:
    assert len(set(destinations(["other.md", *twice]))) == 2

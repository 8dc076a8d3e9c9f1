"""The table lists every task distribution, with what each file says about itself."""

import io

import pytest
from rich.console import Console

from metarestore.project import Project
from metarestore.reports.tasks.table import description, task_table

TASK = """\
# yaml-language-server: $schema=../schemas/task.json
# {comment}
kind: synthetic
scale: 2
pipeline:
  - {{op: gaussian_blur, sigma: 1}}
  - {{op: downsample, method: bicubic}}
  - {{op: jpeg, quality: [40, 90]}}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "tasks").mkdir()
    return Project(tmp_path)


def rows(project):
    """Returns the cells of each row, by name."""
    columns = [[str(cell) for cell in column.cells] for column in task_table(project).columns]
    return {name: cells for name, *cells in zip(*columns, strict=True)}


def add(project, name, text):
    (project.root / "tasks" / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_every_distribution_has_a_row(project):
    add(project, "mine", TASK.format(comment="My own."))
    assert set(rows(project)) == set(project.names("tasks"))


def test_a_row_says_what_the_file_says(project):
    add(project, "mine", TASK.format(comment="A lens [old]: soft, and compressed."))
    assert rows(project)["mine"] == ["synthetic", "×2", "gaussian_blur → downsample → jpeg", "project", "A lens [old]"]


def test_brackets_are_printed_as_they_are(project):
    add(project, "mine", TASK.format(comment="A lens [old]: soft, and compressed."))
    console = Console(width=400, file=io.StringIO())
    console.print(task_table(project))
    assert "A lens [old]" in console.file.getvalue()


@pytest.mark.parametrize("name", ["a[b]c", "[red]", "夜景" * 20, "long_" * 30])
def test_names_are_shown_whole(project, name):
    """Brackets are no markup, and what is too long for a terminal is folded, not cut off."""
    add(project, name, TASK.format(comment="Mine."))
    console = Console(width=80, file=io.StringIO())
    console.print(task_table(project))
    first = "".join(line.split(" ")[0] for line in console.file.getvalue().splitlines())
    assert name in first


def test_the_project_hides_the_catalogue(project):
    assert rows(project)["jpeg"][3] == "catalogue"
    add(project, "jpeg", TASK.format(comment="My own."))
    assert rows(Project(project.root))["jpeg"][3:] == ["project", "My own"]


def test_real_pairs_have_no_pipeline(project):
    for folder in ("lr", "hr"):
        (project.root / folder).mkdir()
    add(project, "camera", "# My camera.\nkind: pairs\nscale: 4\nlr: lr\nhr: hr\n")
    assert rows(project)["camera"] == ["pairs", "×4", "", "project", "My camera"]


def test_a_wrong_file_is_listed_with_its_first_problem(project):
    add(project, "wrong", TASK.format(comment="Wrong.").replace("scale: 2", "scale: 7").replace("jpeg", "jpg"))
    *_, origin, problem = rows(project)["wrong"]
    assert origin == "project"
    assert "wrong.yaml:4:" in problem
    assert "scale" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Short words: then more.\nkind: x", "Short words"),
        ("# Up to 0.5 of a pixel. Then more.", "Up to 0.5 of a pixel"),
        ("# A line\n# that goes on\nkind: x # not this", "A line that goes on"),
        ("kind: x\n# Too late", ""),
        ("", ""),
    ],
)
def test_a_description_is_the_opening_words_of_the_comment(tmp_path, text, expected):
    for schema in ("", "# yaml-language-server: $schema=../schemas/task.json\n"):
        (tmp_path / "task.yaml").write_text(schema + text, encoding="utf-8")
        assert description(tmp_path / "task.yaml") == expected

"""A new project is right as it is, and making it never costs anybody a file."""

import pytest

from metarestore.checking import check_files, project_files, write_all_schemas
from metarestore.config.document import project_root, read_document
from metarestore.errors import UserError
from metarestore.project import arm_experiments, read_experiment
from metarestore.scaffold import FILES, make_project


def test_a_new_project_passes_the_check(tmp_path):
    folder = tmp_path / "new" / "study"
    written = make_project(folder)
    assert check_files(project_files([folder])) == []
    assert sorted(written) == sorted(path for path in folder.rglob("*") if path.is_file())


def test_its_experiment_uses_its_own_task_and_runs_in_this_process(tmp_path):
    make_project(tmp_path)
    path = tmp_path / "experiments" / "first.yaml"
    experiment = read_experiment(path)
    assert project_root(path) == tmp_path
    assert (tmp_path / "tasks" / f"{experiment.graph.target}.yaml").is_file()
    assert (experiment.data, experiment.engine.kind) == ("embedded", "local")
    assert len(arm_experiments(experiment)) == 2


@pytest.mark.parametrize("name", FILES)
def test_files_open_with_their_schema_and_what_to_run(tmp_path, name):
    make_project(tmp_path)
    write_all_schemas(tmp_path / "schemas")
    file = tmp_path / name
    first, *rest = file.read_text(encoding="utf-8").splitlines()
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / schema).is_file()
    assert any(line.startswith("#") and "metarestore " in line for line in rest)
    assert read_document(file).data


def test_a_mistake_in_a_new_project_is_found(tmp_path):
    make_project(tmp_path)
    task = tmp_path / "tasks" / "night_phone.yaml"
    task.write_text(task.read_text(encoding="utf-8").replace("gaussian_blur", "gausian_blur"), encoding="utf-8")
    assert any("did you mean 'gaussian_blur'" in problem for problem in check_files(project_files([tmp_path])))


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten_and_nothing_is_half_made(tmp_path, name):
    own = tmp_path / name
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        make_project(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [own]
    assert own.read_text() == "mine"


def test_all_existing_files_are_named_at_once(tmp_path):
    make_project(tmp_path)
    with pytest.raises(UserError) as error:
        make_project(tmp_path)
    assert len(error.value.problems) == len(FILES)


def test_an_own_gitignore_is_left_alone(tmp_path):
    (tmp_path / ".gitignore").write_text("mine")
    assert tmp_path / ".gitignore" not in make_project(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "mine"


def test_a_file_where_the_folder_should_be_is_reported(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        make_project(tmp_path / "taken")

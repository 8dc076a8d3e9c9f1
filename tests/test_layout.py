"""What holds for the files of the repository as such."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from metarestore.checking import check_files, project_files, write_all_schemas

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "metarestore"
YAML = sorted(path for kind in ("tasks", "graphs", "experiments") for path in (ROOT / kind).rglob("*.yaml"))


def test_the_source_root_does_not_shadow_the_standard_library():
    assert not (ROOT / "platform" / "__init__.py").exists()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", "import platform; print(platform.system())"]
    assert subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_is_longer_than_400_lines(module):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 400


def test_every_folder_of_modules_is_a_package():
    folders = {module.parent for module in PACKAGE.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_the_repository_holds_yaml_in_of_every_kind():
    assert {path.relative_to(ROOT).parts[0] for path in YAML} == {"tasks", "graphs", "experiments"}


@pytest.mark.parametrize("file", YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_in_name_their_schema_first(file):
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    schema = (file.parent / first.split("$schema=")[1]).resolve()
    kind = file.relative_to(ROOT).parts[0].removesuffix("s")
    assert schema == ROOT / "schemas" / f"{kind}.json"
    assert schema.is_file()


def test_yaml_in_are_right():
    assert check_files(project_files([ROOT])) == []


def test_the_page_on_experiments_lists_every_file_and_script():
    folder = ROOT / "experiments"
    page = (folder / "README.md").read_text(encoding="utf-8")
    studies = [path for path in (folder / "studies").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")]
    files = [path.name for path in folder.glob("*.yaml")] + [f"studies/{path.name}" for path in studies]
    assert [name for name in sorted(files) if name not in page] == []
    assert [link for link in re.findall(r"\]\((.+?)\)", page) if not (folder / link.split("#")[0]).is_file()] == []


def test_schemas_are_those_of_the_models(tmp_path):
    for fresh in write_all_schemas(tmp_path):
        kept = ROOT / "schemas" / fresh.name
        assert kept.read_bytes() == fresh.read_bytes(), "write them anew with `metarestore schema`"


def test_every_tested_version_is_pinned_once():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    assert len({name for name, _ in pins}) == len(pins)

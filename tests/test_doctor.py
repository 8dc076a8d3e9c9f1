"""Every finding is a line; what is missing has a command that mends it, and nothing makes the diagnosis fail."""

import importlib.metadata
import io
import subprocess
import sys

import pytest
from rich.console import Console

from metarestore import doctor
from metarestore.doctor import Finding, diagnose, doctor_table
from metarestore.learners import learn2learn

PARTS = [
    "Python",
    "cores",
    "memory",
    "metarestore",
    "torch",
    "numpy",
    "networkx",
    "opencv",
    "scikit-image",
    "photographs",
]
PARTS += ["ray", "mlflow", "tracking store", "learn2learn", "image cache"]


def rendered(findings):
    console = Console(width=200, file=io.StringIO())
    console.print(doctor_table(findings))
    return console.file.getvalue()


def found(name):
    return next(finding for finding in diagnose() if finding.name == name)


def hide(monkeypatch, module):
    """Makes `import module` fail as if it were not installed."""
    monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("METARESTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_complete_installation_lacks_nothing():
    findings = diagnose()
    assert {finding.name for finding in findings} >= set(PARTS)
    assert [finding for finding in findings if finding.remedy] == []


def test_versions_are_those_installed():
    for name in ("numpy", "networkx", "ray", "mlflow"):
        assert found(name).value == importlib.metadata.version(name)


@pytest.mark.parametrize(("module", "name"), [("torch", "torch"), ("cv2", "opencv")])
def test_a_missing_package_has_a_remedy(monkeypatch, module, name):
    hide(monkeypatch, module)
    finding = found(name)
    assert finding.value != ""
    assert finding.remedy is not None
    assert finding.remedy.startswith("pip ")


@pytest.mark.parametrize("name", ["numpy", "networkx", "ray", "mlflow", "scikit-image"])
def test_a_missing_distribution_has_a_remedy(monkeypatch, name):
    version = importlib.metadata.version

    def without(distribution):
        if distribution == name:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(distribution)

    monkeypatch.setattr(importlib.metadata, "version", without)
    finding = found(name)
    assert finding.value == "missing"
    assert finding.remedy is not None
    assert name in finding.remedy


def test_opencv_without_libgl_is_told_apart_from_a_missing_one(monkeypatch, tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    finding = found("opencv")
    assert "libGL.so.1" in finding.value
    assert "headless" in finding.remedy


def test_what_needs_a_broken_package_does_not_end_the_diagnosis():
    # A process of its own, because this one has imported OpenCV long ago.
    script = """
import sys
sys.modules["cv2"] = None
from metarestore.doctor import diagnose
for finding in diagnose():
    print(finding.name, finding.value, finding.remedy, sep="|")
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    findings = dict(line.split("|", 1) for line in output.splitlines())
    assert findings["opencv"] == "missing|pip install opencv-python"
    for name in ("learn2learn", "image cache"):
        assert "cv2" in findings[name]
        assert not findings[name].endswith("None")


@pytest.mark.parametrize("compiler", [None, "/usr/bin/cc"])
def test_without_learn2learn_the_compiler_is_looked_for(monkeypatch, compiler):
    monkeypatch.setattr(learn2learn.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: compiler)
    missing, built_with = doctor._learn2learn()
    assert missing == Finding("learn2learn", "missing", learn2learn.INSTALL)
    assert (built_with.remedy is None) == (compiler is not None)


def test_a_cache_that_cannot_be_written_has_a_remedy(monkeypatch, cache):
    cache.write_text("a file where the folder should be")
    finding = found("image cache")
    assert str(cache) in finding.value
    assert finding.remedy.startswith("export METARESTORE_CACHE=")


def test_passwords_of_the_tracking_store_are_not_shown(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://anna:secret@tracking.example.org/mlflow")
    value = found("tracking store").value
    assert "secret" not in value
    assert "tracking.example.org/mlflow" in value


def test_the_table_shows_names_values_and_remedies_as_they_are():
    text = rendered([Finding("ray", "missing", 'pip install "ray[tune]"'), Finding("place", "/a/[bold]/b")])
    assert 'pip install "ray[tune]"' in text
    assert "/a/[bold]/b" in text

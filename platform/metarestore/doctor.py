"""Diagnoses the installation, with the commands that fix missing parts."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.table import Table
from rich.text import Text

import metarestore
from metarestore.errors import UserError

_GIB = 2**30
_HEADLESS = "pip uninstall -y opencv-python && pip install opencv-python-headless"
"""OpenCV without GUI: the same functions, without libGL."""


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        name: The part that was checked.
        value: The result.
        remedy: The command that fixes it; None if nothing is missing.
    """

    name: str
    value: str
    remedy: str | None = None


def diagnose() -> list[Finding]:
    """Checks the machine and all dependencies of the package; takes seconds, because torch is imported."""
    findings: list[Finding] = []
    for name, probe in _PROBES.items():
        try:
            findings += probe()
        except ImportError as error:
            # A dependency of this part cannot be loaded; it has its own line above.
            findings.append(Finding(name, f"cannot be checked: {_one_line(error)}", "fix the problems above first"))
    return findings


def doctor_table(findings: list[Finding]) -> Table:
    """Lays out findings, those that have a remedy in red."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("found", overflow="fold")
    table.add_column("fix with", overflow="fold")
    for finding in findings:
        # Text, because paths and requirements may contain brackets, which rich would interpret as markup.
        cells = [Text(cell or "") for cell in (finding.name, finding.value, finding.remedy)]
        table.add_row(*cells, style="red" if finding.remedy else None)
    return table


def _machine() -> list[Finding]:
    return [
        Finding("Python", f"{platform.python_version()}, {sys.executable}"),
        Finding("platform", platform.platform()),
        Finding("cores", _cores()),
        Finding("memory", _memory()),
        Finding("metarestore", f"{metarestore.__version__}, {Path(metarestore.__file__).parent}"),
    ]


def _cores() -> str:
    present = os.cpu_count() or 1
    # A container or a batch system may grant fewer; unknown on macOS and Windows.
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    return str(present) if granted == present else f"{granted} of {present}"


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "unknown"
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    granted = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    if granted != "max" and int(granted) < present:
        return f"{int(granted) / _GIB:.1f} of {present / _GIB:.1f} GiB"
    return f"{present / _GIB:.1f} GiB"


def _torch() -> list[Finding]:
    try:
        import torch  # noqa: PLC0415
    except ModuleNotFoundError:
        return [Finding("torch", "missing", "pip install torch")]
    except (ImportError, OSError) as error:
        return [Finding("torch", f"cannot be loaded: {_one_line(error)}", "pip install --force-reinstall torch")]
    if torch.backends.mps.is_available():
        return [Finding("torch", f"{torch.__version__}, Metal")]
    build = torch.version.cuda or torch.version.hip
    if build is None:
        unused = ", so the NVIDIA GPU of this machine is not used" if shutil.which("nvidia-smi") else ""
        return [Finding("torch", f"{torch.__version__}, CPU build{unused}")]
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    devices = [f"{device.name} ({device.total_memory / _GIB:.0f} GiB)" for device in properties]
    return [Finding("torch", f"{torch.__version__}, GPU build ({build}): {', '.join(devices) or 'no device'}")]


def _learn2learn() -> list[Finding]:
    from metarestore.learners.learn2learn import INSTALL, maml_class  # noqa: PLC0415

    try:
        maml_class()
        version = metadata.version("learn2learn")
    except UserError:
        return [Finding("learn2learn", "missing", INSTALL), *_compiler()]
    except ImportError as error:
        return [Finding("learn2learn", f"cannot be loaded: {_one_line(error)}", f"{INSTALL} --force-reinstall")]
    plain = hasattr(sys.modules["learn2learn"], "__file__")
    return [Finding("learn2learn", f"{version}, {'plain import' if plain else 'registered without its __init__'}")]


def _compiler() -> list[Finding]:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler:
        return [Finding("C compiler", compiler)]
    install = "xcode-select --install" if sys.platform == "darwin" else "sudo apt-get install build-essential"
    return [Finding("C compiler", "missing; required to build learn2learn", install)]


def _opencv() -> list[Finding]:
    try:
        import cv2  # noqa: PLC0415
    except ModuleNotFoundError:
        return [Finding("opencv", "missing", "pip install opencv-python")]
    except ImportError as error:
        return [Finding("opencv", f"cannot be loaded: {_one_line(error)}", _HEADLESS)]
    return [Finding("opencv", cv2.__version__)]


def _version(distribution: str, requirement: str | None = None) -> list[Finding]:
    try:
        return [Finding(distribution, metadata.version(distribution))]
    except metadata.PackageNotFoundError:
        return [Finding(distribution, "missing", f"pip install {requirement or distribution}")]


def _mlflow() -> list[Finding]:
    installed = _version("mlflow")
    if installed[0].remedy:
        return installed
    from metarestore.tracking_store import tracking_uri  # noqa: PLC0415

    # People paste this table into bug reports.
    store = re.sub(r"//[^/@]+@", "//…@", tracking_uri(Path.cwd()))
    return [*installed, Finding("tracking store", store)]


def _photographs() -> list[Finding]:
    installed = _version("scikit-image")
    if installed[0].remedy:
        return installed
    from metarestore.tasks.embedded import EMBEDDED, embedded_path  # noqa: PLC0415

    missing = []
    names = [name for split in EMBEDDED.values() for name in split]
    for name in names:
        try:
            embedded_path(name)
        except UserError:
            missing.append(name)
    if not missing:
        return [*installed, Finding("photographs", f"{len(names)} come with scikit-image")]
    reinstall = "pip install --force-reinstall --no-deps scikit-image"
    return [*installed, Finding("photographs", f"not in scikit-image: {', '.join(missing)}", reinstall)]


def _cache() -> list[Finding]:
    from metarestore.tasks.images import cache_folder  # noqa: PLC0415

    elsewhere = f"export METARESTORE_CACHE={shlex.quote(str(Path(tempfile.gettempdir()) / 'metarestore'))}"
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        # Permissions are not sufficient: the disk may be full or mounted read-only.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except UserError:
        return [Finding("image cache", "this user has no home folder", elsewhere)]
    except OSError as error:
        return [Finding("image cache", f"{folder}: cannot be written ({error.strerror})", elsewhere)]
    return [Finding("image cache", str(folder))]


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


_PROBES: dict[str, Callable[[], list[Finding]]] = {
    "machine": _machine,
    "torch": _torch,
    "numpy": lambda: _version("numpy"),
    "networkx": lambda: _version("networkx"),
    "opencv": _opencv,
    "scikit-image": _photographs,
    "ray": lambda: _version("ray", '"ray[tune]"'),
    "mlflow": _mlflow,
    "learn2learn": _learn2learn,
    "image cache": _cache,
}
"""In the order of the table: dependencies come first. One probe may give several findings."""

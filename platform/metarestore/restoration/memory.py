"""How much memory the restoration of a photograph takes, and how much there is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metarestore.errors import UserError
from metarestore.models.network import Network
from metarestore.models.restore import STRIP
from metarestore.restoration.formats import Format, Layout

_PER_LR, _PER_HR = 600, 80
"""Bytes for each LR pixel of a strip and for each of its restored pixels (experiments/studies/photograph_memory.py)."""
_PER_TILED = 60
"""Bytes for each restored pixel of a network that restores tiles: the whole picture is in memory as floats."""
_PER_WHOLE = 24
"""Bytes for each LR pixel of a network with values that depend on the whole image."""
_READING = 4
"""Bytes for each LR pixel while the file is decoded, in addition to the pixels."""

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Restored:
    """A photograph that is to be restored.

    Attributes:
        path: Its file.
        before: Its layout.
        after: The layout of the restored picture.
        kind: The format to write.
    """

    path: Path
    before: Layout
    after: Layout
    kind: Format


def needed_memory(photograph: Restored, network: Network) -> int:
    """Returns the bytes that a restoration takes at most, beyond what the process has."""
    lr = photograph.before.height * photograph.before.width
    hr = photograph.after.height * photograph.after.width
    scale = network.scale
    strip = min(lr, STRIP + 2 * (network.margin or 0) * photograph.before.width)
    work = strip * (_PER_LR + _PER_HR * scale**2)
    if network.margin is None:
        work += hr * _PER_TILED
    if type(network).for_image is not Network.for_image:
        work += lr * _PER_WHOLE
    return photograph.before.bytes + max(lr * _READING, work + hr * photograph.kind.held)


def require_memory(photograph: Restored, network: Network, available: int | None) -> None:
    """Checks that there is enough memory for a restoration.

    Args:
        photograph: The photograph.
        network: The network.
        available: Bytes that may be used; not checked if None.

    Raises:
        UserError: It takes more.
    """
    needed = needed_memory(photograph, network)
    if available is None or needed <= available:
        return
    before, after, kind = photograph.before, photograph.after, photograph.kind
    other = ", write PNG or TIFF" if kind.held else ""
    raise UserError(
        f"{photograph.path}: restoring {before.width}x{before.height} to {after.width}x{after.height} pixels as "
        f"{kind.name.upper()} takes about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are available; "
        f"crop it{other}, lower --workers, or use a machine with more memory"
    )


def available_memory() -> int | None:
    """Returns the bytes that this process can still use, within the limit of its container; None if unknown."""
    found = [value for value in (_free_memory(), _within_container()) if value is not None]
    return max(min(found), 0) if found else None


def _free_memory() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return None


def _within_container() -> int | None:
    """Returns what the limit of a control group leaves; memory of files is not counted, since it can be freed."""
    with suppress(OSError, ValueError, IndexError):
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        used = {line.split()[0]: int(line.split()[1]) for line in lines}
        return None if limit == "max" else int(limit) - used["anon"]
    return None

"""Kernels that are known: read from a file, in the convention of the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metarestore.degradations.kernel_file import load_kernels
from metarestore.degradations.kernels import Kernel, mass_centre, recentred
from metarestore.errors import UserError

_CENTRED = 1e-3  # pixels that a kernel's mass centre may be off its middle


def kernel_of_file(path: Path, scale: int, key: str) -> Kernel:
    """Reads the only kernel of a file, for correlation, and moves its mass centre to its middle.

    Args:
        path: A `.npy`, `.mat` or `.png` file, as the operation `kernel_file` takes it.
        scale: Factor s, which says whether the kernel has an even or an odd side.
        key: Option or key that names it, for the message.

    Raises:
        UserError: The file cannot be read, or has several kernels in it.
    """
    try:
        kernels = load_kernels(path)
    except ValueError as error:
        raise UserError(f"{key}: {error}") from error
    if len(kernels) > 1:
        raise UserError(f"{key}: {path} has {len(kernels)} kernels in it; give a file with one")
    return centred(kernels[0], scale)


def centred(kernel: Kernel, scale: int) -> Kernel:
    """Returns a kernel with its mass centre in its middle: (K, K), K even if and only if the scale is."""
    height, width = kernel.shape
    off = max(abs(at - (length - 1) / 2) for at, length in zip(mass_centre(kernel), kernel.shape, strict=True))
    if height == width and (height - scale) % 2 == 0 and off < _CENTRED:
        return kernel
    moved = recentred(kernel, 0.0 if scale % 2 else 0.5)
    return np.asarray(moved, dtype=np.float32)

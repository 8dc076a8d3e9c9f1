"""Where kernels come from that are named, not written: files, photographs, and draws of task distributions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from metarestore.degradations.base import OPERATIONS, Context, Drawn
from metarestore.degradations.blur import KernelBlur
from metarestore.degradations.kernel_file import load_kernels
from metarestore.degradations.kernels import Kernel, mass_centre, recentred
from metarestore.errors import UserError
from metarestore.models.restore import to_image
from metarestore.tasks.photographs import read_image
from metarestore.tasks.spec import DistributionSpec, Scale, content_hash
from metarestore.tasks.synthetic import PipelineSpec
from metarestore.zero_shot.kernel import estimate_kernel
from metarestore.zero_shot.shapes import bicubic_kernel

_CENTRED = 1e-3  # pixels that a kernel's mass centre may be off its middle
_EMPTY = 1e-6  # weight of a rim that is left out
_REACH = 16  # LR pixels around the middle in which a kernel is looked for


class Kernels:
    """Finds the kernels that task files name.

    Args:
        task: Reads a task file, given its name, the key that names it, and the scale.
    """

    def __init__(self, task: Callable[[str, str, Scale], DistributionSpec]) -> None:
        self._task = task

    def of_image(self, image: Path, scale: Scale) -> Kernel:
        """Estimates the kernel of a photograph; the bicubic one where nothing can be estimated.

        Raises:
            UserError: The photograph cannot be read.
        """
        state = image.stat()
        return _estimated(image, scale, state.st_mtime_ns, state.st_size)

    def of_file(self, path: Path, scale: Scale) -> Kernel:
        """Reads the only kernel of a file.

        Raises:
            UserError: It cannot be read, or has several kernels in it.
        """
        return kernel_of_file(path, scale, "kernel.file")

    def of_task(self, name: str, scale: Scale, seed: int, index: int) -> Kernel:
        """Returns what a draw of a task distribution blurs and shrinks by; noise and compression are left out.

        Raises:
            UserError: There is no such task file, or it has no pipeline.
        """
        spec = self._task(name, "kernel.task", scale)
        if not isinstance(spec, PipelineSpec):
            raise UserError(f"kernel.task: '{name}' is of kind {spec.kind}, which has no kernel; name a synthetic one")
        return response(spec.degradation(content_hash(spec), seed, index), scale)

    def bicubic(self, scale: Scale) -> Kernel:
        """Returns the kernel of bicubic downsampling."""
        return bicubic_kernel(scale)


# Time and size stand for the content, as for kernel files.
@lru_cache(maxsize=16)
def _estimated(image: Path, scale: Scale, modified: int, size: int) -> Kernel:
    del modified, size
    photograph = read_image(image)
    found = to_image(photograph.pixels)[0]
    return estimate_kernel(found[:1] if photograph.gray else found, scale).kernel


def response(draws: Drawn, scale: int) -> Kernel:
    """Returns the kernel of a drawn degradation: what its blurs and its downsampling make of single bright points.

    Args:
        draws: The draw; operations that are neither are left out.
        scale: Factor s.

    Returns:
        (K, K), K even if and only if the scale is; the middle is the centre of an LR pixel.
    """
    side = scale * (2 * _REACH + 1)
    places = [scale * _REACH + phase for phase in range(scale)]
    points = torch.zeros(scale * scale, 3, side, side)
    for number, (row, column) in enumerate((row, column) for row in places for column in places):
        points[number, :, row, column] = 1
    context = Context([0] * len(points), (side // scale, side // scale), "torch")
    for draw in draws:
        operation = OPERATIONS[draw.op]
        if issubclass(operation, KernelBlur) or draw.op == "downsample":
            points = operation.apply(points, draw.params, context)
    # LR pixel n sees HR pixel s·n + offset; farther LR pixels see the point at smaller offsets.
    grid = points[:, 0].reshape(scale, scale, 2 * _REACH + 1, 2 * _REACH + 1).flip(-2, -1)
    kernel = grid.permute(2, 0, 3, 1).reshape(side, side).to(torch.float64).numpy()
    while len(kernel) > 2 * scale and np.abs(kernel).sum() - np.abs(kernel[1:-1, 1:-1]).sum() < _EMPTY:
        kernel = kernel[1:-1, 1:-1]
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


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
        return np.array(kernel)  # those of files are read-only
    moved = recentred(kernel, 0.0 if scale % 2 else 0.5)
    return np.asarray(moved, dtype=np.float32)

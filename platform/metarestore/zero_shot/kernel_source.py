"""Resolves the kernels that task files refer to: from files, photographs, or draws of task distributions."""

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

_CENTRED = 1e-3  # maximum distance, in pixels, of a kernel's centre of mass from its middle
_EMPTY = 1e-6  # total weight below which a border is cropped
_RADIUS = 16  # LR pixels around the middle in which the response is computed


class Kernels:
    """Resolves the kernels that task files refer to.

    Args:
        task: Reads a task file, given its name, the key that refers to it, and the scale.
    """

    def __init__(self, task: Callable[[str, str, Scale], DistributionSpec]) -> None:
        self._task = task

    def of_image(self, image: Path, scale: Scale) -> Kernel:
        """Estimates the kernel of a photograph; returns the bicubic kernel if nothing can be estimated.

        Raises:
            UserError: The photograph cannot be read.
        """
        state = image.stat()
        return _estimated(image, scale, state.st_mtime_ns, state.st_size)

    def of_file(self, path: Path, scale: Scale) -> Kernel:
        """Reads a kernel from a file.

        Raises:
            UserError: The file cannot be read, or contains several kernels.
        """
        return kernel_of_file(path, scale, "kernel.file")

    def of_task(self, name: str, scale: Scale, seed: int, index: int) -> Kernel:
        """Returns the kernel of a draw of a task distribution: its blur and downsampling, without noise or compression.

        Raises:
            UserError: The task file is missing, or has no pipeline.
        """
        spec = self._task(name, "kernel.task", scale)
        if not isinstance(spec, PipelineSpec):
            raise UserError(f"kernel.task: '{name}' is of kind {spec.kind}, which has no kernel; name a synthetic task")
        return response(spec.degradation(content_hash(spec), seed, index), scale)

    def bicubic(self, scale: Scale) -> Kernel:
        """Returns the kernel of bicubic downsampling."""
        return bicubic_kernel(scale)


# Modification time and size identify the content, as for kernel files.
@lru_cache(maxsize=16)
def _estimated(image: Path, scale: Scale, modified: int, size: int) -> Kernel:
    del modified, size
    photograph = read_image(image)
    pixels = to_image(photograph.pixels)[0]
    return estimate_kernel(pixels[:1] if photograph.gray else pixels, scale).kernel


def response(draws: Drawn, scale: int) -> Kernel:
    """Returns the kernel of a drawn degradation: the impulse response of its blurs and its downsampling.

    Args:
        draws: The draw; other operations are ignored.
        scale: Factor s.

    Returns:
        Weights (K, K); K is even if and only if the scale is, and the middle is the centre of an LR pixel.
    """
    side = scale * (2 * _RADIUS + 1)
    coordinates = [scale * _RADIUS + phase for phase in range(scale)]
    points = torch.zeros(scale * scale, 3, side, side)
    for number, (row, column) in enumerate((row, column) for row in coordinates for column in coordinates):
        points[number, :, row, column] = 1
    context = Context([0] * len(points), (side // scale, side // scale), "torch")
    for draw in draws:
        operation = OPERATIONS[draw.op]
        if issubclass(operation, KernelBlur) or draw.op == "downsample":
            points = operation.apply(points, draw.params, context)
    # LR pixel n depends on HR pixel s·n + offset: for larger n, the same point has a smaller offset.
    grid = points[:, 0].reshape(scale, scale, 2 * _RADIUS + 1, 2 * _RADIUS + 1).flip(-2, -1)
    kernel = grid.permute(2, 0, 3, 1).reshape(side, side).to(torch.float64).numpy()
    while len(kernel) > 2 * scale and np.abs(kernel).sum() - np.abs(kernel[1:-1, 1:-1]).sum() < _EMPTY:
        kernel = kernel[1:-1, 1:-1]
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def kernel_of_file(path: Path, scale: int, key: str) -> Kernel:
    """Reads a kernel for correlation from a file, and moves its centre of mass to the middle.

    Args:
        path: A `.npy`, `.mat` or `.png` file, as for the operation `kernel_file`.
        scale: Factor s, which determines whether the side of the kernel is even or odd.
        key: Option or key that refers to the file, for the message.

    Raises:
        UserError: The file cannot be read, or contains several kernels.
    """
    try:
        kernels = load_kernels(path)
    except ValueError as error:
        raise UserError(f"{key}: {error}") from error
    if len(kernels) > 1:
        raise UserError(f"{key}: {path} contains {len(kernels)} kernels; give a file with a single kernel")
    return centred(kernels[0], scale)


def centred(kernel: Kernel, scale: int) -> Kernel:
    """Moves a kernel's centre of mass to its middle; returns (K, K), with K even if and only if the scale is."""
    height, width = kernel.shape
    off = max(abs(at - (length - 1) / 2) for at, length in zip(mass_centre(kernel), kernel.shape, strict=True))
    if height == width and (height - scale) % 2 == 0 and off < _CENTRED:
        return np.array(kernel)  # a copy: kernels from files are read-only
    moved = recentred(kernel, 0.0 if scale % 2 else 0.5)
    return np.asarray(moved, dtype=np.float32)

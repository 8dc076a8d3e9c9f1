"""Draws the kernels of the protocols `div2krk_x2` and `div2krk_x4` anew, to the same bytes.

    python experiments/studies/div2krk_kernels.py

Source: Bell-Kligler et al., Blind Super-Resolution Kernel Estimation using an Internal-GAN (2019), section 5.1:
11x11 anisotropic Gaussians whose two variances are uniform in 0.6..5, turned by a uniform angle, each weight multiplied
by 1 plus uniform noise of up to 25%. At x4 the degradation of x2 is applied twice. The published kernels are others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarestore.seeds import generator

FOLDER = Path(__file__).parents[2] / "tasks" / "kernels"
COUNT, SIDE = 40, 11
_VARIANCES, _NOISE = (0.6, 5.0), 0.25

Floats = NDArray[np.float64]


def kernels() -> Floats:
    """Returns the kernels of scale 2, (40, 11, 11), each of sum 1."""
    return np.stack([_kernel(generator(0, "div2krk", index)) for index in range(COUNT)])


def twice(kernel: Floats) -> Floats:
    """Returns the kernel (31, 31) of scale 4 that blurs and shrinks as a kernel (11, 11) of scale 2 does twice."""
    found = np.zeros((3 * SIDE - 2,) * 2)
    for row in range(SIDE):
        for column in range(SIDE):
            found[2 * row : 2 * row + SIDE, 2 * column : 2 * column + SIDE] += kernel[row, column] * kernel
    return found


def _kernel(rng: np.random.Generator) -> Floats:
    long, short = rng.uniform(*_VARIANCES, size=2)
    angle = rng.uniform(0, np.pi)
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(axes @ np.diag([long, short]) @ axes.T)
    offsets = np.arange(SIDE) - SIDE // 2
    down, right = np.meshgrid(offsets, offsets, indexing="ij")
    places = np.stack([down, right], axis=-1)
    weights = np.exp(-np.einsum("rci,ij,rcj->rc", places, inverse, places) / 2)
    weights = weights * (1 + rng.uniform(-_NOISE, _NOISE, size=weights.shape))
    return np.asarray(weights / weights.sum())


def main() -> None:
    """Writes both files."""
    FOLDER.mkdir(exist_ok=True)
    found = kernels()
    np.save(FOLDER / "div2krk_x2.npy", found.astype(np.float32))
    np.save(FOLDER / "div2krk_x4.npy", np.stack([twice(kernel) for kernel in found]).astype(np.float32))


if __name__ == "__main__":
    main()

"""The geometric relation of LR to HR: an affine map and a smooth displacement field, in LR pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST_ANGLE = 2.0
"""Largest rotation between LR and HR, in degrees."""
LARGEST_ZOOM = 0.03
"""Largest difference of their scale in any direction."""
_MARGIN = 2
"""HR pixels at the border that are not interpolated: fewer than half of the interpolator's support lies inside."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Maps positions in LR to positions in HR, both in LR pixels: u is mapped to A·u + t + d(u).

    The position u in LR pixels is s·u + (s − 1)/2 in HR pixels, so the identity is a centre-aligned pair. Positions are
    (right, down), as in OpenCV.

    Attributes:
        matrix: A and t, (2, 3).
        field: The displacements d of LR pixels (h, w, 2); None if they are 0.
    """

    matrix: Floats
    field: Floats | None = None

    @classmethod
    def identity(cls) -> Motion:
        """Returns the motion of an aligned pair."""
        return cls(np.eye(2, 3))

    @classmethod
    def shifted(cls, right: float, down: float) -> Motion:
        """Returns a motion whose LR pixels lie (right, down) LR pixels away in HR."""
        return cls(np.array([[1.0, 0.0, right], [0.0, 1.0, down]]))

    @property
    def angle(self) -> float:
        """Rotation in degrees, clockwise as images are displayed."""
        return math.degrees(math.atan2(self.matrix[1, 0] - self.matrix[0, 1], self.matrix[0, 0] + self.matrix[1, 1]))

    @property
    def zoom(self) -> float:
        """Magnification of HR relative to LR, beyond the scale."""
        return math.sqrt(max(float(np.linalg.det(self.matrix[:, :2])), 0.0))

    @property
    def displaces(self) -> bool:
        """Whether it is not the identity."""
        return self.field is not None or not np.array_equal(self.matrix, np.eye(2, 3))

    @property
    def is_small(self) -> bool:
        """Whether the affine map is of the kind that two photographs of one scene from one tripod can have."""
        stretch = np.linalg.svd(self.matrix[:, :2], compute_uv=False)
        return abs(self.angle) <= LARGEST_ANGLE and float(np.abs(stretch - 1).max()) <= LARGEST_ZOOM

    def then(self, increment: Floats) -> Motion:
        """Returns the motion after a registration of the warped HR: `increment` (2, 3) maps LR to the warped HR."""
        return Motion((_square(self.matrix) @ _square(increment))[:2], self.field)

    def displacements(self, height: int, width: int) -> Floats:
        """Returns where each LR pixel lies in HR, relative to its centre-aligned position: (h, w, 2)."""
        grid = _grid(np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64))
        moved = grid @ self.matrix[:, :2].T + self.matrix[:, 2] - grid
        return np.asarray(moved if self.field is None else moved + self.field)

    def sources(self, height: int, width: int, scale: int) -> Floats:
        """Returns the position in HR, in HR pixels, of each pixel of the aligned HR: (s·h, s·w, 2)."""
        rows, columns = ((np.arange(scale * side) - (scale - 1) / 2) / scale for side in (height, width))
        grid = _grid(rows, columns)
        moved = grid @ self.matrix[:, :2].T + self.matrix[:, 2]
        if self.field is not None:
            smooth = self.field.astype(np.float32)
            moved += cv2.resize(smooth, (scale * width, scale * height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(scale * moved + (scale - 1) / 2)


def warped(hr: NDArray[np.float32], motion: Motion, scale: int) -> NDArray[np.float32]:
    """Resamples HR to the pixel grid of LR, by Lanczos interpolation with 8 x 8 values.

    Args:
        hr: HR image (s·h, s·w) or (s·h, s·w, C).
        motion: Where LR pixels lie in HR.
        scale: Factor s.

    Returns:
        The image of the same shape; outside of HR, its border is mirrored.
    """
    height, width = (side // scale for side in hr.shape[:2])
    at = motion.sources(height, width, scale).astype(np.float32)
    moved = cv2.remap(hr, at[..., 0], at[..., 1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.float32)


def has_data(motion: Motion, height: int, width: int, scale: int) -> NDArray[np.bool_]:
    """Returns which LR pixels (h, w) lie inside HR with all their HR pixels."""
    at = motion.sources(height, width, scale)
    rows, columns = scale * height, scale * width
    # An unmoved pixel at the border is not interpolated.
    moved = np.abs(at - Motion.identity().sources(height, width, scale)).max(axis=-1) > 1e-6
    right, down = at[..., 0], at[..., 1]
    inside = (right >= _MARGIN) & (right <= columns - 1 - _MARGIN) & (down >= _MARGIN) & (down <= rows - 1 - _MARGIN)
    return np.asarray((inside | ~moved).reshape(height, scale, width, scale).all(axis=(1, 3)))


def _grid(rows: Floats, columns: Floats) -> Floats:
    return np.stack(np.meshgrid(columns, rows), axis=-1)


def _square(matrix: Floats) -> Floats:
    return np.vstack([matrix, [0.0, 0.0, 1.0]])

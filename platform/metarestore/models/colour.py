"""BT.601 limited-range luma and chroma, the colour space in which super-resolution is evaluated.

Source: ITU-R BT.601; the same numbers as MATLAB's `rgb2ycbcr`, here for images in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

_TO_YCBCR = (
    torch.tensor([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], dtype=torch.float64)
    / 255.0
)
_OFFSET = torch.tensor([16.0, 128.0, 128.0], dtype=torch.float64) / 255.0
_TO_RGB = torch.linalg.inv(_TO_YCBCR)


def rgb_to_y(rgb: Tensor) -> Tensor:
    """Converts RGB (..., 3, H, W) in [0, 1] to luma (..., 1, H, W) in [16/255, 235/255]."""
    weights = _TO_YCBCR[0].to(rgb)
    y = (rgb * weights[:, None, None]).sum(dim=-3, keepdim=True)
    return y + _OFFSET[0].to(rgb)


def rgb_to_gray(rgb: Tensor) -> Tensor:
    """Converts RGB (..., 3, H, W) in [0, 1] to full-range luma (..., 1, H, W) in [0, 1]: white stays white."""
    weights = _TO_YCBCR[0].to(rgb)
    return (rgb * (weights / weights.sum())[:, None, None]).sum(dim=-3, keepdim=True).clamp(0, 1)


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """Converts RGB (..., 3, H, W) in [0, 1] to limited-range YCbCr of the same shape."""
    mixed = torch.einsum("ij,...jhw->...ihw", _TO_YCBCR.to(rgb), rgb)
    return mixed + _OFFSET.to(rgb)[:, None, None]


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """Inverts `rgb_to_ycbcr`; the result may leave [0, 1] for colours outside the RGB gamut."""
    return torch.einsum("ij,...jhw->...ihw", _TO_RGB.to(ycbcr), ycbcr - _OFFSET.to(ycbcr)[:, None, None])

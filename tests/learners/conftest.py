"""A network whose losses are polynomials."""

from __future__ import annotations

import pytest
import torch
from torch import nn


class Scalar(nn.Module):
    """Multiplies images by one weight: the squared error on ones is (w − 1)²."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * x


@pytest.fixture
def scalar() -> nn.Module:
    """The network that multiplies by one weight."""
    return Scalar()

"""Parameters as one flat vector, as exchanged between driver and workers and used by the outer optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a network's parameters, in a fixed order; P is their total number."""

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """Reads the layout of `module`."""
        return cls(tuple((name, tuple(p.shape)) for name, p in module.named_parameters()))

    @property
    def size(self) -> int:
        """P, the number of scalars."""
        return sum(math.prod(shape) for _, shape in self.entries)

    def flatten(self, params: Mapping[str, Tensor], batch: int = 0) -> Tensor:
        """Concatenates parameters to (P,), or to (..., P) if `batch` leading dimensions are kept."""
        pieces = [params[name] for name, _ in self.entries]
        return torch.cat([piece.reshape(*piece.shape[:batch], -1) for piece in pieces], dim=-1)

    def unflatten(self, flat: Tensor) -> Params:
        """Views a vector (P,) as named parameters."""
        if flat.shape != (self.size,):
            raise ValueError(f"expected {self.size} parameters, got a tensor of shape {tuple(flat.shape)}")
        pieces = torch.split(flat, [math.prod(shape) for _, shape in self.entries])
        return {name: piece.view(shape) for (name, shape), piece in zip(self.entries, pieces, strict=True)}


def initial_vector(module: nn.Module) -> Tensor:
    """Returns a detached copy of a network's parameters as one vector (P,)."""
    params = {name: p.detach() for name, p in module.named_parameters()}
    return Layout.of(module).flatten(params).clone()

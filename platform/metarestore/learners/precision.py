"""Mixed precision in bfloat16 under `vmap`, where PyTorch's autocast silently does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

_CAST = frozenset({torch.conv2d, torch.conv_transpose2d, F.linear, torch.matmul, torch.bmm, torch.prelu})
"""Functions computed in bfloat16, as in autocast; all others use the precision of their arguments."""


class Bfloat16(TorchFunctionMode):
    """A context manager that casts the arguments of convolutions, matrix products and PReLU to bfloat16.

    It intercepts the Python calls, above `vmap`; the casts are part of the graph, so gradients of float32 parameters
    are float32.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls a torch function, with its arguments cast if it is one of those."""
        given = (args, dict(kwargs or {}))
        args, kwargs = pytree.tree_map(_cast, given) if func in _CAST else given
        return func(*args, **kwargs)


def _cast(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and value.dtype == torch.float32 else value

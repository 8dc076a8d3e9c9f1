"""Captures a network as a program of PyTorch (`torch.export`) for images of any size, and compares results."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from metarestore.errors import UserError
from metarestore.models.exporting.graph import Graph

REFUSALS = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError, ArithmeticError)
"""What exporters raise on networks that they cannot capture."""
TOLERANCE = 1e-5
"""Greatest absolute difference of an exported network with 32-bit weights, for images in [0, 1]; see also below."""
_HALF_TOLERANCE = 0.1
"""The same with 16-bit weights: more than this is an overflow, not rounding."""
_OF_ROUNDING = 4.0
"""A network whose own rounding error is large, e.g. SPAN, may differ by this multiple of it."""
_MOST = 1e-3
"""Greatest difference that counts as rounding of 32-bit numbers."""


@dataclass(frozen=True)
class Agreement:
    """How exactly an exported network restores as the original.

    Attributes:
        error: Greatest absolute difference of a value, for images in [0, 1].
        sizes: Heights and widths of the images.
    """

    error: float
    sizes: tuple[tuple[int, int], ...]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses the warnings of exporters about their own implementation."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def captured(graph: Graph, *, proven: bool) -> ExportedProgram:
    """Captures a graph with free height and width.

    Args:
        graph: The graph.
        proven: Whether the capture must hold for every size, which the code of other projects does not allow: it
            branches on sizes, e.g. on whether padding is needed. The branches taken for an example are then kept, and
            `agreement` shows whether they hold for other sizes.

    Raises:
        UserError: The network cannot be captured.
    """
    height, width = Dim("height", min=graph.least), Dim("width", min=graph.least)
    example = torch.rand(1, 3, *_odd_size(graph.least), generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {} if proven else {"prefer_deferred_runtime_asserts_over_guards": True}
    try:
        with quiet():
            program = torch.export.export(
                graph, (example,), dynamic_shapes=({2: height, 3: width},), strict=False, **options
            )
    except REFUSALS as error:
        remedy = "restore with metarestore instead" if proven else "use --to spandrel, which needs no graph"
        remedy = f"leave --half out, or {remedy}" if graph.bits == 16 else remedy
        raise UserError(f"the network cannot be captured for images of any size ({reason(error)}); {remedy}") from error
    _strip(program)
    return program


def _odd_size(least: int) -> tuple[int, int]:
    """Returns the size of the example, which is no multiple of 2 or 3."""
    return (least // 6 + 6) * 6 + 1, (least // 6 + 7) * 6 + 5


def _strip(program: ExportedProgram) -> None:
    """Removes checks of the example's branches, and stack traces, which contain paths of this machine."""
    for node in list(program.graph.nodes):
        node.meta.pop("stack_trace", None)
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def torch_file(program: ExportedProgram) -> bytes:
    """Returns the content of a `.pt2` file, which `torch.export.load` opens."""
    content = io.BytesIO()
    with quiet():
        torch.export.save(program, content)
    return content.getvalue()


def torch_restore(content: bytes) -> Callable[[Tensor], Tensor]:
    """Opens the content of a `.pt2` file; returns its function of images (1, 3, h, w)."""
    with quiet():
        module: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(content)).module()
    return module


def agreement(expected: Graph, restore: Callable[[Tensor], Tensor], *, half: bool) -> Agreement:
    """Compares an exported network with the original on images of several sizes, the least among them.

    Args:
        expected: The original, with 32-bit weights.
        restore: The exported one, for RGB images (1, 3, h, w) in [0, 1].
        half: Whether its weights have 16 bits.

    Raises:
        UserError: They differ by more than the tolerance, or the exported network does not accept a size.
    """
    least, rng, error = expected.least, torch.Generator().manual_seed(1), 0.0
    sizes = ((least, least + 1), (least + 6, least + 3), (least + 13, 2 * least), (2 * least + 27, least + 32))
    for height, width in sizes:
        lr = torch.rand(1, 3, height, width, generator=rng)
        text = f"an image of {height}x{width} pixels"
        try:
            with quiet():
                original, exported = expected(lr.clone()), restore(lr)
        except REFUSALS as problem:
            raise UserError(
                f"the exported network fails on {text} ({reason(problem)}); restore with metarestore instead, or try "
                "another --to"
            ) from problem
        if original.shape != exported.shape:
            raise UserError(f"the exported network restores {text} to another size; try another --to")
        difference = float((original - exported).abs().max())
        tolerance = _HALF_TOLERANCE if half else TOLERANCE
        if not half and difference > tolerance:
            tolerance = min(max(tolerance, _OF_ROUNDING * _rounding(expected, lr, original)), _MOST)
        if not difference <= tolerance:  # true for NaN as well
            raise UserError(
                f"the exported network restores {text} differently, by {difference:.2g} (at most {tolerance:.2g}); "
                f"{'leave --half out' if half else 'restore with metarestore instead'}"
            )
        error = max(error, difference)
    return Agreement(error, sizes)


def _rounding(graph: Graph, lr: Tensor, restored: Tensor) -> float:
    """Returns the greatest rounding error of a restored image: its difference from that of 64-bit numbers."""
    try:
        with quiet():
            exact = deepcopy(graph).double()(lr.double())
    except REFUSALS:  # some architectures create constants of 32 bits
        return 0.0
    return float((exact - restored).abs().max())


def reason(error: BaseException) -> str:
    """Returns the first line of an exporter's message, shortened."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."

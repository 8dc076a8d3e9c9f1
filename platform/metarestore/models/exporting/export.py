"""Exports a trained network to a file of another format, checked, with a card beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from metarestore import __version__
from metarestore.errors import UserError
from metarestore.files import write_atomically
from metarestore.models.exporting.card import source_of, write_card
from metarestore.models.exporting.graph import Graph
from metarestore.models.exporting.onnx_file import OPSET, onnx_file, onnx_restore, require_onnx
from metarestore.models.exporting.program import Agreement, agreement, captured, torch_file, torch_restore
from metarestore.models.exporting.spandrel_file import spandrel_file, spandrel_restore, weights_by_name
from metarestore.models.network import Network

Format = Literal["onnx", "spandrel", "torch"]


@dataclass(frozen=True)
class Export:
    """What to export, and how.

    Attributes:
        source: File of the network.
        out: File to write.
        to: Format.
        embedding: D (1, C), into whose kernels a KDSR is folded.
        embedding_from: Where it was taken from, for the card.
        half: Whether weights have 16 bits.
    """

    source: Path
    out: Path
    to: Format
    embedding: Tensor | None = None
    embedding_from: str | None = None
    half: bool = False

    @property
    def card(self) -> Path:
        """The card of the file."""
        return self.out.with_name(f"{self.out.name}.json")


@dataclass(frozen=True)
class _Written:
    content: bytes
    agreement: Agreement
    weights: int


def export_network(network: Network, export: Export) -> Agreement:
    """Exports a network; a file is written only if it restores as the network does.

    Args:
        network: The network, in evaluation mode.
        export: What to export, and how.

    Returns:
        How exactly the file restores as the network.

    Raises:
        UserError: The network cannot be exported to this format, or a package is missing.
    """
    if export.to == "onnx":
        require_onnx()
    source = source_of(export.source)
    write: Callable[[Network, Export, str], _Written] = _weights if export.to == "spandrel" else _program
    try:
        written = write(network, export, str(source["name"]))
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith("--") else f"{export.source}: {text}") from error
    card = _card(network, export, written, source)
    write_atomically(export.out, written.content)
    write_card(export.card, card)
    return written.agreement


def _program(network: Network, export: Export, name: str) -> _Written:
    """Exports the graph from RGB to RGB."""
    if getattr(network, "square", False):
        raise UserError(f"the network ({network.foreign}) takes square images only; export it with --to spandrel")
    graph = Graph(network, export.embedding, half=export.half)
    program = captured(graph, proven=network.foreign is None)
    if export.to == "onnx":
        texts = {"name": name, "scale": str(network.scale), "range": "RGB in [0, 1]", "least_size": str(network.least)}
        content = onnx_file(program, network.scale, texts)
        restore = onnx_restore(content)
    else:
        content = torch_file(program)
        restore = torch_restore(content)
    expected = Graph(network, export.embedding) if export.half else graph
    return _Written(content, agreement(expected, restore, half=export.half), graph.weights)


def _weights(network: Network, export: Export, name: str) -> _Written:
    """Exports the weights alone."""
    del name
    if export.embedding is not None:
        raise UserError("--embedding: a file of weights has no place for it; use --to onnx or --to torch")
    tensors = weights_by_name(network, half=export.half)
    restore = spandrel_restore(export.source, tensors)
    return _Written(
        spandrel_file(tensors),
        agreement(Graph(network), restore, half=export.half),
        sum(value.numel() for value in tensors.values()),
    )


def _card(network: Network, export: Export, written: _Written, source: Mapping[str, Any]) -> dict[str, Any]:
    versions = {"metarestore": __version__, "torch": torch.__version__}
    if export.to == "onnx":
        versions["opset"] = str(OPSET)
    return {
        "name": source["name"],
        "architecture": network.foreign or type(network).__name__,
        "scale": network.scale,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "format": export.to,
        "stored_values": written.weights,
        "bits": 16 if export.half else 32,
        "images": _images(network, export.to),
        "least_size": network.least,
        "embedding": export.embedding_from,
        "sha256": hashlib.sha256(written.content).hexdigest(),
        "difference": {
            "greatest_absolute": written.agreement.error,
            "of_sizes": [f"{height}x{width}" for height, width in written.agreement.sizes],
        },
        **{key: value for key, value in source.items() if key != "name"},
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions,
    }


def _images(network: Network, to: Format) -> str:
    if to == "spandrel" and network.channels == "y":
        return "luma in [16/255, 235/255], 1 channel"
    return "RGB in [0, 1], float32, (1, 3, height, width)"

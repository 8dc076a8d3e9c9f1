"""ONNX files with free height and width, and their execution by ONNX Runtime."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from metarestore.errors import UserError
from metarestore.models.exporting.program import REFUSALS, quiet, reason

OPSET = 18
INPUT, OUTPUT = "lr", "hr"
INSTALL = "pip install 'metarestore[onnx]'"
_FATAL = 4
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Checks that the packages that write and run ONNX files are installed.

    Raises:
        UserError: One is missing.
    """
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"--to onnx: needs the package {name} ({error}); install it: {INSTALL}") from error


def onnx_file(program: ExportedProgram, scale: int, description: dict[str, str]) -> bytes:
    """Returns the content of an ONNX file: one input `lr` (1, 3, height, width) and one output `hr`.

    Args:
        program: The program, whose input and output are float32.
        scale: Upscaling factor.
        description: Metadata for the file, by key.

    Raises:
        UserError: An operation of the network has no ONNX form.
    """
    try:
        with quiet():
            exported = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
            )
    except REFUSALS as error:
        raise UserError(f"the network has no ONNX form ({reason(error)}); try --to torch") from error
    if exported is None:
        raise UserError("the network has no ONNX form; try --to torch")
    model: Any = exported.model_proto
    _name_sizes(model, scale)
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces, with paths of this machine
    for key, value in sorted(description.items()):
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def _name_sizes(model: Any, scale: int) -> None:
    """Names the free sizes of input and output; those of other values are left out, since runtimes infer them."""
    del model.graph.value_info[:]
    for value, factor in ((model.graph.input[0], 1), (model.graph.output[0], scale)):
        for dimension, name in zip(value.type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
            dimension.dim_param = name if factor == 1 else f"{factor}*{name}"


def onnx_restore(content: bytes) -> Callable[[Tensor], Tensor]:
    """Opens the content of an ONNX file on the CPU; returns its function of images (1, 3, h, w).

    Raises:
        UserError: ONNX Runtime does not accept the graph.
    """
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL  # errors are raised as well
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except _runtime_errors() as error:
        raise UserError(f"ONNX Runtime does not accept the graph ({reason(error)}); try --to torch") from error

    def restore(lr: Tensor) -> Tensor:
        try:
            (restored,) = session.run(None, {INPUT: np.ascontiguousarray(lr.numpy())})
        except _runtime_errors() as error:
            raise RuntimeError(reason(error)) from error
        return torch.from_numpy(restored)

    return restore


def _runtime_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions of ONNX Runtime, which have no common base class."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return tuple(one for one in vars(state).values() if isinstance(one, type) and issubclass(one, Exception))

"""Opens trained teachers, frozen, on the student's device, and initialises students from them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from metarestore.errors import UserError
from metarestore.models.checkpoint import load_model
from metarestore.models.network import Network
from metarestore.models.parameters import Layout


def open_teacher(path: Path, student: nn.Module, key: str = "learner.teacher") -> Network:
    """Opens a trained network with frozen parameters, on the device of its student.

    Args:
        path: The network, as for `load_model`.
        student: The network that learns from it.
        key: Key of the experiment that names it, for the message.

    Raises:
        UserError: The network is missing.
    """
    try:
        teacher = load_model(path)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    # Its convolutions are not vectorised, and up to twice as fast in this memory format on a CPU.
    teacher.requires_grad_(False).to(next(student.parameters()).device)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return teacher


def started_as_taught(teacher: Network, student: Layout, flat: Tensor) -> Tensor:
    """Replaces a student's initial parameters (P,) by those of its teacher where the teacher has them."""
    provided, own = teacher.for_student(), student.unflatten(flat)
    return student.flatten({name: provided[name].to(flat) if name in provided else own[name] for name in own})

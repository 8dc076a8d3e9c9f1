"""Trained teachers: opened, frozen, and on the student's device."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from metarestore.errors import UserError
from metarestore.models.checkpoint import load_model
from metarestore.models.network import Network
from metarestore.models.parameters import Layout


def open_teacher(path: Path, student: nn.Module, key: str = "learner.teacher") -> Network:
    """Opens a trained network that takes no gradients, on the device of its student.

    Args:
        path: The network, as for `load_model`.
        student: The network that learns from it.
        key: Key of the experiment that names it, for the message.

    Raises:
        UserError: There is no such network.
    """
    try:
        teacher = load_model(path)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    return teacher.requires_grad_(False).to(next(student.parameters()).device)


def started_as_taught(teacher: Network, student: Layout, flat: Tensor) -> Tensor:
    """Replaces those of a student's initial parameters (P,) that its teacher has for it."""
    taught, own = teacher.for_student(), student.unflatten(flat)
    return student.flatten({name: taught[name].to(flat) if name in taught else own[name] for name in own})

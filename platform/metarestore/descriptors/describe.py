"""Descriptors of photographs and of drawn tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.errors import UserError
from metarestore.models.kdsr import KDSR
from metarestore.models.network import Network
from metarestore.models.restore import to_image
from metarestore.tasks.distribution import OpenDistribution
from metarestore.tasks.images import ImageStore
from metarestore.tasks.photographs import read_image
from metarestore.tasks.spec import DistributionSpec
from metarestore.tasks.task import Episode, TaskDraw

Vector = NDArray[np.float64]
"""A descriptor D or a spread of descriptors, (C,)."""

Kind = Literal["images", "task"]

Progress = Callable[[str, int, int], None]
"""Called after each item with its name, the number done, and the total."""

_BATCH = 2**18
"""Maximum number of LR pixels of patches in one forward pass of the encoder."""


@dataclass(frozen=True, eq=False)
class Item:
    """A described unit: a photograph, or the patches of one drawn task.

    Attributes:
        name: Name of the photograph, or number of the draw.
        parameters: Drawn parameters of the task, as `operation.parameter`; empty for a photograph.
        photographs: Name of the photograph of each image.
        mean: Mean descriptor of its images, (C,).
        spread: Standard deviation over its images, (C,); None for a single one.
    """

    name: str
    parameters: Mapping[str, Any]
    photographs: tuple[str, ...]
    mean: Vector
    spread: Vector | None

    @property
    def count(self) -> int:
        """Number of its images."""
        return len(self.photographs)


@dataclass(frozen=True, eq=False)
class Description:
    """The descriptors of a group: a folder of photographs, or a task distribution.

    Attributes:
        name: Name of the group.
        kind: Whether a folder of images or a task distribution was described.
        items: Its photographs or drawn tasks, at least one.
    """

    name: str
    kind: Kind
    items: tuple[Item, ...]

    @property
    def mean(self) -> Vector:
        """Unweighted mean over the items, (C,), regardless of their numbers of images."""
        return np.asarray(np.mean([item.mean for item in self.items], axis=0))

    @property
    def spread(self) -> Vector | None:
        """Standard deviation over the items, (C,); None for a single one."""
        return _deviation(np.stack([item.mean for item in self.items]))

    @property
    def count(self) -> int:
        """Number of images of all items."""
        return sum(item.count for item in self.items)

    @property
    def relative_spread(self) -> float:
        """Norm of the spread divided by the norm of the mean; NaN for a single item, or for a mean of 0."""
        length = float(np.linalg.norm(self.mean))
        return float("nan") if self.spread is None or length == 0 else float(np.linalg.norm(self.spread)) / length


def require_describer(network: Network, *, sees_hr: bool) -> KDSR:
    """Checks that a network can compute descriptors, and returns it.

    Args:
        network: Any network.
        sees_hr: Whether HR images are available, which a teacher requires.

    Raises:
        UserError: It has no degradation encoder, or it is a teacher and there are no HR images.
    """
    if not isinstance(network, KDSR):
        raise UserError("the network has no degradation encoder; use a KDSR (model: {kind: kdsr})")
    if network.estimator is None:
        raise UserError("the network has no degradation encoder (estimator: none); use one with estimator: student")
    if network.privileged and not sees_hr:
        raise UserError(
            "the network is a teacher, which also requires the HR images; describe photographs with a student, "
            "or synthetic tasks with --task"
        )
    return network


def describe_images(
    network: Network,
    photographs: Mapping[str, Path],
    *,
    name: str = "images",
    kind: Kind = "images",
    crop: int | None = None,
    progress: Progress | None = None,
) -> Description:
    """Computes the descriptors of whole LR photographs.

    Args:
        network: A KDSR student.
        photographs: Files by name, at least one.
        name: Name of the group.
        kind: `task` if they are the LR images of a camera's pairs.
        crop: Use only the central `crop` by `crop` pixels: faster, but an approximation.
        progress: Called after each photograph.

    Raises:
        UserError: The network cannot describe photographs, or a file cannot be decoded.
    """
    describer = require_describer(network, sees_hr=False)
    items = []
    for done, (photograph, path) in enumerate(photographs.items(), start=1):
        lr = to_image(read_image(path).pixels).to(_device(describer))
        items.append(_item(photograph, {}, (photograph,), describer.describe_photograph(lr, crop)))
        if progress is not None:
            progress(photograph, done, len(photographs))
    return Description(name, kind, tuple(items))


def open_tasks(name: str, spec: DistributionSpec, images: ImageStore, patches: int, patch: int) -> OpenDistribution:
    """Opens a synthetic distribution for `describe_task`.

    Args:
        name: Its name.
        spec: Its task file, at the network's scale.
        images: Clean photographs.
        patches: Patches of each task.
        patch: Side of an HR patch, in pixels.

    Raises:
        UserError: It is a protocol or made of real pairs, or the patch does not fit the scale or the photographs.
    """
    if spec.cases or spec.own_images:
        raise UserError(f"'{name}' is of kind {spec.kind}, which draws no degradations; use a synthetic task")
    if patch % spec.scale or patch <= 0:
        least = max(spec.scale, patch - patch % spec.scale)
        raise UserError(f"--patch: {patch} is not a multiple of the scale {spec.scale}; write {least}")
    return spec.open(name, Episode(patches, 0, patch), lambda _: images)


def describe_task(
    network: Network,
    tasks: OpenDistribution,
    draws: int,
    *,
    seed: int = 0,
    crop: int | None = None,
    progress: Progress | None = None,
) -> Description:
    """Computes the descriptors of tasks 0 to `draws - 1` of a distribution, drawn as for training.

    Args:
        network: A KDSR with a degradation encoder; a teacher also receives the HR patches.
        tasks: The distribution, see `open_tasks`.
        draws: Number of tasks.
        seed: Seed of the draws.
        crop: Use only the central `crop` by `crop` pixels of each LR patch.
        progress: Called after each task.

    Raises:
        UserError: The network cannot describe tasks.
    """
    describer = require_describer(network, sees_hr=True)
    items = []
    for index in range(draws):
        draw = tasks.draw(seed, index)
        photographs = tuple(ref.image for ref in draw.support)
        items.append(_item(str(index), draw.parameters(), photographs, describe_draw(describer, tasks, draw, crop)))
        if progress is not None:
            progress(str(index), index + 1, draws)
    return Description(tasks.name, "task", tuple(items))


def describe_draw(network: KDSR, tasks: OpenDistribution, draw: TaskDraw, crop: int | None = None) -> Tensor:
    """Computes the descriptor of each support patch of a drawn task: (K, C).

    Args:
        network: A KDSR with a degradation encoder.
        tasks: The distribution of the draw.
        draw: The task.
        crop: As for `describe_task`.
    """
    device = _device(network)
    lr, hr = (side.to(device) for side in tasks.build_support(draw))
    size = max(_BATCH // (lr.shape[-2] * lr.shape[-1]), 1)
    with torch.no_grad():
        parts = [network.describe(lr[k : k + size], hr[k : k + size], crop) for k in range(0, len(lr), size)]
    return torch.cat(parts)


def cosines(descriptions: Sequence[Description]) -> NDArray[np.float64]:
    """Returns the cosine similarities between the means of N groups, (N, N); 0 for a mean of 0."""
    means = np.stack([description.mean for description in descriptions])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    directions = np.divide(means, lengths, out=np.zeros_like(means), where=lengths > 0)
    return np.asarray(np.clip(directions @ directions.T, -1, 1))


def _device(network: KDSR) -> torch.device:
    return next(network.parameters()).device


def _item(name: str, parameters: Mapping[str, Any], photographs: tuple[str, ...], descriptors: Tensor) -> Item:
    """Summarises the descriptors (K, C) of the images of an item."""
    values = descriptors.cpu().double().numpy()
    if not np.isfinite(values).all():
        raise UserError(f"the descriptor of '{name}' is not finite: the training diverged; use another network")
    return Item(name, parameters, photographs, values.mean(axis=0), _deviation(values))


def _deviation(rows: Vector) -> Vector | None:
    """Returns the standard deviation over rows (N, C), of a sample; None for a single row."""
    return None if len(rows) == 1 else np.asarray(rows.std(axis=0, ddof=1))

"""The file of descriptors: JSON with the network and the described items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt, ValidationError, model_validator
from torch import Tensor

import metarestore
from metarestore.config.base import Strict
from metarestore.console import command_line
from metarestore.descriptors.describe import Description, Item, Kind, require_describer
from metarestore.errors import UserError
from metarestore.files import write_atomically
from metarestore.models.checkpoint import network_hash
from metarestore.models.kdsr import KDSR, EncoderKind, SizeName
from metarestore.models.network import Network

Numbers = tuple[FiniteFloat, ...]


class DescribedBy(Strict):
    """The network that computed the descriptors."""

    path: str
    """A run's folder or a file of weights, as given."""
    hash: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """`network_hash` of its weights."""
    size: SizeName
    estimator: EncoderKind

    @classmethod
    def of(cls, path: Path, network: KDSR) -> DescribedBy:
        """Names a network that was read from `path`."""
        estimator: EncoderKind = "teacher" if network.privileged else "student" if network.estimator else "none"
        return cls(path=str(path), hash=network_hash(path), size=network.size, estimator=estimator)


class StoredItem(Strict):
    """A photograph, or one drawn task; see `metarestore.descriptors.describe.Item`."""

    name: str
    parameters: dict[str, Any]
    """Drawn parameters of the task; empty for a photograph."""
    photographs: tuple[str, ...] = Field(min_length=1)
    """The photograph of each image."""
    mean: Numbers
    """Mean descriptor of its images, one number per channel."""
    spread: Numbers | None
    """Standard deviation over its images; null for a single one."""
    count: PositiveInt
    """Number of images."""

    @model_validator(mode="after")
    def _counts_its_images(self) -> Self:
        if self.count != len(self.photographs):
            raise ValueError(f"count is {self.count}, but there are {len(self.photographs)} photographs")
        return self


class StoredGroup(Strict):
    """A folder of images or a task distribution."""

    name: str
    kind: Kind
    items: tuple[StoredItem, ...] = Field(min_length=1)


class Descriptors(Strict):
    """The whole file."""

    format: Literal["metarestore descriptors"] = "metarestore descriptors"
    version: Literal[1] = 1
    """Incremented whenever the meaning of a key changes."""
    model: DescribedBy
    channels: PositiveInt
    """Dimension C of a descriptor."""
    seed: NonNegativeInt
    """Seed of the draws of tasks."""
    groups: tuple[StoredGroup, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError("two groups have the same name")
        for group in self.groups:
            for item in group.items:
                sizes = {len(numbers) for numbers in (item.mean, item.spread) if numbers is not None}
                if sizes != {self.channels}:
                    raise ValueError(f"a descriptor of '{item.name}' in '{group.name}' has not {self.channels} numbers")
        return self

    @classmethod
    def of(cls, model: DescribedBy, seed: int, descriptions: Sequence[Description]) -> Descriptors:
        """Creates the content of a file.

        Args:
            model: The network that computed the descriptors.
            seed: Seed of the draws.
            descriptions: Groups of different names, at least one.
        """
        groups = tuple(
            StoredGroup(name=one.name, kind=one.kind, items=tuple(map(_stored, one.items))) for one in descriptions
        )
        return cls(model=model, channels=len(descriptions[0].mean), seed=seed, groups=groups)

    def descriptions(self) -> tuple[Description, ...]:
        """Returns the groups as they were described."""
        return tuple(Description(group.name, group.kind, tuple(map(_read, group.items))) for group in self.groups)

    def embedding(self, group: str | None = None) -> Tensor:
        """Returns the mean descriptor of a group, (1, C), as an embedding for restoration.

        Args:
            group: Name of the group; optional if there is only one.

        Raises:
            UserError: There is no such group, or there are several and none is given.
        """
        groups = {one.name: one for one in self.descriptions()}
        known = ", ".join(groups)
        if group is None and len(groups) > 1:
            raise UserError(f"holds several groups; say which one, as FILE:GROUP, of {known}")
        if group is not None and group not in groups:
            raise UserError(f"holds no group '{group}'; name one of {known}")
        chosen = groups[group] if group is not None else next(iter(groups.values()))
        return torch.from_numpy(chosen.mean).to(torch.float32)[None]


def write_descriptors(path: Path, content: Descriptors) -> None:
    """Writes a file of descriptors atomically; numbers are written exactly.

    Raises:
        UserError: It cannot be written.
    """
    text = json.dumps(content.model_dump(mode="json"), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_descriptors(path: Path) -> Descriptors:
    """Reads a file of descriptors.

    Raises:
        UserError: The file is missing, or was not written by `metarestore describe`.
    """
    remedy = "name a file that `metarestore describe` wrote"
    try:
        return Descriptors.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON; {remedy}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = "".join(f"{part}: " for part in [".".join(map(str, first["loc"]))] if part)
        doubt = f"was it written by another version of metarestore than {metarestore.__version__}?"
        raise UserError(f"{path}: {key}{first['msg']}; {doubt}") from error


def chosen_embedding(given: str, model: Path, network: Network) -> Tensor:
    """Returns the embedding (1, C) that an option `--embedding FILE` or `--embedding FILE:GROUP` asks for.

    Args:
        given: The option's value.
        model: The network that is to restore with it: a run's folder or a file of weights.
        network: The same, as it was read.

    Raises:
        UserError: The network has no estimator, the file is wrong or lacks the group, or another network described.
    """
    require_describer(network, sees_hr=True)
    path, group = _file_and_group(given)
    descriptors = read_descriptors(path)
    if descriptors.model.hash != network_hash(model):
        raise UserError(
            f"--embedding: {path} was made by another network, {descriptors.model.path}; "
            f"describe with this one: {command_line('metarestore', 'describe', '--model', model)}"
        )
    try:
        return descriptors.embedding(group)
    except UserError as error:
        raise UserError(f"--embedding: {path} {error}") from error


def describing_network(given: str) -> str:
    """Returns the hash of the network that made the file of an option `--embedding FILE[:GROUP]`.

    Raises:
        UserError: The file is missing or wrong.
    """
    return read_descriptors(_file_and_group(given)[0]).model.hash


def _file_and_group(given: str) -> tuple[Path, str | None]:
    """Splits `FILE:GROUP` where a file ends; the names of files and of groups may have colons in them."""
    if Path(given).is_file():
        return Path(given), None
    ends = [at for at, sign in enumerate(given) if sign == ":" and Path(given[:at]).is_file()]
    return (Path(given[: ends[0]]), given[ends[0] + 1 :]) if ends else (Path(given), None)


def _stored(item: Item) -> StoredItem:
    return StoredItem(
        name=item.name,
        parameters=dict(item.parameters),
        photographs=item.photographs,
        mean=tuple(item.mean.tolist()),
        spread=None if item.spread is None else tuple(item.spread.tolist()),
        count=item.count,
    )


def _read(item: StoredItem) -> Item:
    spread = None if item.spread is None else np.asarray(item.spread)
    return Item(item.name, item.parameters, item.photographs, np.asarray(item.mean), spread)

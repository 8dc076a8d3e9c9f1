"""Declares what each key of an experiment affects, as metadata of its field.

    steps: Annotated[int, Affects.TRAINING] = Field(2000, ge=0)

A declaration applies to everything inside the field; nested fields may declare more.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Flag, auto
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from metarestore.config.registry import Registered

Model = TypeVar("Model", bound=BaseModel)


class Affects(Flag):
    """What changes with the value of a key. When in doubt, declare TRAINING."""

    NOTHING = 0
    """No result, e.g. where and with how many workers it is computed, or what is kept."""
    TRAINING = auto()
    """The training, and therefore all results."""
    RELATIONS = auto()
    """The estimated relations, and the training only through them."""
    MEASUREMENT = auto()
    """The measurements of the trained network, but not the training."""
    COMPARISON = auto()
    """Whether results are comparable: they are measured in the same way only if these keys are equal."""
    SHOTS = auto()
    """Which shots are available for adaptation and comparison."""
    OPENING = auto()
    """Which task files and photographs are opened, and whether sizes are valid for them."""
    BUILDING = auto()
    """Whether the network and the learner can be built."""
    COMPARE = auto()
    """What `metarestore compare` runs."""
    TUNE = auto()
    """What `metarestore tune` runs."""
    ABLATE = auto()
    """What `metarestore ablate` runs."""

    @classmethod
    def of(cls, field: FieldInfo) -> Affects | None:
        """Returns the declaration of a field, or None if there is none."""
        return next((entry for entry in field.metadata if isinstance(entry, cls)), None)


TRAINED = Affects.TRAINING | Affects.RELATIONS
"""Everything that a trained network depends on."""
MEASURED = TRAINED | Affects.MEASUREMENT
"""Everything that the result of a single experiment depends on."""
SEVERAL = Affects.COMPARE | Affects.TUNE | Affects.ABLATE
"""Sections that describe several experiments (arms, search, grid); a single experiment has none of them."""


def sections(field: FieldInfo) -> tuple[type[BaseModel], ...]:
    """Returns the models that a field accepts; empty for a plain value, a list or a mapping."""
    registered = [entry.registry for entry in field.metadata if isinstance(entry, Registered)]
    return tuple(registered[0].values() if registered else _models(field.annotation))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) not in (list, tuple, dict):
        for part in get_args(annotation):
            yield from _models(part)


def _fields(models: tuple[type[BaseModel], ...]) -> Iterator[tuple[str, FieldInfo]]:
    for model in models:
        yield from model.model_fields.items()


@cache
def keys(model: type[BaseModel], affecting: Affects) -> tuple[str, ...]:
    """Returns the outermost keys that affect any of `affecting`, e.g. `("data", "training.steps")`."""
    return tuple(dict.fromkeys(_keys((model,), affecting, "")))


def _keys(models: tuple[type[BaseModel], ...], affecting: Affects, above: str) -> Iterator[str]:
    for name, field in _fields(models):
        if (Affects.of(field) or Affects.NOTHING) & affecting:
            yield f"{above}{name}"
        else:
            yield from _keys(sections(field), affecting, f"{above}{name}.")


Excluded = dict[str, Any]
"""The `exclude` argument of pydantic's `model_dump`: True for a key, or a nested mapping for a section."""


@cache
def unaffecting(model: type[BaseModel], of: Affects) -> Excluded:
    """Returns the keys that affect none of `of`, as the `exclude` argument of `model_dump`."""
    return _unaffecting((model,), of)


def _unaffecting(models: tuple[type[BaseModel], ...], of: Affects) -> Excluded:
    excluded: Excluded = {}
    for name, field in _fields(models):
        if (Affects.of(field) or Affects.NOTHING) & of:
            continue
        inner = sections(field)
        if not any(_keys(inner, of, "")):
            excluded[name] = True
        elif rest := _unaffecting(inner, of):
            excluded[name] = rest
    return excluded


@cache
def without_result(model: type[BaseModel]) -> tuple[str, ...]:
    """Returns the outermost keys that affect no result of any command."""
    return tuple(_paths(unaffecting(model, MEASURED | SEVERAL), ""))


def _paths(excluded: Excluded, above: str) -> Iterator[str]:
    for name, rest in excluded.items():
        if rest is True:
            yield f"{above}{name}"
        else:
            yield from _paths(rest, f"{above}{name}.")


def neutral(value: Model, of: Affects) -> Model:
    """Returns a copy of a model in which every key that affects none of `of` is reset to its default."""
    changes: dict[str, Any] = {}
    for name, rest in unaffecting(type(value), of).items():
        field, now = type(value).model_fields[name], getattr(value, name)
        if rest is True:
            changes[name] = field.get_default(call_default_factory=True)
        elif isinstance(now, BaseModel):
            changes[name] = neutral(now, of)
    return value.model_copy(update=changes)

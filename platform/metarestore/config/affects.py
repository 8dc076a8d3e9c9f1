"""What a key of an experiment affects: declared at the field itself, and asked for by whoever has to know.

    steps: Annotated[int, Affects.TRAINING] = Field(2000, ge=0)

What a field declares holds for all that is inside it, which may declare more.
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
    """What changes with the value of a key. In doubt a key affects the training."""

    NOTHING = 0
    """No result: where and with how many workers it is computed, what is kept."""
    TRAINING = auto()
    """What is trained, and so all results."""
    RELATIONS = auto()
    """The estimated relations, and what is trained only through them."""
    MEASUREMENT = auto()
    """What is measured with the trained network; what affects the training does so, too."""
    COMPARISON = auto()
    """Whether results can be compared: only where this is the same are all measured alike."""
    SHOTS = auto()
    """Which shots there are to adapt to and to compare by."""
    OPENING = auto()
    """Which task files and photographs are opened, and whether sizes fit them."""
    BUILDING = auto()
    """Whether network and learner can be built."""
    COMPARE = auto()
    """What `metarestore compare` runs."""
    TUNE = auto()
    """What `metarestore tune` runs."""
    ABLATE = auto()
    """What `metarestore ablate` runs."""

    @classmethod
    def of(cls, field: FieldInfo) -> Affects | None:
        """Returns what a field declares, or None if it declares nothing."""
        return next((entry for entry in field.metadata if isinstance(entry, cls)), None)


TRAINED = Affects.TRAINING | Affects.RELATIONS
"""What a trained network depends on."""
MEASURED = TRAINED | Affects.MEASUREMENT
"""What the result of a single experiment depends on."""
SEVERAL = Affects.COMPARE | Affects.TUNE | Affects.ABLATE
"""What speaks of several experiments; a single one has none of it."""


def sections(field: FieldInfo) -> tuple[type[BaseModel], ...]:
    """Returns the models that a field's value may be; none for a plain value, a list or a mapping."""
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
    """Lists the keys that affect any of this, the outermost of each, e.g. `("data", "training.steps")`."""
    return tuple(dict.fromkeys(_keys((model,), affecting, "")))


def _keys(models: tuple[type[BaseModel], ...], affecting: Affects, above: str) -> Iterator[str]:
    for name, field in _fields(models):
        if (Affects.of(field) or Affects.NOTHING) & affecting:
            yield f"{above}{name}"
        else:
            yield from _keys(sections(field), affecting, f"{above}{name}.")


Excluded = dict[str, Any]
"""What pydantic's `model_dump` leaves out: for each key True, or the same of its section."""


@cache
def unaffecting(model: type[BaseModel], of: Affects) -> Excluded:
    """Returns the keys that affect none of this, as what `model_dump` takes as `exclude`."""
    return _unaffecting((model,), of)


def _unaffecting(models: tuple[type[BaseModel], ...], of: Affects) -> Excluded:
    found: Excluded = {}
    for name, field in _fields(models):
        if (Affects.of(field) or Affects.NOTHING) & of:
            continue
        inner = sections(field)
        if not any(_keys(inner, of, "")):
            found[name] = True
        elif rest := _unaffecting(inner, of):
            found[name] = rest
    return found


@cache
def without_result(model: type[BaseModel]) -> tuple[str, ...]:
    """Lists the keys that affect no result of any command, the outermost of each."""
    return tuple(_paths(unaffecting(model, MEASURED | SEVERAL), ""))


def _paths(excluded: Excluded, above: str) -> Iterator[str]:
    for name, rest in excluded.items():
        if rest is True:
            yield f"{above}{name}"
        else:
            yield from _paths(rest, f"{above}{name}.")


def neutral(value: Model, of: Affects) -> Model:
    """Returns a model with every key at its default that affects none of this."""
    changes: dict[str, Any] = {}
    for name, rest in unaffecting(type(value), of).items():
        field, now = type(value).model_fields[name], getattr(value, name)
        if rest is True:
            changes[name] = field.get_default(call_default_factory=True)
        elif isinstance(now, BaseModel):
            changes[name] = neutral(now, of)
    return value.model_copy(update=changes)

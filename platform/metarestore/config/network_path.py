"""Finds and replaces the paths to trained networks in an experiment, which are marked by their type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel

from metarestore.config.keypath import format_path


class _OfNetwork:
    """Marks a path as that of a trained network."""


_Model = TypeVar("_Model", bound=BaseModel)
_MARK = _OfNetwork()

NetworkPath = Annotated[Path, _MARK]
"""A trained network: a run's folder, its weights, or the name of a shipped network."""


def network_paths(model: BaseModel) -> dict[str, Path]:
    """Returns the paths of all networks in a configuration, by key."""
    return {format_path(at): path for at, path in _paths(model, ())}


def with_network_paths(model: _Model, replace: Callable[[str, Path], Path]) -> _Model:
    """Replaces the paths of all networks in a configuration.

    Args:
        model: The configuration, or a part of it.
        replace: Returns the new path, given the key and the path.
    """
    replaced: _Model = _replaced(model, (), replace)
    return replaced


def _paths(value: object, at: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Path]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            inner = getattr(value, name)
            if isinstance(inner, Path) and _is_network(value, name):
                yield (*at, name), inner
            else:
                yield from _paths(inner, (*at, name))
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            yield from _paths(entry, (*at, index))


def _replaced(value: Any, at: tuple[str | int, ...], replace: Callable[[str, Path], Path]) -> Any:
    if isinstance(value, tuple):
        return tuple(_replaced(entry, (*at, index), replace) for index, entry in enumerate(value))
    if not isinstance(value, BaseModel):
        return value
    update = {}
    for name in type(value).model_fields:
        inner, key = getattr(value, name), (*at, name)
        if isinstance(inner, Path) and _is_network(value, name):
            update[name] = replace(format_path(key), inner)
        elif (new := _replaced(inner, key, replace)) is not inner and new != inner:
            update[name] = new
    return value.model_copy(update=update) if update else value


def _is_network(model: BaseModel, name: str) -> bool:
    field = type(model).model_fields[name]
    return _MARK in field.metadata or any(_MARK in get_args(option) for option in get_args(field.annotation))

"""The search space of a tuning run: random draws, grids, and applying a draw to the experiment.

A draw is plain data: a mapping from key path to number; for a choice, the number is an index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from metarestore.config.experiment import MANY, Experiment
from metarestore.config.keypath import KeyPath, split_path
from metarestore.config.overrides import Override, apply_overrides
from metarestore.config.search import ParameterSpec, SearchParameter, as_parameter
from metarestore.config.shape import child
from metarestore.seeds import generator

Draw = dict[str, float]
Pick = Callable[[str, ParameterSpec], float]


class Space:
    """The `search:` block of a validated experiment.

    Args:
        search: Key paths to parameters.
    """

    def __init__(self, search: Mapping[str, SearchParameter]) -> None:
        written = {key: as_parameter(parameter) for key, parameter in search.items()}
        self.parameters = {key: written[key] for key in ordered(written)}

    def walk(self, pick: Pick) -> Draw:
        """Builds a draw by calling `pick` for every parameter that exists, in the order of their dependencies."""
        draw: Draw = {}
        for key, parameter in self.parameters.items():
            if self.exists(parameter, draw):
                draw[key] = pick(key, parameter)
        return draw

    def exists(self, parameter: ParameterSpec, draw: Draw) -> bool:
        """Returns whether a parameter exists, given the values drawn so far."""
        return all(self._holds(key, wanted, draw) for key, wanted in parameter.when.items())

    def random(self, rng: np.random.Generator) -> Draw:
        """Draws every parameter at random."""
        return self.walk(lambda _, parameter: random_value(parameter, rng))

    def grid(self, points: int) -> Iterator[Draw]:
        """Yields every combination of choices and of `points` values of each range."""
        values = {key: grid_values(parameter, points) for key, parameter in self.parameters.items()}

        def rows(keys: Sequence[str], row: Draw) -> Iterator[Draw]:
            if not keys:
                yield row
            elif self.exists(self.parameters[keys[0]], row):
                for value in values[keys[0]]:
                    yield from rows(keys[1:], {**row, keys[0]: value})
            else:
                yield from rows(keys[1:], row)

        return rows(list(self.parameters), {})

    def values(self, draw: Mapping[str, float]) -> dict[str, Any]:
        """Returns the values of a draw, by key path of the configuration."""
        return {key: value_of(self.parameters[key], number) for key, number in draw.items()}

    def data(self, experiment: Experiment, draw: Mapping[str, float]) -> dict[str, Any]:
        """Returns the experiment with a draw applied as plain data, without arms and search."""
        base = experiment.model_dump(mode="json", by_alias=True, exclude=set(MANY), exclude_unset=True)
        overrides = [Override(path_of(key), value, key) for key, value in self.values(draw).items()]
        # An override inside another value must be applied after it.
        return apply_overrides(base, sorted(overrides, key=lambda override: len(override.path)))

    def experiment(self, experiment: Experiment, draw: Mapping[str, float]) -> Experiment:
        """Returns the experiment with a draw applied, without arms and search."""
        return Experiment.model_validate(self.data(experiment, draw))

    def _holds(self, key: str, wanted: Any, draw: Draw) -> bool:
        decider = decided_by(key, self.parameters)
        if decider is None or decider not in draw:
            return False
        return fits(inside(value_of(self.parameters[decider], draw[decider]), decider, key), wanted)


def draws(experiment: Experiment) -> list[Draw] | None:
    """Returns the initial draw of every trial, or None if the searcher depends on results."""
    tuning, space = experiment.tuning, Space(experiment.search)
    if tuning.searcher == "optuna":
        return None
    if tuning.searcher == "grid":
        return list(islice(space.grid(tuning.grid_points), tuning.trials))
    return [space.random(generator(tuning.seed, "trial", index)) for index in range(tuning.trials)]


def ordered(parameters: Mapping[str, ParameterSpec]) -> list[str]:
    """Returns the keys in the order of their `when` conditions; keys with circular conditions are omitted."""
    placed: list[str] = []
    waiting = list(parameters)
    while ready := [key for key in waiting if not (deciders(parameters[key], parameters) - set(placed))]:
        placed += ready
        waiting = [key for key in waiting if key not in ready]
    return placed


def deciders(parameter: ParameterSpec, parameters: Mapping[str, ParameterSpec]) -> set[str]:
    """Returns the parameters on which the existence of one depends."""
    return {decider for key in parameter.when if (decider := decided_by(key, parameters)) is not None}


def decided_by(key: str, parameters: Mapping[str, ParameterSpec]) -> str | None:
    """Returns the parameter that sets `key`: the one of this name, or one for an enclosing mapping."""
    around = [name for name in parameters if lies_in(key, name)]
    return max(around, key=lambda name: len(path_of(name)), default=None)


def lies_in(key: str, outer: str) -> bool:
    """Returns whether a key path is `outer` or lies inside it; False if `outer` is not a key path."""
    path, around = path_of(key), path_of(outer)
    return bool(around) and path[: len(around)] == around


def inside(value: Any, outer: str, key: str) -> Any:
    """Returns the entry `key` of the value of `outer`."""
    for part in path_of(key)[len(path_of(outer)) :]:
        value = child(value, part)
    return value


def fits(value: Any, wanted: Any) -> bool:
    """Returns whether a value is the wanted one, or one of a list."""
    return value in wanted if isinstance(wanted, list) else value == wanted


def path_of(key: str) -> KeyPath:
    """Splits a key path into parts; empty if it is not a key path."""
    path, rest = split_path(key.strip())
    return () if rest.strip() else path


def value_of(parameter: ParameterSpec, number: float) -> Any:
    """Converts a number of a draw to the value of the parameter."""
    if parameter.choice is not None:
        return parameter.choice[int(number)]
    return int(number) if parameter.whole is not None else float(number)


def random_value(parameter: ParameterSpec, rng: np.random.Generator) -> float:
    """Draws one number; for a choice, an index."""
    if parameter.choice is not None:
        return int(rng.integers(len(parameter.choice)))
    low, high = parameter.ends
    if parameter.whole is not None:
        return int(rng.integers(int(low), int(high) + 1))
    if parameter.log_uniform is not None:
        return float(np.clip(math.exp(rng.uniform(math.log(low), math.log(high))), low, high))
    return float(rng.uniform(low, high))


def grid_values(parameter: ParameterSpec, points: int) -> Sequence[float]:
    """Returns all choices, or `points` values of a range, evenly spaced on its linear or logarithmic scale."""
    if parameter.choice is not None:
        return range(len(parameter.choice))
    low, high = parameter.ends
    if parameter.whole is not None:
        inner = (round(value) for value in np.linspace(low, high, points).tolist()[1:-1])
        return list(dict.fromkeys((int(low), *inner, int(high))))
    space = np.geomspace if parameter.log_uniform is not None else np.linspace
    # Exact ends: rounding must not leave the validated range.
    return [float(low), *space(low, high, points).tolist()[1:-1], float(high)]


def trial_values(parameter: ParameterSpec) -> Iterator[float]:
    """Yields the values to validate: all choices, or both ends and a fractional value in between."""
    if parameter.choice is not None:
        yield from range(len(parameter.choice))
        return
    low, high = parameter.ends
    yield from (low, high)
    if parameter.whole is None:
        # If only integers are valid, two integer ends would not reveal that.
        yield float(f"{low + (high - low) * 0.382:.4g}")

"""The space of a parameter study: drawing from it, laying a grid over it, and putting a draw into the experiment.

A draw is plain data: key path to number; of a choice, the index of what is chosen, since values may be anything.
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
    """The `search:` block of a checked experiment.

    Args:
        search: Key paths to parameters.
    """

    def __init__(self, search: Mapping[str, SearchParameter]) -> None:
        written = {key: as_parameter(parameter) for key, parameter in search.items()}
        self.parameters = {key: written[key] for key in ordered(written)}

    def walk(self, pick: Pick) -> Draw:
        """Builds a draw: `pick` is asked for every parameter that exists, those that others depend on first."""
        draw: Draw = {}
        for key, parameter in self.parameters.items():
            if self.exists(parameter, draw):
                draw[key] = pick(key, parameter)
        return draw

    def exists(self, parameter: ParameterSpec, draw: Draw) -> bool:
        """Tells whether a parameter exists beside what is drawn already."""
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
        """Returns what a draw stands for: key path to value of the configuration."""
        return {key: value_of(self.parameters[key], number) for key, number in draw.items()}

    def data(self, experiment: Experiment, draw: Mapping[str, float]) -> dict[str, Any]:
        """Returns the experiment as plain data, with a draw in its place and without arms and search."""
        base = experiment.model_dump(mode="json", by_alias=True, exclude=set(MANY), exclude_unset=True)
        overrides = [Override(path_of(key), value, key) for key, value in self.values(draw).items()]
        # What is set inside another choice must come after it.
        return apply_overrides(base, sorted(overrides, key=lambda override: len(override.path)))

    def experiment(self, experiment: Experiment, draw: Mapping[str, float]) -> Experiment:
        """Returns the experiment with a draw in its place and without arms and search."""
        return Experiment.model_validate(self.data(experiment, draw))

    def _holds(self, key: str, wanted: Any, draw: Draw) -> bool:
        decider = decided_by(key, self.parameters)
        if decider is None or decider not in draw:
            return False
        return fits(inside(value_of(self.parameters[decider], draw[decider]), decider, key), wanted)


def draws(experiment: Experiment) -> list[Draw] | None:
    """Returns what every trial starts with, or None where a searcher decides as it goes."""
    tuning, space = experiment.tuning, Space(experiment.search)
    if tuning.searcher == "optuna":
        return None
    if tuning.searcher == "grid":
        return list(islice(space.grid(tuning.grid_points), tuning.trials))
    return [space.random(generator(tuning.seed, "trial", index)) for index in range(tuning.trials)]


def ordered(parameters: Mapping[str, ParameterSpec]) -> list[str]:
    """Returns the keys so that each comes after those that its `when` names; keys of a circle are left out."""
    placed: list[str] = []
    waiting = list(parameters)
    while ready := [key for key in waiting if not (deciders(parameters[key], parameters) - set(placed))]:
        placed += ready
        waiting = [key for key in waiting if key not in ready]
    return placed


def deciders(parameter: ParameterSpec, parameters: Mapping[str, ParameterSpec]) -> set[str]:
    """Returns the parameters that decide whether one exists."""
    return {found for key in parameter.when if (found := decided_by(key, parameters)) is not None}


def decided_by(key: str, parameters: Mapping[str, ParameterSpec]) -> str | None:
    """Returns the choice that sets `key`: of this name, or of a mapping around it."""
    around = [name for name in parameters if lies_in(key, name)]
    return max(around, key=lambda name: len(path_of(name)), default=None)


def lies_in(key: str, outer: str) -> bool:
    """Tells whether a key path is `outer` or leads to something inside it; what is no key path holds nothing."""
    path, around = path_of(key), path_of(outer)
    return bool(around) and path[: len(around)] == around


def inside(value: Any, outer: str, key: str) -> Any:
    """Returns the entry `key` of what was chosen for `outer`."""
    for part in path_of(key)[len(path_of(outer)) :]:
        value = child(value, part)
    return value


def fits(value: Any, wanted: Any) -> bool:
    """Tells whether a value is the wanted one, or one of a list."""
    return value in wanted if isinstance(wanted, list) else value == wanted


def path_of(key: str) -> KeyPath:
    """Returns a key path as its parts; empty if it is none."""
    path, rest = split_path(key.strip())
    return () if rest.strip() else path


def value_of(parameter: ParameterSpec, number: float) -> Any:
    """Returns the value that a number of a draw stands for."""
    if parameter.choice is not None:
        return parameter.choice[int(number)]
    return int(number) if parameter.whole is not None else float(number)


def random_value(parameter: ParameterSpec, rng: np.random.Generator) -> float:
    """Draws one number; of a choice, an index."""
    if parameter.choice is not None:
        return int(rng.integers(len(parameter.choice)))
    low, high = parameter.ends
    if parameter.whole is not None:
        return int(rng.integers(int(low), int(high) + 1))
    if parameter.log_uniform is not None:
        return float(np.clip(math.exp(rng.uniform(math.log(low), math.log(high))), low, high))
    return float(rng.uniform(low, high))


def grid_values(parameter: ParameterSpec, points: int) -> Sequence[float]:
    """Lists all choices, or `points` values of a range, evenly spaced as it is drawn."""
    if parameter.choice is not None:
        return range(len(parameter.choice))
    low, high = parameter.ends
    if parameter.whole is not None:
        inner = (round(value) for value in np.linspace(low, high, points).tolist()[1:-1])
        return list(dict.fromkeys((int(low), *inner, int(high))))
    space = np.geomspace if parameter.log_uniform is not None else np.linspace
    # The ends exactly: rounding must not lead out of what was checked.
    return [float(low), *space(low, high, points).tolist()[1:-1], float(high)]


def trial_values(parameter: ParameterSpec) -> Iterator[float]:
    """Lists the values that must give a valid experiment: all choices, both ends, and a fraction in between."""
    if parameter.choice is not None:
        yield from range(len(parameter.choice))
        return
    low, high = parameter.ends
    yield from (low, high)
    if parameter.whole is None:
        # Both ends may happen to be whole where only whole numbers are right.
        yield float(f"{low + (high - low) * 0.382:.4g}")

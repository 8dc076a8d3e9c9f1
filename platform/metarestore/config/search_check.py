"""Checks the search space of an experiment before anything starts; problems are located in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice

from pydantic import TypeAdapter, ValidationError

from metarestore.config.affects import Affects, keys, without_result
from metarestore.config.document import Document
from metarestore.config.estimators import TransferEstimatorSpec, estimate_behind
from metarestore.config.experiment import MANY, Experiment
from metarestore.config.keypath import KeyPath, format_path
from metarestore.config.problems import Problem, problems_of
from metarestore.config.search import ParameterSpec, as_parameter
from metarestore.config.search_space import (
    Draw,
    Space,
    decided_by,
    draws,
    fits,
    inside,
    lies_in,
    path_of,
    trial_values,
)
from metarestore.config.shape import Shape
from metarestore.config.suggest import did_you_mean
from metarestore.config.wording import shown
from metarestore.errors import UserError

_MEASURE = "all trials must be measured in the same way, so it cannot be searched"
_STEPS = "{} compares trials at equal steps of equally long trainings; to search it, write scheduler: none"
_PBT = "pbt changes values during a training, which is not possible here; use scheduler: asha or none"
_PBT_FIXED = ("model", "training.optimizer.kind", "training.optimizer.schedule", "learner.kind", "graph.auxiliary")


@dataclass(frozen=True)
class _Finding:
    """A problem of a draw.

    Attributes:
        problem: The problem.
        elsewhere: Whether other parameters are involved.
    """

    problem: Problem
    elsewhere: bool = False


def check_search(document: Document, experiment: Experiment) -> None:
    """Checks that every value of the search space gives a valid experiment, and that trials are comparable.

    Raises:
        UserError: One line per problem, with its position.
    """
    if not experiment.search:
        return
    space = Space(experiment.search)
    structure, settings = list(_structure(experiment, space)), list(_settings(experiment, space))
    # A value that comes from an override is not a problem of the file, and is valid for commands that do not tune.
    written = document.data.get("training") or {}
    settings += [problem for problem in shots_not_held_out(experiment) if problem.path[-1] in written]
    tried = [] if structure else list(_candidates(experiment, space))
    # A draw of all parameters may show problems that single values do not.
    tried = tried if structure or settings or tried else list(_draws(experiment, space))
    # One line per position: a range with two invalid ends is reported once, and problems that do not depend on other
    # parameters are preferred.
    tried.sort(key=lambda finding: finding.elsewhere)
    problems = [*structure, *settings, *(finding.problem for finding in tried)]
    if problems:
        first = {one.at: one for one in reversed(problems)}.values()
        raise UserError([line for _, line in sorted(document.message(problem) for problem in first)])


def candidates(space: Space) -> Iterator[tuple[str, Draw]]:
    """Yields (key, draw) pairs that together cover both ends of every range and every choice."""
    for key, parameter in space.parameters.items():
        forced = _forced(space, key)
        for value in trial_values(parameter):
            picked = {**forced, key: value}
            yield key, space.walk(lambda name, other, picked=picked: picked.get(name, next(trial_values(other))))  # type: ignore[misc]


def _forced(space: Space, key: str) -> Draw:
    """Returns choices for which a parameter exists."""
    forced: Draw = {}
    for name, wanted in space.parameters[key].when.items():
        decider = decided_by(name, space.parameters)
        assert decider is not None
        choices = space.parameters[decider].choice or ()
        index = next(i for i, value in enumerate(choices) if fits(inside(value, decider, name), wanted))
        forced |= {**_forced(space, decider), decider: index}
    return forced


def _structure(experiment: Experiment, space: Space) -> Iterator[Problem]:
    """Finds keys that cannot be searched, and invalid conditions."""
    parameters = space.parameters
    for key in experiment.search:
        at = ("search", key)
        path = path_of(key)
        if not path:
            yield Problem(at, "is not a key path; write e.g. learner.inner_lr or pipeline[1].quality", at, on_key=True)
            continue
        for fixed, reason in _fixed(experiment).items():
            if lies_in(key, fixed) or lies_in(fixed, key):
                yield Problem(at, f"{fixed}: {reason}", at, on_key=True)
        around = decided_by(key, {name: other for name, other in parameters.items() if name != key})
        if around is not None and parameters[around].choice is None:
            yield Problem(at, f"lies inside '{around}', which is a range", at, on_key=True)
        if key not in parameters:
            yield Problem(at, "its `when` is circular; remove one of the conditions", at, on_key=True)
        else:
            yield from _conditions(key, parameters)


def _conditions(key: str, parameters: Mapping[str, ParameterSpec]) -> Iterator[Problem]:
    for name, wanted in parameters[key].when.items():
        at: KeyPath = ("search", key, "when", name)
        decider = decided_by(name, parameters)
        choices = parameters[decider].choice if decider is not None else None
        if decider is None or decider == key:
            known = [other for other, parameter in parameters.items() if parameter.choice and other != key]
            hint = did_you_mean(name, known, noun="choices")
            yield Problem(at, f"is not a parameter of the search{hint}", at, on_key=True)
        elif choices is None:
            yield Problem(at, f"'{decider}' is a range; `when` requires a choice", at)
        elif not any(fits(inside(value, decider, name), wanted) for value in choices):
            listed = ", ".join(shown(inside(value, decider, name)) for value in choices)
            yield Problem(at, f"{shown(wanted)} is never chosen; the choices are {listed}", at)


def _fixed(experiment: Experiment) -> dict[str, str]:
    tuning = experiment.tuning
    fixed = dict(_always_fixed())
    if tuning.metric == "validation":
        fixed["graph.auxiliary"] = "the validation metric is computed on these distributions, so they must not vary"
        unused = "adaptation.steps" if _transfers(experiment) else "adaptation"
        fixed[unused] = "the validation metric is computed without adaptation, so it would have no effect"
    if tuning.scheduler != "none":
        fixed["training.steps"] = _STEPS.format(tuning.scheduler)
    if tuning.scheduler == "pbt":
        fixed |= dict.fromkeys(_PBT_FIXED, _PBT)
    return fixed


def _transfers(experiment: Experiment) -> bool:
    """Returns whether the relations may be estimated by transfer, which uses the options in `adaptation`."""
    searched = any(lies_in(key, "graph.estimator") for key in experiment.search)
    return searched or isinstance(estimate_behind(experiment.graph.estimator), TransferEstimatorSpec)


def _candidates(experiment: Experiment, space: Space) -> Iterator[_Finding]:
    """Validates both ends of every range and every choice."""
    for key, draw in candidates(space):
        yield from _tried(experiment, space, draw, key)


def _draws(experiment: Experiment, space: Space) -> Iterator[_Finding]:
    """Validates the initial draws of the trials, as far as they are known, up to the first invalid one."""
    known = draws(experiment) or []
    yield from next(filter(None, (list(_tried(experiment, space, draw)) for draw in known)), [])


def _tried(experiment: Experiment, space: Space, draw: Draw, key: str | None = None) -> Iterator[_Finding]:
    """Validates a draw; `key` is the parameter that is being tested, if any."""
    adapter = TypeAdapter(Experiment)
    try:
        data = space.data(experiment, draw)
    except UserError as error:
        # These are problems of setting a key; each starts with the key.
        for name in draw:
            for text in (text for text in error.problems if text.startswith(f"--set {name}: ")):
                at = ("search", name)
                yield _Finding(Problem(at, text.removeprefix(f"--set {name}: "), at, on_key=True))
        return
    try:
        adapter.validate_python(data)
    except ValidationError as error:
        for problem in problems_of(error, data, Shape(adapter, data)):
            yield _located(problem, key, draw, space)


def _located(problem: Problem, key: str | None, draw: Draw, space: Space) -> _Finding:
    """Attributes a problem of a draw to the parameter that set the value, or else to the one being tested."""
    origins = [name for name in draw if problem.at[: len(path_of(name))] == path_of(name)]
    culprit = max(origins, key=lambda name: len(path_of(name)), default=key or next(iter(draw)))
    at = ("search", culprit)
    text = problem.text
    if problem.path and problem.path not in (path_of(culprit), path_of(culprit)[:-1]):
        text = f"{format_path(problem.path)}: {text}"
    if "whole number" in text and space.parameters[culprit].choice is None:
        text += "; write {int: [low, high]}"
    values = space.values(draw)
    others = [name for name in ([key] if key else draw) if name != culprit]
    if others:
        text += f" (where {', '.join(f'{name} is {shown(values[name])}' for name in others)})"
        text += "; if it is only valid for other values, add a `when`" if key else ""
    return _Finding(Problem(at, text, at, on_key=problem.on_key), elsewhere=bool(others))


def shots_not_held_out(experiment: Experiment) -> Iterator[Problem]:
    """Finds settings with which a training uses all shots, so that none is held out to compare trials."""
    training = experiment.training
    if training.source == "target":
        yield Problem(
            ("training", "source"),
            "target uses all shots for training, so none is held out to compare trials; use source: auxiliary",
            ("training", "source"),
        )
    if training.shot_tasks and experiment.tuning.metric == "held_out_shots":
        yield Problem(
            ("training", "shot_tasks"),
            "uses all shots for training, so none is held out to compare trials; write 0, or tuning: {metric: "
            "validation}, or remove the search",
            ("training", "shot_tasks"),
        )


def require_search(experiment: Experiment) -> None:
    """Checks that an experiment can be tuned.

    Raises:
        UserError: There is no search, or no shot is held out to compare trials.
    """
    if not experiment.search:
        raise UserError("search: is missing, so there is nothing to tune; add e.g. search: {learner.inner_lr: ...}")
    if problems := [f"{format_path(problem.path)}: {problem.text}" for problem in shots_not_held_out(experiment)]:
        raise UserError(problems)


def _settings(experiment: Experiment, space: Space) -> Iterator[Problem]:
    """Finds settings with which trials cannot be compared."""
    tuning = experiment.tuning
    if experiment.training.steps < 1:
        yield Problem(("training", "steps"), "must be at least 1 for tuning, got 0", ("training", "steps"))
    if tuning.metric == "held_out_shots" and experiment.adaptation.shots < 2:
        yield Problem(
            ("adaptation", "shots"),
            "1 leaves no shot to hold out; raise it, or write tuning: {metric: validation}",
            ("adaptation", "shots"),
        )
    if tuning.metric == "held_out_shots" and experiment.adaptation.method != "shots":
        yield Problem(
            ("adaptation", "method"),
            f"{experiment.adaptation.method} adapts to no shots, by which trials would be compared; "
            "write tuning: {metric: validation}",
            ("adaptation", "method"),
        )
    # Not taken from the space, which omits circular conditions.
    if tuning.scheduler == "pbt" and any(as_parameter(written).when for written in experiment.search.values()):
        yield Problem(("tuning", "scheduler"), "pbt does not support `when`; use asha or none", ("tuning", "scheduler"))
    too_many = islice(space.grid(tuning.grid_points), tuning.trials, None)
    if tuning.searcher == "grid" and next(too_many, None) is not None:
        yield Problem(
            ("tuning", "trials"),
            f"the grid has more than {tuning.trials} points; raise trials or lower grid_points",
            ("tuning", "trials"),
        )


@cache
def _always_fixed() -> dict[str, str]:
    """Returns the keys that cannot be searched, and why."""
    return {
        **dict.fromkeys((*keys(Experiment, Affects.COMPARISON | Affects.SHOTS), "training.source"), _MEASURE),
        "training.shot_tasks": "trials may be compared on the shots that they train on, so it cannot be searched",
        **dict.fromkeys(MANY, "trials do not have this section, so it cannot be searched"),
        **dict.fromkeys(without_result(Experiment), "does not affect any result, so there is nothing to search"),
        "engine": "the engine does not affect results; set tuning.workers_per_trial instead",
        "training.validate_every": "trials are measured at intervals of tuning.report_every",
        "training.checkpoint_every": "trials are saved at intervals of tuning.report_every",
        "training.keep": "a trial keeps only its last checkpoint, so there is nothing to search",
        "adaptation.alternatives": "trials are compared by the main adaptation, so there is nothing to search",
        "adaptation.method": "trials are always adapted to the shots, so there is nothing to search",
        "adaptation.kernel": "trials are adapted to the shots, which need no kernel, so there is nothing to search",
    }

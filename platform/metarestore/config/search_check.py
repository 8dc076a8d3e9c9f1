"""What is wrong with the search of an experiment: found before anything starts, at its place in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice

from pydantic import TypeAdapter, ValidationError

from metarestore.config.affects import Affects, keys, without_result
from metarestore.config.document import Document, display_path
from metarestore.config.estimators import TransferEstimator, estimate_behind
from metarestore.config.experiment import MANY, Experiment
from metarestore.config.keypath import KeyPath, format_path
from metarestore.config.problems import Problem, problems_of
from metarestore.config.search import Parameter, as_parameter
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

_MEASURE = "all trials are measured alike, so it cannot be searched"
_STEPS = "{} compares trials at equal steps of equally long trainings; search it with scheduler: none"
_PBT = "pbt changes values in the middle of a training, which this one does not stand; use scheduler: asha or none"
_PBT_FIXED = ("model", "training.optimizer.kind", "training.optimizer.schedule", "learner.kind", "graph.auxiliary")


@dataclass(frozen=True)
class _Finding:
    """A problem of a draw.

    Attributes:
        problem: The problem.
        elsewhere: Whether another parameter has a part in it.
    """

    problem: Problem
    elsewhere: bool = False


def check_search(document: Document, experiment: Experiment) -> None:
    """Checks that every value of the search gives a valid experiment, and that trials can be compared.

    Raises:
        UserError: One line for each thing that is wrong, with its place.
    """
    if not experiment.search:
        return
    space = Space(experiment.search)
    structure, settings = list(_structure(experiment, space)), list(_settings(experiment, space))
    # Where an override says so, the file is right, and commands that do not tune may follow it.
    written = document.data.get("training") or {}
    settings += [problem for problem in shots_unheld(experiment) if problem.path[-1] in written]
    tried = [] if structure else list(_candidates(experiment, space))
    # What no end and no choice shows, a draw of all parameters may.
    tried = tried if structure or settings or tried else list(_draws(experiment, space))
    # One line for each place: a range whose both ends are wrong is wrong once, and what is wrong whatever the others
    # are is said without them.
    tried.sort(key=lambda finding: finding.elsewhere)
    found = [*structure, *settings, *(finding.problem for finding in tried)]
    lines = []
    for problem in {one.at: one for one in reversed(found)}.values():
        line, column = document.locate(problem.at, key=problem.on_key)
        text = f"{display_path(document.path)}:{line}:{column}: {format_path(problem.path)}: {problem.text}"
        lines.append((line, column, text))
    if lines:
        raise UserError([text for _, _, text in sorted(lines)])


def candidates(space: Space) -> Iterator[tuple[str, Draw]]:
    """Yields draws that together hold both ends of every range and every choice, each with the key that it is about."""
    for key, parameter in space.parameters.items():
        forced = _forced(space, key)
        for value in trial_values(parameter):
            picked = {**forced, key: value}
            yield key, space.walk(lambda name, other, picked=picked: picked.get(name, next(trial_values(other))))  # type: ignore[misc]


def _forced(space: Space, key: str) -> Draw:
    """Returns choices under which a parameter exists."""
    forced: Draw = {}
    for name, wanted in space.parameters[key].when.items():
        decider = decided_by(name, space.parameters)
        assert decider is not None
        choices = space.parameters[decider].choice or ()
        index = next(i for i, value in enumerate(choices) if fits(inside(value, decider, name), wanted))
        forced |= {**_forced(space, decider), decider: index}
    return forced


def _structure(experiment: Experiment, space: Space) -> Iterator[Problem]:
    """Finds keys that cannot be searched, and conditions that mean nothing."""
    parameters = space.parameters
    for key in experiment.search:
        at = ("search", key)
        path = path_of(key)
        if not path:
            yield Problem(at, "is no key path; write e.g. learner.inner_lr or pipeline[1].quality", at, on_key=True)
            continue
        for fixed, why in _fixed(experiment).items():
            if lies_in(key, fixed) or lies_in(fixed, key):
                yield Problem(at, f"{fixed}: {why}", at, on_key=True)
        around = decided_by(key, {name: other for name, other in parameters.items() if name != key})
        if around is not None and parameters[around].choice is None:
            yield Problem(at, f"lies inside '{around}', which is a range", at, on_key=True)
        if key not in parameters:
            yield Problem(at, "its `when` leads in a circle; leave one condition out", at, on_key=True)
        else:
            yield from _conditions(key, parameters)


def _conditions(key: str, parameters: Mapping[str, Parameter]) -> Iterator[Problem]:
    for name, wanted in parameters[key].when.items():
        at: KeyPath = ("search", key, "when", name)
        decider = decided_by(name, parameters)
        choices = parameters[decider].choice if decider is not None else None
        if decider is None or decider == key:
            known = [other for other, parameter in parameters.items() if parameter.choice and other != key]
            hint = did_you_mean(name, known, noun="choices")
            yield Problem(at, f"is not a parameter of the search, so it never varies{hint}", at, on_key=True)
        elif choices is None:
            yield Problem(at, f"'{decider}' is a range; `when` needs a choice", at)
        elif not any(fits(inside(value, decider, name), wanted) for value in choices):
            listed = ", ".join(shown(inside(value, decider, name)) for value in choices)
            yield Problem(at, f"{shown(wanted)} is never chosen; the choices are {listed}", at)


def _fixed(experiment: Experiment) -> dict[str, str]:
    tuning = experiment.tuning
    fixed = dict(_always_fixed())
    if tuning.metric == "validation":
        fixed["graph.auxiliary"] = "the validation metric is taken on these distributions, so they must not vary"
        unused = "adaptation.steps" if _transfers(experiment) else "adaptation"
        fixed[unused] = "the validation metric is taken without adaptation, so it would change nothing"
    if tuning.scheduler != "none":
        fixed["training.steps"] = _STEPS.format(tuning.scheduler)
    if tuning.scheduler == "pbt":
        fixed |= dict.fromkeys(_PBT_FIXED, _PBT)
    return fixed


def _transfers(experiment: Experiment) -> bool:
    """Tells whether the relations may be estimated by adapting, as the experiment's `adaptation` says."""
    searched = any(lies_in(key, "graph.estimator") for key in experiment.search)
    return searched or isinstance(estimate_behind(experiment.graph.estimator), TransferEstimator)


def _candidates(experiment: Experiment, space: Space) -> Iterator[_Finding]:
    """Tries both ends of every range and every choice."""
    for key, draw in candidates(space):
        yield from _tried(experiment, space, draw, key)


def _draws(experiment: Experiment, space: Space) -> Iterator[_Finding]:
    """Tries what the trials start with, as far as it is known, up to the first that is wrong."""
    known = draws(experiment) or []
    yield from next(filter(None, (list(_tried(experiment, space, draw)) for draw in known)), [])


def _tried(experiment: Experiment, space: Space, draw: Draw, key: str | None = None) -> Iterator[_Finding]:
    """Tries a draw; `key` is the parameter that it is about, if it is about one."""
    adapter = TypeAdapter(Experiment)
    try:
        data = space.data(experiment, draw)
    except UserError as error:
        # These are problems of setting a key, each of which begins with the key.
        for name in draw:
            for text in (text for text in error.problems if text.startswith(f"--set {name}: ")):
                at = ("search", name)
                yield _Finding(Problem(at, text.removeprefix(f"--set {name}: "), at, on_key=True))
        return
    try:
        adapter.validate_python(data)
    except ValidationError as error:
        for problem in problems_of(error, data, Shape(adapter, data)):
            yield _blamed(problem, key, draw, space)


def _blamed(problem: Problem, key: str | None, draw: Draw, space: Space) -> _Finding:
    """Words a problem of a draw as one of the parameter that wrote the value, or else of the one that it is about."""
    wrote = [name for name in draw if problem.at[: len(path_of(name))] == path_of(name)]
    culprit = max(wrote, key=lambda name: len(path_of(name)), default=key or next(iter(draw)))
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
        text += "; if it exists for other values only, give it a `when`" if key else ""
    return _Finding(Problem(at, text, at, on_key=problem.on_key), elsewhere=bool(others))


def shots_unheld(experiment: Experiment) -> Iterator[Problem]:
    """Finds settings by which a training sees all shots, so that none is held out to compare trials by."""
    training = experiment.training
    if training.source == "target":
        yield Problem(
            ("training", "source"),
            "target learns from all shots, so none is left to compare trials by; search with source: auxiliary",
            ("training", "source"),
        )
    if training.shot_tasks and experiment.tuning.metric == "held_out_shots":
        yield Problem(
            ("training", "shot_tasks"),
            "learns from all shots, so none is left to compare trials by; write 0, or tuning: {metric: validation}, or "
            "take the search out of this file",
            ("training", "shot_tasks"),
        )


def require_search(experiment: Experiment) -> None:
    """Finds what the file alone shows to be missing for a search.

    Raises:
        UserError: There is no search, or no shot is held out to compare trials by.
    """
    if not experiment.search:
        raise UserError("search: is missing, so there is nothing to tune; write e.g. search: {learner.inner_lr: ...}")
    if unheld := [f"{format_path(problem.path)}: {problem.text}" for problem in shots_unheld(experiment)]:
        raise UserError(unheld)


def _settings(experiment: Experiment, space: Space) -> Iterator[Problem]:
    """Finds settings that leave nothing to compare by."""
    tuning = experiment.tuning
    if experiment.training.steps < 1:
        yield Problem(("training", "steps"), "0 leaves nothing to tune", ("training", "steps"))
    if tuning.metric == "held_out_shots" and experiment.adaptation.shots < 2:
        yield Problem(
            ("adaptation", "shots"),
            "1 leaves no shot to hold out; raise it, or write tuning: {metric: validation}",
            ("adaptation", "shots"),
        )
    # Not from the space, which leaves out what leads in a circle.
    if tuning.scheduler == "pbt" and any(as_parameter(written).when for written in experiment.search.values()):
        yield Problem(("tuning", "scheduler"), "pbt knows no `when`; use asha or none", ("tuning", "scheduler"))
    too_many = islice(space.grid(tuning.grid_points), tuning.trials, None)
    if tuning.searcher == "grid" and next(too_many, None) is not None:
        yield Problem(
            ("tuning", "trials"),
            f"the grid has more than {tuning.trials} points; raise trials or lower grid_points",
            ("tuning", "trials"),
        )


@cache
def _always_fixed() -> dict[str, str]:
    """Returns the keys that no search may have, and why."""
    return {
        **dict.fromkeys((*keys(Experiment, Affects.COMPARISON | Affects.SHOTS), "training.source"), _MEASURE),
        "training.shot_tasks": "trials may be compared by the shots that it learns from, so it cannot be searched",
        **dict.fromkeys(MANY, "a trial has none, so it cannot be searched"),
        **dict.fromkeys(without_result(Experiment), "changes no result, so there is nothing to search"),
        "engine": "the engine changes no figure; trials compute as tuning.workers_per_trial says",
        "training.validate_every": "trials are measured as tuning.report_every says",
        "training.checkpoint_every": "trials are saved as tuning.report_every says",
        "training.keep": "a trial keeps its last checkpoint alone, so there is nothing to search",
        "adaptation.alternatives": "trials are compared by the main way to adapt, so there is nothing to search",
    }

"""Adapts a network to a camera: fits a distribution, compares the ways on the shots, adapts, and measures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from metarestore.camera.pairs import CameraPairs
from metarestore.camera.project import CameraProject, Start
from metarestore.camera.selection import Floats, best, candidate, folds, left_out_gains, seconds_per_step
from metarestore.camera.settings import UNADAPTED, WAYS, Plan, Request, Way
from metarestore.errors import UserError
from metarestore.evaluation.results import StudyResult
from metarestore.evaluation.statistics import Difference, paired_difference
from metarestore.files import write_atomically
from metarestore.models.build import build_model
from metarestore.models.checkpoint import network_description, network_file
from metarestore.models.shipped import BICUBIC_LR, FIVE_PAIRS, REAL_PAIRS, recommended
from metarestore.project import arm_experiments, read_experiment, resolve
from metarestore.reports.study.progress import TrainingDisplay
from metarestore.study.run import run_study
from metarestore.workspace.workspace import Workspace

ADAPTED, ADAPTED_FILE = "adapted", "adapted.safetensors"
"""The arm of the chosen way, and the file of its network: in the folder of a run, the network after adaptation."""

PLAN_FILE = "plan.json"
"""What was given, and how many steps are taken; it exists once the pairs are checked."""

_MEASURED = 0.25
"""Share of the time limit that is left at least for the steps, however long the checks took."""


class Messages(Protocol):
    """Shows what happens."""

    def say(self, text: str) -> None:
        """Shows a line."""
        ...

    def progress(self, description: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """Shows a bar, and yields what advances it."""
        ...

    def training(self) -> AbstractContextManager[TrainingDisplay]:
        """Shows a training."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What was chosen, and what it is worth.

    Attributes:
        way: The chosen way.
        left_out: Gain over bicubic upscaling of each way on the shots that were left out, in dB: (K,).
        study: The measurements on the test pairs.
        network: The file of the network.
    """

    way: Way
    left_out: dict[str, Floats]
    study: StudyResult
    network: Path

    def difference(self, other: str) -> Difference:
        """Returns PSNR-Y of the chosen way minus that of `bicubic` or `unadapted`, over test pairs."""
        arms = {arm.name: arm.psnr_y for arm in self.study.arms}
        return paired_difference(arms.get(ADAPTED, arms[UNADAPTED.name]), arms[other])

    @property
    def verdict(self) -> str:
        """Says in words whether the network is worth using."""
        bicubic, gain = self.difference("bicubic"), self.difference(UNADAPTED.name)
        count = f"{bicubic.count} test pair{'s' if bicubic.count > 1 else ''}"
        over = f"{_stated(bicubic)} over bicubic upscaling on {count}"
        if bicubic.count == 1:
            over = f"{bicubic.mean:+.2f} dB over bicubic upscaling on a single test pair: add pairs to know more"
            return f"Whether it is worth using cannot be told: {over}"
        if bicubic.high <= 0 or bicubic.mean <= 0:
            return f"Not worth using: {over}"
        if bicubic.low <= 0:
            return f"Whether it is worth using cannot be told: {over}"
        if self.way == UNADAPTED:
            return f"Worth using as it is, adaptation does not improve it on the shots: {over}"
        return f"Worth using: {over}, {_stated(gain)} over the unadapted network"


def _stated(difference: Difference) -> str:
    return f"{difference.mean:+.2f} dB [{difference.low:+.2f}, {difference.high:+.2f}]"


def adapt_to_camera(request: Request, pairs: CameraPairs, messages: Messages, command: str) -> Outcome:
    """Adapts a network to the pairs of a camera; everything is written into `request.out`.

    What is finished there is not repeated.

    Args:
        request: What the user asks for.
        pairs: The usable pairs.
        messages: Shows what happens.
        command: The command that repeats this, for the report.

    Raises:
        UserError: The network is for another scale, the folder was started with other options, or the results cannot be
            written.
        Interrupted: The user stopped it; what is finished is kept.
    """
    began = time.monotonic()
    project = CameraProject(request, pairs, start_of(request, pairs.scale))
    _require_same(project)
    project.write_pairs()
    ways = list(WAYS)
    try:
        project.fit()
    except UserError as error:
        messages.say(f"No distribution can be fitted to the shots: {error.problems[0]}")
        ways = [way for way in ways if not way.fitted]
    used = (time.monotonic() - began) / 60
    plan = _planned(project, pairs, max(request.minutes - used, _MEASURED * request.minutes))
    ways = [way for way in ways if plan.fitted_steps or not way.fitted]
    messages.say(f"Network: {project.start}")
    messages.say(
        f"{plan.steps} steps of adaptation, {plan.fitted_steps} of training on the fitted distribution; "
        f"{len(ways)} ways are compared on the shots, {plan.folds} times with some of them left out"
    )
    if any(way.fitted for way in ways):
        _train_on_fit(project, plan, messages, command)
    gains = _compared(project, plan, ways, messages)
    way = next(way for way in ways if way.name == best(gains))
    study = _measured(project, plan, way, messages, command)
    arm = project.root / "study" / "arms" / (UNADAPTED.name if way == UNADAPTED else ADAPTED)
    network = project.root / ADAPTED_FILE
    write_atomically(network, (arm / ADAPTED_FILE).read_bytes())
    return Outcome(way, gains, study, network)


def start_of(request: Request, scale: int) -> Start:
    """Returns the network to start from.

    Raises:
        UserError: It does not exist, is a teacher, or is for another scale.
    """
    best = (FIVE_PAIRS, REAL_PAIRS, BICUBIC_LR)
    file = recommended(scale, best).file if request.model is None else network_file(request.model)
    spec, own = network_description(file)
    if own != scale:
        raise UserError(
            f"--model: {file} is for scale {own}, but the pairs are for scale {scale}; give another network"
        )
    if spec.privileged:
        raise UserError(f"--model: {file} is a teacher, which needs HR images as input; give a student")
    model = build_model(spec, scale, seed=0)
    return Start(file.absolute(), spec, sum(parameter.numel() for parameter in model.parameters()))


def _require_same(project: CameraProject) -> None:
    """Checks that a folder that is continued was started with the same options.

    Raises:
        UserError: It was not.
    """
    file = project.root / PLAN_FILE
    if not file.is_file():
        return
    stored = json.loads(file.read_text(encoding="utf-8"))["given"]
    if changed := [key for key, value in project.given.items() if stored[key] != value]:
        raise UserError(f"--resume: {project.root} was started with other {', '.join(changed)}; give a new --out")


def _planned(project: CameraProject, pairs: CameraPairs, minutes: float) -> Plan:
    """Divides the time, or reads how it was divided."""
    file = project.root / PLAN_FILE
    if file.is_file():
        return Plan(**json.loads(file.read_text(encoding="utf-8"))["plan"])
    trial = Plan(steps=2, fitted_steps=0, folds=1)
    workspace = _arm(project, project.write_experiment("study", trial, {ADAPTED: WAYS[1]}, _TITLE), ADAPTED)
    plan = Plan.of(len(workspace.given_shots.support_lr), minutes, seconds_per_step(workspace))
    write_atomically(file, json.dumps({"given": project.given, "plan": asdict(plan)}))
    return plan


def _train_on_fit(project: CameraProject, plan: Plan, messages: Messages, command: str) -> None:
    """Trains on the fitted distribution, unless that is done."""
    experiment = project.write_experiment("fitted", plan, {}, "Trains on the distribution fitted to the shots.")
    if not (project.fitted_run / "results.json").is_file():
        with messages.training() as display:
            _run(project, experiment, project.fitted_run, display, command, arms=False)


def _compared(project: CameraProject, plan: Plan, ways: list[Way], messages: Messages) -> dict[str, Floats]:
    """Measures each way on shots that are left out; finished ways are kept."""
    file = project.root / "left_out.json"
    found: dict[str, list[float]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    experiment = project.write_experiment("ways", plan, {_arm_name(way): way for way in ways}, _WAYS_TITLE)
    with messages.progress("comparing on the shots", len(ways) * plan.folds) as advance:
        for way in ways:
            if way.name not in found:
                workspace = _arm(project, experiment, _arm_name(way))
                groups = folds(len(workspace.given_shots.support_lr), plan.folds)
                found[way.name] = left_out_gains(candidate(workspace), groups, advance).tolist()
                write_atomically(file, json.dumps(found))
    return {name: np.asarray(values) for name, values in found.items()}


def _measured(project: CameraProject, plan: Plan, way: Way, messages: Messages, command: str) -> StudyResult:
    """Adapts the chosen way to all shots, and measures it and the unadapted network on the test pairs."""
    ways = {UNADAPTED.name: UNADAPTED} | ({} if way == UNADAPTED else {ADAPTED: way})
    experiment = project.write_experiment("study", plan, ways, _TITLE)
    with messages.training() as display:
        return _run(project, experiment, project.root / "study", display, command, arms=True)


def _run(
    project: CameraProject, experiment: Path, out: Path, display: TrainingDisplay, command: str, *, arms: bool
) -> StudyResult:
    resume = (out / "run.json").is_file()
    content = read_experiment(experiment)
    name = project.root.name
    return run_study(content, project.root, out, display, name=name, command=command, arms=arms, resume=resume)


def _arm(project: CameraProject, experiment: Path, arm: str) -> Workspace:
    """Opens an arm of an experiment."""
    return Workspace(resolve(arm_experiments(read_experiment(experiment))[arm], project.root))


def _arm_name(way: Way) -> str:
    return way.name.replace(",", "").replace(" ", "_")


_TITLE = "Measures the chosen way and the unadapted network on the test pairs."
_WAYS_TITLE = "All ways that were compared on the shots."

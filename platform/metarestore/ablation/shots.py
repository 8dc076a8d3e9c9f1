"""An ablation over the number of pairs: how many are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarestore.ablation.run import run_ablation
from metarestore.config.experiment import Experiment
from metarestore.config.grid import FIRST_SHOT, SEED
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.evaluation.ablation import AblationResult
from metarestore.evaluation.learning_curve import SHOTS, LearningCurve, learning_curve
from metarestore.project import arm_experiments, resolve
from metarestore.reports.ablation.learning_curve import publish_curve
from metarestore.reports.ablation.progress import AblationDisplay
from metarestore.reports.ablation.report import publish_ablation
from metarestore.workspace.workspace import Workspace

SIZES = (1, 2, 3, 5, 8)
FOLDS = 5


@dataclass(frozen=True)
class ShotPlan:
    """An ablation over the number of pairs.

    Attributes:
        experiment: The experiment, with a single arm and the grid to run.
        pool: Number of pairs in the support pool; None for a synthetic target, which has any number of them.
    """

    experiment: Experiment
    pool: int | None


def plan_shots(
    experiment: Experiment,
    root: Path,
    *,
    sizes: Sequence[int] | None = None,
    folds: int | None = None,
    arm: str | None = None,
) -> ShotPlan:
    """Plans the cells: every number of pairs with every fold, and with every seed of the experiment's own grid.

    A fold is a first shot. Folds are spread evenly over the support pool; those of a synthetic target are disjoint.

    Args:
        experiment: The checked experiment; other axes of its grid are not used.
        root: The project's folder.
        sizes: Numbers of pairs; by default those of `SIZES` that the support pool has.
        folds: Number of choices of the pairs; by default `FOLDS`, or the size of the support pool if that is less.
        arm: The arm to run; by default the experiment itself.

    Raises:
        UserError: The experiment learns from no shots, a name is unknown, there are fewer than two sizes, or the
            support pool has fewer pairs than requested.
    """
    name, one = _single(experiment, arm)
    if one.adaptation.method != "shots":
        raise UserError(f"adaptation.method: {one.adaptation.method} uses no pairs; write method: shots")
    pool, test = _split(one, root)
    sizes = sorted(set(sizes)) if sizes else [size for size in SIZES if pool is None or size <= pool]
    if pool is not None and sizes and sizes[-1] > pool:
        raise UserError(
            f"--shots: {sizes[-1]} pairs are requested, but the support pool of '{one.graph.target}' has {pool}, and "
            f"{test} are for testing; lower --shots, or raise support_pool in its task file"
        )
    if len(sizes) < 2:
        raise UserError(f"--shots: at least two numbers of pairs are compared, got {sizes[0] if sizes else 'none'}")
    if folds is not None and pool is not None and folds > pool:
        raise UserError(f"--folds: the support pool has {pool} pairs, so there are at most {pool} folds, got {folds}")
    firsts = first_shots(folds or min(FOLDS, pool or FOLDS), pool, sizes[-1])
    grid: dict[str, tuple[int, ...]] = {SHOTS: tuple(sizes), FIRST_SHOT: firsts}
    if SEED in experiment.grid:
        grid[SEED] = experiment.grid[SEED]
    return ShotPlan(_measured_last(one).model_copy(update={"arms": {name: {}}, "grid": grid, "grid_exclude": ()}), pool)


def first_shots(folds: int, pool: int | None, most: int) -> tuple[int, ...]:
    """Returns the first shot of each fold.

    >>> first_shots(4, 10, 8), first_shots(3, None, 8)
    ((0, 2, 5, 7), (0, 8, 16))
    """
    return tuple(fold * most if pool is None else fold * pool // folds for fold in range(folds))


def run_shots(
    plan: ShotPlan,
    root: Path,
    out: Path,
    display: AblationDisplay,
    *,
    name: str,
    command: str,
    worth: float,
    resume: bool = False,
) -> tuple[AblationResult, LearningCurve]:
    """Runs the ablation, and writes the learning curve beside its results.

    Args:
        plan: The ablation.
        root: The project's folder.
        out: The ablation's folder.
        display: Shows progress.
        name: Name of the MLflow experiment.
        command: Command that reproduces the ablation.
        worth: The smallest gain in dB that is worth taking pairs for.
        resume: Whether to continue the ablation in `out`.

    Raises:
        UserError, Interrupted, KeyboardInterrupt: As for `run_ablation`.
    """

    def publish(result: AblationResult, configuration: str, folder: Path, given: str) -> list[Path]:
        written = publish_ablation(result, configuration, folder, given)
        return [*written, *publish_curve(learning_curve(result.cells, plan.pool, worth), result, folder, given)]

    result = run_ablation(
        plan.experiment, root, out, display, name=name, command=command, resume=resume, publish=publish
    )
    return result, learning_curve(result.cells, plan.pool, worth)


def _single(experiment: Experiment, arm: str | None) -> tuple[str, Experiment]:
    """Returns the name and the experiment of an arm, or of the experiment itself."""
    if arm is None:
        return experiment.learner.kind, experiment
    if arm not in experiment.arms:
        raise UserError(f"--arm: there is no arm '{arm}'{did_you_mean(arm, experiment.arms, noun='arms')}")
    return arm, arm_experiments(experiment)[arm]


def _measured_last(experiment: Experiment) -> Experiment:
    """Returns the experiment without what a curve does not show: steps of the adaptation, and alternatives."""
    every = max(experiment.adaptation.steps, 1)
    return experiment.model_copy(
        update={
            "adaptation": experiment.adaptation.model_copy(update={"alternatives": ()}),
            "evaluation": experiment.evaluation.model_copy(update={"every": every}),
        }
    )


def _split(experiment: Experiment, root: Path) -> tuple[int | None, int]:
    """Returns the numbers of pairs for learning and for testing; None and 0 for a synthetic target."""
    # One shot fits every support pool.
    adaptation = experiment.adaptation.model_copy(update={"shots": 1, "first_shot": 0})
    study = resolve(experiment.model_copy(update={"adaptation": adaptation}), root)
    return Workspace(study).target.split or (None, 0)

"""The outer loop: one page, the same for every learner and every engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from metarestore.config.graph import Weights
from metarestore.engines.engine import Session
from metarestore.errors import UserError
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import balancing, effective_tasks, relation_weights, relative_to_largest
from metarestore.learners.gradients import TaskMetrics
from metarestore.learners.learner import psnr_of_mse
from metarestore.learners.sketch import mean_cosine
from metarestore.training.interrupt import Interrupted, graceful_stop
from metarestore.training.jobs import ValidationJob, gradient_jobs
from metarestore.training.sampler import TaskSampler, positions
from metarestore.training.state import TrainState, save_state

_NORM_MEMORY = 0.95
"""Share of the old value in the running mean of gradient norms."""

Row = dict[str, Any]


class Observer(Protocol):
    """Sees every step: progress display, tracking."""

    def step(self, row: Row) -> None:
        """Is told what one outer step found."""
        ...

    def validated(self, step: int, psnr: float) -> None:
        """Is told a validation figure."""
        ...

    def related(self, step: int, relations: Relations) -> None:
        """Is told newly estimated relations."""
        ...

    def saved(self, step: int) -> None:
        """Is told that a checkpoint was written."""
        ...


@dataclass(frozen=True)
class Plan:
    """What the loop does, as values and functions.

    Attributes:
        steps: Outer steps.
        sampler: Draws the tasks of a step.
        weights: How relations become gradient weights.
        relate: Estimates relations at a step from the parameters and the relations before, or None where there is
            nothing to relate (learning from the target).
        refresh: Steps between two estimates; None estimates once.
        validate: Distributions that validation figures are taken on; none where empty.
        validate_every: Steps between two validation figures.
        checkpoint_every: Steps between two checkpoints.
        keep: Checkpoints that are kept.
        best: Is given the validated parameters (P,) whenever a validation figure is the best so far.
    """

    steps: int
    sampler: TaskSampler
    weights: Weights
    relate: Callable[[int, torch.Tensor, Relations | None], Relations] | None
    refresh: int | None
    validate: tuple[str, ...]
    validate_every: int
    checkpoint_every: int
    keep: int = 1
    best: Callable[[torch.Tensor], None] | None = None


def run(plan: Plan, state: TrainState, session: Session, observer: Observer, checkpoints: Path) -> TrainState:
    """Trains from `state.step` to `plan.steps`; stopped at any point, it continues to the same bits.

    Raises:
        Interrupted: The user asked to stop; the state is saved.
    """
    with graceful_stop() as stop:
        while state.step < plan.steps:
            started = time.perf_counter()
            related = _relate_if_due(plan, state, observer)
            row = _step(plan, state, session)
            row |= related
            state.seconds += time.perf_counter() - started
            observer.step({**row, "seconds": state.seconds, "relating": state.relating})
            _validate_if_due(plan, state, session, observer)
            if stop.requested or state.step % plan.checkpoint_every == 0 or state.step == plan.steps:
                save_state(checkpoints, state, plan.keep)
                observer.saved(state.step)
            if stop.requested:
                raise Interrupted(state.step)
    return state


def gradient_weights(plan: Plan, state: TrainState) -> NDArray[np.float64]:
    """Returns the weights (N,) of this step, mean 1."""
    if state.relations is None:
        return np.ones(len(plan.sampler.distributions))
    return relation_weights(state.relations, plan.weights, state.step, plan.steps)


def _relate_if_due(plan: Plan, state: TrainState, observer: Observer) -> Row:
    """Estimates the relations where it is time to; returns what the log then tells of them."""
    if plan.relate is None:
        return {}
    due = state.relations is None or (plan.refresh is not None and state.step % plan.refresh == 0)
    # A checkpoint at a refresh step holds the relations from before it, so a resumed run estimates them again: the
    # same values, since an estimate depends on the step and the parameters only.
    if not due:
        return {}
    started = time.perf_counter()
    state.relations = plan.relate(state.step, state.optimizer.flat.detach(), state.relations)
    state.relating += time.perf_counter() - started
    observer.related(state.step, state.relations)
    told = state.relations.to_json()
    return {"related": {"values": told["values"], "standard_errors": told["standard_errors"]}}


def _step(plan: Plan, state: TrainState, session: Session) -> Row:
    """Applies θ ← Opt(θ, (1/T) Σ wᵢ gᵢ) and returns the step's row of the log.

    Weights have mean 1 over all distributions, so the sum over T tasks that are drawn equally often is an unbiased
    estimate of the weighted mean gradient. Dividing by the weights of the drawn tasks instead would take back what the
    weights say: wholly at one task a step.
    """
    weights, acts_on = gradient_weights(plan, state), plan.weights.acts_on
    shards = plan.sampler.shards(state.step, weights if acts_on == "sampling" else None, weights > 0)
    which = positions(shards, plan.sampler.sources)
    outer = acts_on in ("gradients", "both")
    # Distributions of weight 0 are not drawn: those that are share the whole weight, which is mean 1 among all.
    acting = _of_sources(plan, weights * np.mean(weights > 0) if outer else np.ones(len(weights)))[which]
    balance = _balance(plan, state, which)

    def weigh(figures: TaskMetrics) -> NDArray[np.float32]:
        # With one factor for all tasks' norms and weights, a gradient is scaled once, where it was computed.
        _require_finite(figures, state.step)
        return (acting / len(which) * balance(figures)).astype(np.float32)

    inner = _of_sources(plan, relative_to_largest(weights))[which] if acts_on in ("inner", "both") else None
    jobs = gradient_jobs(shards, state.step, inner)
    found = session.reduce(jobs, state.optimizer.flat.detach(), weigh)
    effects = acting * balance(found.metrics) * found.metrics.norms
    state.norms = _remembered_norms(state, found.metrics, which, len(plan.sampler.sources))
    state.optimizer.update(state.step, torch.from_numpy(found.gradient))
    state.step += 1
    row = _row(state.step, found.metrics, _of_sources(plan, weights), which, effects)
    row["effective_tasks"] = effective_tasks(weights)
    state.log.append(row)
    return row


def _of_sources(plan: Plan, factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adds to the factor of each distribution (N,) that of the target's shots, 1, if they are learned from too."""
    return np.append(factors, 1.0) if plan.sampler.shot_tasks else factors


def _balance(plan: Plan, state: TrainState, which: NDArray[np.int64]) -> Callable[[TaskMetrics], NDArray[np.float64]]:
    """Returns what turns figures into the balancing factor of each task, (T,)."""
    if plan.weights.balance == "none":
        return lambda figures: np.ones(len(which))
    if plan.weights.balance == "unit":
        return lambda figures: balancing(figures.norms)
    count = len(plan.sampler.sources)
    return lambda figures: balancing(np.asarray(_remembered_norms(state, figures, which, count))[which])


def _require_finite(figures: TaskMetrics, step: int) -> None:
    if not (np.isfinite(figures.norms).all() and np.isfinite(figures.losses).all()):
        raise UserError(
            f"step {step + 1}: the loss or its gradient is not finite; lower training.optimizer.lr or "
            "learner.inner_lr (the last checkpoint is as it was)"
        )


def _row(
    step: int,
    figures: TaskMetrics,
    weights: NDArray[np.float64],
    which: NDArray[np.int64],
    effects: NDArray[np.float64],
) -> Row:
    row = {
        "step": step,
        "loss": float(figures.losses.mean()),
        "psnr": float(psnr_of_mse(figures.mse).mean()),
        **{name: float(values.mean()) for name, values in figures.terms.items()},
        "weights": weights.tolist(),
        "drawn": np.bincount(which, minlength=len(weights)).tolist(),
        "norms": _mean_by(figures.norms.astype(np.float64), which, len(weights)),
        "shares": (np.bincount(which, effects, len(weights)) / max(effects.sum(), 1e-30)).tolist(),
    }
    if figures.sketches is not None:
        row["agreement"] = mean_cosine(figures.sketches)
    return row


def _remembered_norms(state: TrainState, figures: TaskMetrics, which: NDArray[np.int64], count: int) -> list[float]:
    """Returns the running mean of the gradient norms of each of `count` distributions after a step."""
    norms = list(state.norms) or [0.0] * count
    for norm, i in zip(figures.norms.tolist(), which.tolist(), strict=True):
        norms[i] = norm if not norms[i] else _NORM_MEMORY * norms[i] + (1 - _NORM_MEMORY) * norm
    return norms


def _mean_by(values: NDArray[np.float64], which: NDArray[np.int64], count: int) -> list[float | None]:
    """Averages values by distribution; None where a distribution was not drawn."""
    return [float(values[which == i].mean()) if (which == i).any() else None for i in range(count)]


def _validate_if_due(plan: Plan, state: TrainState, session: Session, observer: Observer) -> None:
    if not plan.validate or state.step % plan.validate_every:
        return
    figures = session.map([ValidationJob(name) for name in plan.validate], state.optimizer.averaged)
    psnr = float(np.mean(np.concatenate(figures)))
    if plan.best is not None and all(psnr > before for _, before in state.validation):
        plan.best(state.optimizer.averaged)
    state.validation.append((state.step, psnr))
    observer.validated(state.step, psnr)

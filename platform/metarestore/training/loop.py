"""The outer loop: one page, the same for every learner and every engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metarestore.config.graph import WeightsSpec
from metarestore.engines.engine import Session
from metarestore.graphs.relations import Relations
from metarestore.learners.gradients import TaskMetrics
from metarestore.learners.learner import psnr_of_mse
from metarestore.learners.sketch import mean_cosine
from metarestore.training.interrupt import Interrupted, graceful_stop
from metarestore.training.jobs import ValidationJob, gradient_jobs
from metarestore.training.log import LoggedRelations, LogRow, Observer
from metarestore.training.sampler import TaskSampler, positions
from metarestore.training.state import TrainState, save_state
from metarestore.training.weighting import StepWeights, distribution_weights, require_finite


@dataclass(frozen=True)
class Plan:
    """What the loop does, as values and functions.

    Attributes:
        steps: Outer steps.
        sampler: Draws the tasks of a step.
        weights: How relations become gradient weights.
        relate: Estimates relations at a step from the parameters and the previous relations; None if there is nothing
            to relate (learning from the target).
        refresh: Steps between two estimates; None estimates once.
        validate: Distributions to validate on; no validation if empty.
        validate_every: Steps between two validations.
        checkpoint_every: Steps between two checkpoints.
        keep: Number of checkpoints that are kept.
        best: Receives the validated parameters (P,) whenever their validation PSNR is the highest so far.
    """

    steps: int
    sampler: TaskSampler
    weights: WeightsSpec
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
            row = replace(_step(plan, state, session), related=related)
            state.log.append(row)
            state.seconds += time.perf_counter() - started
            observer.step(replace(row, seconds=state.seconds))
            _validate_if_due(plan, state, session, observer)
            if stop.requested or state.step % plan.checkpoint_every == 0 or state.step == plan.steps:
                save_state(checkpoints, state, plan.keep)
                observer.saved(state.step)
            if stop.requested:
                raise Interrupted(state.step)
    return state


def gradient_weights(plan: Plan, state: TrainState) -> NDArray[np.float64]:
    """Returns the weights (N,) of this step, mean 1."""
    count = len(plan.sampler.distributions)
    return distribution_weights(state.relations, plan.weights, count, state.step, plan.steps)


def _relate_if_due(plan: Plan, state: TrainState, observer: Observer) -> LoggedRelations | None:
    """Estimates the relations if it is time to, and returns what the log records of them."""
    if plan.relate is None:
        return None
    due = state.relations is None or (plan.refresh is not None and state.step % plan.refresh == 0)
    # A checkpoint at a refresh step holds the relations from before it, so a resumed run estimates them again: the
    # same values, since an estimate depends on the step and the parameters only.
    if not due:
        return None
    started = time.perf_counter()
    state.relations = plan.relate(state.step, state.optimizer.flat.detach(), state.relations)
    state.relating += time.perf_counter() - started
    observer.related(state.step, state.relations)
    data = state.relations.to_json()
    return LoggedRelations(data["values"], data["standard_errors"])


def _step(plan: Plan, state: TrainState, session: Session) -> LogRow:
    """Applies θ ← Opt(θ, (1/T) Σ wᵢ gᵢ) and returns the step's row of the log.

    Weights have mean 1 over all distributions, so the sum over T tasks that are drawn equally often is an unbiased
    estimate of the weighted mean gradient. Dividing by the weights of the drawn tasks instead would cancel the
    weights: completely with one task per step.
    """
    weights = StepWeights(gradient_weights(plan, state), plan.weights, plan.sampler.shot_tasks > 0, state.norms)
    shards = plan.sampler.shards(state.step, weights.probabilities, weights.drawn)
    sources = positions(shards, plan.sampler.sources)
    outer = weights.outer(sources)

    def weigh(metrics: TaskMetrics) -> NDArray[np.float32]:
        # With one factor for all tasks' norms and weights, a gradient is scaled once, where it was computed.
        require_finite(metrics, state.step)
        return (outer / len(sources) * weights.balance(metrics, sources)).astype(np.float32)

    jobs = gradient_jobs(shards, state.step, weights.inner(sources))
    reduced = session.reduce(jobs, state.optimizer.flat.detach(), weigh)
    effects = outer * weights.balance(reduced.metrics, sources) * reduced.metrics.norms
    state.norms = weights.norms_after(reduced.metrics, sources)
    state.optimizer.update(state.step, torch.from_numpy(reduced.gradient))
    state.step += 1
    return _row(state.step, reduced.metrics, weights, sources, effects)


def _row(
    step: int, metrics: TaskMetrics, weights: StepWeights, sources: NDArray[np.int64], effects: NDArray[np.float64]
) -> LogRow:
    logged = weights.logged
    return LogRow(
        step=step,
        loss=float(metrics.losses.mean()),
        psnr=float(psnr_of_mse(metrics.mse).mean()),
        terms={name: float(values.mean()) for name, values in metrics.terms.items()},
        weights=logged.tolist(),
        drawn=np.bincount(sources, minlength=len(logged)).tolist(),
        norms=_mean_by(metrics.norms.astype(np.float64), sources, len(logged)),
        shares=(np.bincount(sources, effects, len(logged)) / max(effects.sum(), 1e-30)).tolist(),
        agreement=None if metrics.sketches is None else mean_cosine(metrics.sketches),
        effective_tasks=weights.effective,
    )


def _mean_by(values: NDArray[np.float64], sources: NDArray[np.int64], count: int) -> list[float | None]:
    """Averages values by distribution; None for a distribution that was not drawn."""
    return [float(values[sources == i].mean()) if (sources == i).any() else None for i in range(count)]


def _validate_if_due(plan: Plan, state: TrainState, session: Session, observer: Observer) -> None:
    if not plan.validate or state.step % plan.validate_every:
        return
    values = session.map([ValidationJob(name) for name in plan.validate], state.optimizer.averaged)
    psnr = float(np.mean(np.concatenate(values)))
    if plan.best is not None and all(psnr > before for _, before in state.validation):
        plan.best(state.optimizer.averaged)
    state.validation.append((state.step, psnr))
    observer.validated(state.step, psnr)

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
from metarestore.graphs.weights import balanced, combined, effective_tasks, softmax_weights
from metarestore.learners.gradients import TaskGradients, joined
from metarestore.learners.learner import psnr_of_mse
from metarestore.learners.sketch import mean_cosine
from metarestore.training.interrupt import Interrupted, graceful_stop
from metarestore.training.jobs import GradientJob, ValidationJob
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
        relate: Estimates relations at a step, or None where there is nothing to relate (learning from the target).
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
    relate: Callable[[int, torch.Tensor], Relations] | None
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
            _relate_if_due(plan, state, observer)
            weights = gradient_weights(plan, state)
            shards = plan.sampler.shards(state.step, weights if plan.weights.acts_on == "sampling" else None)
            jobs = [GradientJob(shard, state.step) for shard in shards]
            results = session.map(jobs, state.optimizer.flat.detach())
            row = _update(plan, state, joined(results), positions(shards, plan.sampler.distributions), weights)
            state.seconds += time.perf_counter() - started
            observer.step({**row, "seconds": state.seconds})
            _validate_if_due(plan, state, session, observer)
            if stop.requested or state.step % plan.checkpoint_every == 0 or state.step == plan.steps:
                save_state(checkpoints, state, plan.keep)
                observer.saved(state.step)
            if stop.requested and state.step < plan.steps:
                raise Interrupted(state.step)
    return state


def gradient_weights(plan: Plan, state: TrainState) -> NDArray[np.float64]:
    """Returns the weights (N,) of this step, mean 1."""
    if state.relations is None:
        return np.ones(len(plan.sampler.distributions))
    return softmax_weights(state.relations.values, plan.weights.temperature)


def _relate_if_due(plan: Plan, state: TrainState, observer: Observer) -> None:
    if plan.relate is None:
        return
    due = state.relations is None or (plan.refresh is not None and state.step % plan.refresh == 0)
    # A checkpoint at a refresh step holds the relations from before it, so a resumed run estimates them again: the
    # same values, since an estimate depends on the step and the parameters only.
    if due:
        state.relations = plan.relate(state.step, state.optimizer.flat.detach())
        observer.related(state.step, state.relations)


def _update(
    plan: Plan, state: TrainState, found: TaskGradients, which: NDArray[np.int64], weights: NDArray[np.float64]
) -> Row:
    """Applies θ ← Opt(θ, Σ wᵢ gᵢ / Σ wᵢ) and returns the step's row of the log."""
    norms = np.linalg.norm(found.gradients, axis=1).astype(np.float64)
    if not (np.isfinite(norms).all() and np.isfinite(found.losses).all()):
        raise UserError(
            f"step {state.step + 1}: the loss or its gradient is not finite; lower training.optimizer.lr or "
            "learner.inner_lr (the last checkpoint is as it was)"
        )
    _remember_norms(state, norms, which, len(plan.sampler.distributions))
    gradients = found.gradients
    if plan.weights.balance == "unit":
        gradients = balanced(gradients, norms)
    elif plan.weights.balance == "ema":
        gradients = balanced(gradients, np.asarray(state.norms)[which])
    acting = np.ones(len(which)) if plan.weights.acts_on == "sampling" else weights[which]
    state.optimizer.update(state.step, torch.from_numpy(combined(gradients, acting)))
    state.step += 1
    effects = acting * np.linalg.norm(gradients, axis=1)
    row = {
        "step": state.step,
        "loss": float(found.losses.mean()),
        "psnr": float(psnr_of_mse(found.mse).mean()),
        "weights": weights.tolist(),
        "effective_tasks": effective_tasks(weights),
        "norms": _mean_by(norms, which, len(weights)),
        "shares": (np.bincount(which, effects, len(weights)) / max(effects.sum(), 1e-30)).tolist(),
    }
    if found.sketches is not None:
        row["agreement"] = mean_cosine(found.sketches)
    state.log.append(row)
    return row


def _remember_norms(state: TrainState, norms: NDArray[np.float64], which: NDArray[np.int64], count: int) -> None:
    state.norms = state.norms or [0.0] * count
    for norm, i in zip(norms.tolist(), which.tolist(), strict=True):
        state.norms[i] = norm if not state.norms[i] else _NORM_MEMORY * state.norms[i] + (1 - _NORM_MEMORY) * norm


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

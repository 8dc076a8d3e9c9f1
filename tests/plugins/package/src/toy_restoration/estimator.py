"""The estimator `toy_brightness`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from metarestore.graphs.relations import Relations
from metarestore.seeds import derived_seed
from metarestore.workspace.job import Runner
from metarestore.workspace.workspace import Workspace
from toy_restoration.specs import BrightnessSpec


@dataclass(frozen=True)
class BrightnessJob:
    """Measures what one auxiliary distribution makes of the HR shots; runs here or on a worker."""

    distribution: str
    draws: int

    def run(self, workspace: Workspace, flat: Tensor) -> np.ndarray:
        """Returns the mean brightness of each draw (draws,)."""
        distribution = workspace.auxiliary(self.distribution)
        seed = derived_seed(workspace.experiment.seed, "brightness")
        drawn = [distribution.draw(seed, index) for index in range(self.draws)]
        return np.asarray([float(distribution.pairs_on(workspace.seen_shots[1], draw)[0].mean()) for draw in drawn])


def estimate_brightness(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: BrightnessSpec,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Relates by exp(−10·|difference of brightness|)."""
    names = tuple(workspace.study.auxiliary)
    bright = np.stack(run([BrightnessJob(name, options.draws) for name in names], flat))
    values = np.exp(-10 * np.abs(bright.mean(axis=1) - float(workspace.seen_shots[0].mean())))
    errors = 10 * values * bright.std(axis=1, ddof=1) / np.sqrt(options.draws)
    return Relations(workspace.experiment.graph.target, names, values, errors, options.kind, options.draws)

"""The `response` estimator: which synthetic degradations answer to the target's HR images as the target does.

Every auxiliary distribution degrades the target's own HR shots, which removes image content from the comparison, and
`identification` measures what each draw did to each shot, as it measures the target's shots. It finds what a target is
made of, not what is worth learning from: experiments/results/planted_relations.md tells how far the two are apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.estimators import ResponseEstimator
from metarestore.graphs.compare import compare
from metarestore.graphs.identification import identify
from metarestore.graphs.relations import Relations
from metarestore.learners.workspace import Runner, Workspace
from metarestore.seeds import derived_seed
from metarestore.tasks.distribution import SyntheticTasks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ResponseJob:
    """Measures what one auxiliary distribution does to the target's HR shots."""

    distribution: str
    draws: int

    def run(self, workspace: Workspace, flat: Tensor) -> Floats:
        """Returns the features of each draw on each shot, (draws, K, FEATURES)."""
        del flat
        hr = workspace.shots.support_hr
        distribution = workspace.distribution(self.distribution)
        seed = derived_seed(workspace.experiment.seed, "response")
        draws = [distribution.draw(seed, index) for index in range(self.draws)]
        if isinstance(distribution, SyntheticTasks):
            return identify(torch.stack([distribution.degrade(hr, draw) for draw in draws]), hr, distribution.scale)
        # Real pairs cannot be applied to other images: their own stand in, in turn, one for each shot.
        rows = []
        for draw in draws:
            task = distribution.build(draw)
            own = identify(task.support_lr[None], task.support_hr, distribution.scale)[0]
            rows.append(own[np.arange(len(hr)) % len(own)])
        return np.stack(rows)


def estimate_response(workspace: Workspace, run: Runner, flat: Tensor, options: ResponseEstimator) -> Relations:
    """Relates the target to every auxiliary distribution by what they do to its HR shots; needs no training."""
    names = tuple(workspace.study.auxiliary)
    auxiliary = np.stack(run([ResponseJob(name, options.draws) for name in names], flat))
    shots = workspace.shots
    target = identify(shots.support_lr[None], shots.support_hr, workspace.study.scale)[0]
    found = compare(target, auxiliary, workspace.experiment.seed)
    return Relations(
        target=workspace.experiment.graph.target,
        auxiliary=names,
        values=found.values,
        standard_errors=found.standard_errors,
        estimator="response",
        draws=options.draws,
        reliability=found.reliability,
        matrix=found.matrix,
    )

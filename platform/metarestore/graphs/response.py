"""The `response` estimator: which synthetic degradations answer to the target's HR images as the target does.

Every auxiliary distribution degrades the target's own HR shots, which removes image content from the comparison, and
what each draw did to each shot is measured as it is for the target's shots. There are two ways to measure and compare:

`identification` tells blur, noise and compression apart and asks which distribution the shots are likely to come from.
It finds what a target is made of.

`spectra` asks how much of each frequency is left, and compares means by their distance. It mixes up noise and detail,
and in return still grades distributions when none of them fits, as with most real cameras.
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
from metarestore.graphs.spectra import compare_spectra, response
from metarestore.learners.workspace import Runner, Workspace
from metarestore.seeds import derived_seed

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ResponseJob:
    """Measures what one auxiliary distribution does to the target's HR shots."""

    distribution: str
    options: ResponseEstimator

    def run(self, workspace: Workspace, flat: Tensor) -> Floats:
        """Returns the features of each draw on each shot, (draws, K, F)."""
        del flat
        _, hr = workspace.seen_shots
        distribution = workspace.auxiliary(self.distribution)
        seed = derived_seed(workspace.experiment.seed, "response")
        draws = [distribution.draw(seed, index) for index in range(self.options.draws)]
        if distribution.degrades:
            lr = torch.stack([distribution.degrade(hr, draw) for draw in draws])
            return _features(lr, hr, distribution.scale, self.options)
        # What cannot be applied to other images shows its own: they stand in, in turn, one for each shot.
        rows = []
        for draw in draws:
            own_lr, own_hr = distribution.build_support(draw)
            own = _features(own_lr[None], own_hr, distribution.scale, self.options)[0]
            rows.append(own[np.arange(len(hr)) % len(own)])
        return np.stack(rows)


def _features(lr: Tensor, hr: Tensor, scale: int, options: ResponseEstimator) -> Floats:
    """Measures draws of LR images (draws, K, 3, h, w) against HR images (K, 3, s·h, s·w): (draws, K, F)."""
    if options.features == "identification":
        return identify(lr, hr, scale)
    return np.stack([response(one, hr, scale) for one in lr])


def estimate_response(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: ResponseEstimator,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Relates the target to every auxiliary distribution by what they do to its HR shots; needs no training."""
    del step, previous
    names = tuple(workspace.study.auxiliary)
    auxiliary = np.stack(run([ResponseJob(name, options) for name in names], flat))
    lr, hr = workspace.seen_shots
    target = _features(lr[None], hr, workspace.study.scale, options)[0]
    compared = compare if options.features == "identification" else compare_spectra
    found = compared(target, auxiliary, workspace.experiment.seed)
    return found.relations(workspace.experiment.graph.target, names, "response", options.draws)

"""The `response` estimator: compares the effects of the target and of synthetic degradations on the same HR images.

Every auxiliary distribution degrades the target's HR shots, which removes image content from the comparison, and the
effect of each draw on each shot is measured in the same way as for the target. There are two kinds of features:

`identification` has separate features of blur, noise and compression, and computes how likely the shots come from each
distribution. It identifies the components of a target.

`spectra` measures the power at each frequency and compares means by their distance. It cannot distinguish noise from
detail, but still ranks distributions if none of them matches, as with most real cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.estimators import ResponseEstimatorSpec
from metarestore.graphs.compare import compare
from metarestore.graphs.identification import identify
from metarestore.graphs.relations import Relations
from metarestore.graphs.spectra import compare_spectra, response
from metarestore.seeds import derived_seed
from metarestore.workspace.job import Runner
from metarestore.workspace.workspace import Workspace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ResponseJob:
    """Measures the effect of one auxiliary distribution on the target's HR shots."""

    distribution: str
    options: ResponseEstimatorSpec

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
        # Distributions that cannot degrade given images use their own, cyclically, one for each shot.
        rows = []
        for draw in draws:
            own_lr, own_hr = distribution.build_support(draw)
            own = _features(own_lr[None], own_hr, distribution.scale, self.options)[0]
            rows.append(own[np.arange(len(hr)) % len(own)])
        return np.stack(rows)


def _features(lr: Tensor, hr: Tensor, scale: int, options: ResponseEstimatorSpec) -> Floats:
    """Measures draws of LR images (draws, K, 3, h, w) against HR images (K, 3, s·h, s·w): (draws, K, F)."""
    if options.features == "identification":
        return identify(lr, hr, scale)
    return np.stack([response(one, hr, scale) for one in lr])


def estimate_response(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: ResponseEstimatorSpec,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Relates the target to every auxiliary distribution by what they do to its HR shots; needs no training."""
    del step, previous
    names = tuple(workspace.study.auxiliary)
    auxiliary = np.stack(run([ResponseJob(name, options) for name in names], flat))
    lr, hr = workspace.seen_shots
    target = _features(lr[None], hr, workspace.study.scale, options)[0]
    comparison = compare if options.features == "identification" else compare_spectra
    compared = comparison(target, auxiliary, workspace.experiment.seed)
    return compared.relations(workspace.experiment.graph.target, names, "response", options.draws)

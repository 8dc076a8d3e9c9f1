"""The `descriptor` estimator: compares degradation descriptors of the target with those of synthetic degradations.

The degradation encoder of a trained KDSR describes each of the target's shots, and the same HR images under every
distribution. Cosine similarities of descriptors are not informative: they are near 1 for all images, and depend mostly
on content. Therefore the descriptors of a shot are only compared with each other, by `compare`: relative to their mean
over all distributions, and in units of the spread between draws of a distribution. The compared descriptor is D′, the
one in the contrastive loss; D is derived from it by a layer that is trained by the image loss only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.estimators import DescriptorEstimatorSpec
from metarestore.errors import UserError
from metarestore.graphs.compare import compare
from metarestore.graphs.relations import Relations
from metarestore.models.kdsr import KDSR
from metarestore.seeds import derived_seed
from metarestore.workspace.job import Runner
from metarestore.workspace.workspace import Workspace

Floats = NDArray[np.float64]

_STRIP = 2**18
"""Maximum number of LR pixels, over all images, in one forward pass."""


def descriptors(network: KDSR, lr: Tensor, hr: Tensor) -> Floats:
    """Computes the degradation descriptors D′ of pairs of any size.

    Args:
        network: A KDSR with a degradation encoder; a teacher uses both images, a student only LR.
        lr: (K, 3, h, w) in [0, 1].
        hr: (K, 3, s·h, s·w) in [0, 1].

    Returns:
        (K, 4C).
    """
    if network.estimator is None:
        raise TypeError("a network without a degradation encoder has no descriptors")
    device = next(network.parameters()).device
    with torch.no_grad():
        inputs = network.encoder_input(lr.to(device), hr.to(device))
        described = network.estimator.in_strips(inputs, max(_STRIP // len(lr), 1)).distilled
    return described.cpu().numpy().astype(np.float64)


@dataclass(frozen=True)
class DescriptorJob:
    """Computes descriptors of the target's HR shots as degraded by one auxiliary distribution.

    Attributes:
        distribution: Name of the distribution.
        draws: Number of tasks drawn from it.
    """

    distribution: str
    draws: int

    def run(self, workspace: Workspace, flat: Tensor) -> Floats:
        """Returns the descriptor of each draw on each shot, (draws, K, 4C)."""
        del flat
        network, (_, hr) = workspace.describer, workspace.seen_shots
        distribution = workspace.auxiliary(self.distribution)
        seed = derived_seed(workspace.experiment.seed, "descriptor")
        rows = []
        for index in range(self.draws):
            described = descriptors(network, *distribution.pairs_on(hr, distribution.draw(seed, index)))
            # Distributions that cannot degrade given images use their own: their mean descriptor is used for every
            # shot.
            rows.append(
                described if distribution.degrades else np.repeat(described.mean(axis=0)[None], len(hr), axis=0)
            )
        return np.stack(rows)


def estimate_descriptor(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: DescriptorEstimatorSpec,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Relates the target to every auxiliary distribution by their descriptors; trains nothing.

    Raises:
        UserError: The network's descriptors are not finite.
    """
    del step, previous
    names, (lr, hr) = tuple(workspace.study.auxiliary), workspace.seen_shots
    auxiliary = np.stack(run([DescriptorJob(name, options.draws) for name in names], flat))
    target = descriptors(workspace.describer, lr, hr)
    if not (np.isfinite(target).all() and np.isfinite(auxiliary).all()):
        raise UserError(f"graph.estimator: the descriptors of {options.network} are not finite; use another network")
    comparison = compare(target, auxiliary, workspace.experiment.seed)
    return comparison.relations(workspace.experiment.graph.target, names, "descriptor", options.draws)

"""The `descriptor` estimator: which synthetic degradation a trained network describes as it describes the target's.

The estimator of a KDSR that learned to tell degradations apart describes each of the target's shots, and the same HR
images under every distribution. Plain cosines of descriptors say little: they are near 1 for whatever images, and what
differs first is content. So the descriptors of a shot are compared with each other only, as `compare` does: relative to
their mean over all distributions, and in units of how much the draws of a distribution differ. What is compared is D′,
which the contrast of the network's training is about; D follows from it by a layer that the images alone train.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.estimators import DescriptorEstimator
from metarestore.errors import UserError
from metarestore.graphs.compare import compare
from metarestore.graphs.relations import Relations
from metarestore.learners.workspace import Runner, Workspace
from metarestore.models.kdsr import KDSR
from metarestore.seeds import derived_seed

Floats = NDArray[np.float64]

_STRIP = 2**18
"""LR pixels, over all images, that the network sees at once."""


def descriptors(network: KDSR, lr: Tensor, hr: Tensor) -> Floats:
    """Describes the degradation of pairs of any size by D′.

    Args:
        network: A KDSR with an estimator; a teacher's sees both images, a student's LR alone.
        lr: (K, 3, h, w) in [0, 1].
        hr: (K, 3, s·h, s·w) in [0, 1].

    Returns:
        (K, 4C).
    """
    if network.estimator is None:
        raise TypeError("a network without an estimator describes all images alike")
    device = next(network.parameters()).device
    with torch.no_grad():
        seen = network.seen(lr.to(device), hr.to(device))
        described = network.estimator.in_strips(seen, max(_STRIP // len(lr), 1)).distilled
    return described.cpu().numpy().astype(np.float64)


@dataclass(frozen=True)
class DescriptorJob:
    """Describes what one auxiliary distribution makes of the target's HR shots.

    Attributes:
        distribution: Its name.
        draws: Tasks drawn from it.
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
            found = descriptors(network, *distribution.pairs_on(hr, distribution.draw(seed, index)))
            # What cannot be applied to other images shows its own: one mean descriptor stands in for every shot.
            rows.append(found if distribution.degrades else np.repeat(found.mean(axis=0)[None], len(hr), axis=0))
        return np.stack(rows)


def estimate_descriptor(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: DescriptorEstimator,
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
        raise UserError(f"graph.estimator: the descriptors by {options.network} are not finite; take another network")
    found = compare(target, auxiliary, workspace.experiment.seed)
    return found.relations(workspace.experiment.graph.target, names, "descriptor", options.draws)

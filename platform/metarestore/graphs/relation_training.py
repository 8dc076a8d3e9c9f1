"""How a relation network learns: episodes in which every distribution degrades the same clean patch, by its own loss.

The loss never sees the restoration network. Weights that were learned through the weighted restoration losses would
move to the distribution that is easiest to restore, whatever the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from metarestore.config.estimators import LearnedEstimatorSpec
from metarestore.degradations import bicubic_downsample
from metarestore.degradations.dihedral import flip_rotate
from metarestore.learners.contrast import contrastive_losses
from metarestore.models.network import seeded
from metarestore.models.relation_network import RelationNetwork, cosines
from metarestore.seeds import derived_seed
from metarestore.tasks.distribution import OpenDistribution, draw_patches, to_tensor
from metarestore.tasks.images import ImageStore
from metarestore.tasks.task import Episode
from metarestore.workspace.workspace import Workspace

TEMPERATURE = 0.1
"""What cosines are divided by to become log probabilities."""

_SIDE = 24
"""Largest side of a training patch, in LR pixels: three JPEG blocks."""

_TASKS = 4
"""Tasks of each distribution in an episode; half of them are prototypes, half queries, and then the other way round."""

_CONTRAST, _CONTRAST_TEMPERATURE = 0.5, 0.2
"""Weight and temperature of the contrastive loss."""

_LAST_RATE = 0.05
"""The rate falls to this share, along half a cosine."""


class Pairs(NamedTuple):
    """Images with what they would be had they only been downsampled bicubically; both (..., 3, h, w) in [0, 1]."""

    lr: Tensor
    clean: Tensor


@dataclass
class Training:
    """A relation network in training.

    Attributes:
        network: The network.
        optimizer: Adam.
        done: Steps that were taken.
    """

    network: RelationNetwork
    optimizer: torch.optim.Adam
    done: int = 0

    @classmethod
    def start(cls, options: LearnedEstimatorSpec, seed: int, carried: NDArray[np.float32] | None = None) -> Training:
        """Makes a network with the initial weights of `seed`, or takes up what `carry` returned."""
        sizes = {key: getattr(options, key) for key in ("dimension", "memory", "message_passing")}
        network = seeded(RelationNetwork, derived_seed(seed, "relation network"), **sizes)
        training = cls(network, torch.optim.Adam(network.parameters(), lr=options.lr))
        if carried is not None:
            training._take_up(torch.from_numpy(carried.copy()))
        return training

    def carry(self) -> NDArray[np.float32]:
        """Returns all that a later training goes on from: parameters, both moments of Adam, and the steps taken."""
        parameters = list(self.network.parameters())
        states = [self.optimizer.state[p] for p in parameters]
        pieces = [p.detach() for p in parameters]
        for moment in ("exp_avg", "exp_avg_sq"):
            pieces += [s.get(moment, torch.zeros_like(p)) for s, p in zip(states, parameters, strict=True)]
        return torch.cat([*(piece.flatten() for piece in pieces), torch.tensor([float(self.done)])]).numpy()

    def _take_up(self, carried: Tensor) -> None:
        parameters = list(self.network.parameters())
        self.done = int(carried[-1])
        sizes = [p.numel() for p in parameters]
        values, first, second = (torch.split(part, sizes) for part in carried[:-1].chunk(3))
        for p, value, m, v in zip(parameters, values, first, second, strict=True):
            p.data.copy_(value.view_as(p))
            moments = {"exp_avg": m.view_as(p).clone(), "exp_avg_sq": v.view_as(p).clone()}
            self.optimizer.state[p] = {"step": torch.tensor(float(self.done)), **moments}

    def learn(self, workspace: Workspace, options: LearnedEstimatorSpec, until: int) -> list[float]:
        """Takes steps until `until` were taken, and returns the loss of each.

        The rate falls over all `options.steps`, so that a training in parts is the same as one at a stretch.
        """
        seed = derived_seed(workspace.experiment.seed, "relation training")
        side, losses = patch_side(workspace), []
        while self.done < until:
            falling = (1 + math.cos(math.pi * self.done / options.steps)) / 2
            self.optimizer.param_groups[0]["lr"] = options.lr * (_LAST_RATE + (1 - _LAST_RATE) * falling)
            loss = episode_loss(self.network, episode(workspace, side, seed, self.done))
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.done += 1
            losses.append(loss.item())
        return losses


def episode_loss(network: RelationNetwork, pairs: Pairs) -> Tensor:
    """Computes the loss of an episode (N, tasks, ...): which distribution is a query from, and a contrast of tasks.

    The first is the cross-entropy of the cosines between nodes, as they are used later; the second tells all embeddings
    of the episode apart.
    """
    count, tasks = pairs.lr.shape[:2]
    embeddings = network.encoder(*(images.flatten(0, 1) for images in pairs)).view(count, tasks, -1)
    own = torch.arange(count).repeat_interleave(tasks // 2)
    told = []
    for known, asked in ((embeddings[:, ::2], embeddings[:, 1::2]), (embeddings[:, 1::2], embeddings[:, ::2])):
        scores = cosines(network(known.mean(dim=1), asked.flatten(0, 1))) / TEMPERATURE
        told.append(F.cross_entropy(scores, own))
    contrast = contrastive_losses(embeddings, _CONTRAST_TEMPERATURE).mean()
    return torch.stack(told).mean() + _CONTRAST * contrast


def episode(workspace: Workspace, side: int, seed: int, index: int) -> Pairs:
    """Draws tasks of every auxiliary distribution, all on one clean patch: images (N, tasks, 3, h, w).

    Distributions that cannot degrade the patch come with patches of their own.

    Args:
        workspace: The study.
        side: Side of the patch, in HR pixels.
        seed: Seed of the draws.
        index: Which episode.
    """
    geometry, names = Episode(_TASKS, 0, side), tuple(workspace.study.auxiliary)
    found: dict[str, Pairs] = {}
    degrading: list[OpenDistribution] = []
    for distribution in map(workspace.auxiliary, names):
        if distribution.degrades:
            degrading.append(distribution)
        else:
            own = distribution.with_episode(geometry)
            lr, hr = own.build_support(own.draw(seed, index))
            found[distribution.name] = Pairs(lr, bicubic_downsample(hr, distribution.scale).clamp(0, 1))
    if degrading:
        found |= _degraded(degrading, workspace.images("train"), geometry, seed, index)
    return Pairs(*(torch.stack([found[name][k] for name in names]) for k in (0, 1)))


def _degraded(
    distributions: Sequence[OpenDistribution], images: ImageStore, geometry: Episode, seed: int, index: int
) -> dict[str, Pairs]:
    """Degrades one patch by several draws of each distribution; the k-th draws of all have the same noise fields."""
    refs, _ = draw_patches(images, "train", geometry, seed, index)
    first, found = refs[0], {}
    hr = flip_rotate(to_tensor(images.patch(first.image, *first.box)), first.turn)[None]
    clean = bicubic_downsample(hr, distributions[0].scale).clamp(0, 1).expand(len(refs), -1, -1, -1)
    for distribution in distributions:
        lr = []
        for k, ref in enumerate(refs):
            draw = distribution.draw_on(seed, index * len(refs) + k, [replace(first, seed=ref.seed)], [])
            lr.append(distribution.degrade(hr, draw))
        found[distribution.name] = Pairs(torch.cat(lr), clean)
    return found


def patch_side(workspace: Workspace) -> int:
    """Returns the side of a training patch, in HR pixels: no larger than the shots or any photograph learned from."""
    scale = workspace.study.scale
    sides = [_SIDE * scale, *workspace.shots.support_hr.shape[-2:]]
    for distribution in map(workspace.auxiliary, workspace.study.auxiliary):
        sides += [side for size in distribution.sizes() for side in size]
    return int(min(sides)) // scale * scale

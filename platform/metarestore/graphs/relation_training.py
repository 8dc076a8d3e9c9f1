"""Training of the relation network: episodes in which every distribution degrades the same clean patch.

The loss does not involve the restoration network. Weights learned through weighted restoration losses would drift to
the distribution that is easiest to restore, regardless of the target.
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
"""Softmax temperature of the cosine similarities."""

_SIDE = 24
"""Maximum side of a training patch, in LR pixels: three JPEG blocks."""

_TASKS = 4
"""Tasks of each distribution in an episode; half of them are prototypes, half queries, and vice versa."""

_CONTRAST, _CONTRAST_TEMPERATURE = 0.5, 0.2
"""Weight and temperature of the contrastive loss."""

_FINAL_LR = 0.05
"""Final learning rate as a fraction of the initial one; half-cosine schedule."""


class Pairs(NamedTuple):
    """LR images and the bicubically downsampled HR images, both (..., 3, h, w) in [0, 1]."""

    lr: Tensor
    clean: Tensor


@dataclass
class Training:
    """A relation network in training.

    Attributes:
        network: The network.
        optimizer: Adam.
        done: Number of steps taken.
    """

    network: RelationNetwork
    optimizer: torch.optim.Adam
    done: int = 0

    @classmethod
    def start(cls, options: LearnedEstimatorSpec, seed: int, carried: NDArray[np.float32] | None = None) -> Training:
        """Creates a network with initial weights from `seed`, or restores the state returned by `carry`."""
        sizes = {key: getattr(options, key) for key in ("dimension", "memory", "message_passing")}
        network = seeded(RelationNetwork, derived_seed(seed, "relation network"), **sizes)
        training = cls(network, torch.optim.Adam(network.parameters(), lr=options.lr))
        if carried is not None:
            training._restore(torch.from_numpy(carried.copy()))
        return training

    def carry(self) -> NDArray[np.float32]:
        """Returns the state to resume training from: parameters, both moments of Adam, and the number of steps."""
        parameters = list(self.network.parameters())
        states = [self.optimizer.state[p] for p in parameters]
        pieces = [p.detach() for p in parameters]
        for moment in ("exp_avg", "exp_avg_sq"):
            pieces += [s.get(moment, torch.zeros_like(p)) for s, p in zip(states, parameters, strict=True)]
        return torch.cat([*(piece.flatten() for piece in pieces), torch.tensor([float(self.done)])]).numpy()

    def _restore(self, carried: Tensor) -> None:
        parameters = list(self.network.parameters())
        self.done = int(carried[-1])
        sizes = [p.numel() for p in parameters]
        values, first, second = (torch.split(part, sizes) for part in carried[:-1].chunk(3))
        for p, value, m, v in zip(parameters, values, first, second, strict=True):
            p.data.copy_(value.view_as(p))
            moments = {"exp_avg": m.view_as(p).clone(), "exp_avg_sq": v.view_as(p).clone()}
            self.optimizer.state[p] = {"step": torch.tensor(float(self.done)), **moments}

    def learn(self, workspace: Workspace, options: LearnedEstimatorSpec, until: int) -> list[float]:
        """Trains up to a total of `until` steps, and returns the loss of each step.

        The learning-rate schedule spans all `options.steps`, so that training in parts equals training at once.
        """
        seed = derived_seed(workspace.experiment.seed, "relation training")
        side, losses = patch_side(workspace), []
        while self.done < until:
            decay = (1 + math.cos(math.pi * self.done / options.steps)) / 2
            self.optimizer.param_groups[0]["lr"] = options.lr * (_FINAL_LR + (1 - _FINAL_LR) * decay)
            loss = episode_loss(self.network, episode(workspace, side, seed, self.done))
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.done += 1
            losses.append(loss.item())
        return losses


def episode_loss(network: RelationNetwork, pairs: Pairs) -> Tensor:
    """Computes the loss of an episode (N, tasks, ...): a classification loss plus a contrastive loss.

    The first is the cross-entropy of predicting the distribution of a query from the cosine similarities between nodes,
    which are also used for estimation; the second separates all embeddings of the episode.
    """
    count, tasks = pairs.lr.shape[:2]
    embeddings = network.encoder(*(images.flatten(0, 1) for images in pairs)).view(count, tasks, -1)
    own = torch.arange(count).repeat_interleave(tasks // 2)
    losses = []
    for prototypes, queries in ((embeddings[:, ::2], embeddings[:, 1::2]), (embeddings[:, 1::2], embeddings[:, ::2])):
        scores = cosines(network(prototypes.mean(dim=1), queries.flatten(0, 1))) / TEMPERATURE
        losses.append(F.cross_entropy(scores, own))
    contrast = contrastive_losses(embeddings, _CONTRAST_TEMPERATURE).mean()
    return torch.stack(losses).mean() + _CONTRAST * contrast


def episode(workspace: Workspace, side: int, seed: int, index: int) -> Pairs:
    """Draws tasks of every auxiliary distribution, all on one clean patch: images (N, tasks, 3, h, w).

    Distributions that cannot degrade given patches contribute their own.

    Args:
        workspace: The study.
        side: Side of the patch, in HR pixels.
        seed: Seed of the draws.
        index: Index of the episode.
    """
    geometry, names = Episode(_TASKS, 0, side), tuple(workspace.study.auxiliary)
    pairs: dict[str, Pairs] = {}
    degrading: list[OpenDistribution] = []
    for distribution in map(workspace.auxiliary, names):
        if distribution.degrades:
            degrading.append(distribution)
        else:
            own = distribution.with_episode(geometry)
            lr, hr = own.build_support(own.draw(seed, index))
            pairs[distribution.name] = Pairs(lr, bicubic_downsample(hr, distribution.scale).clamp(0, 1))
    if degrading:
        pairs |= _degraded(degrading, workspace.images("train"), geometry, seed, index)
    return Pairs(*(torch.stack([pairs[name][k] for name in names]) for k in (0, 1)))


def _degraded(
    distributions: Sequence[OpenDistribution], images: ImageStore, geometry: Episode, seed: int, index: int
) -> dict[str, Pairs]:
    """Degrades one patch by several draws of each distribution; the k-th draws of all share their noise seeds."""
    refs, _ = draw_patches(images, "train", geometry, seed, index)
    first, pairs = refs[0], {}
    hr = flip_rotate(to_tensor(images.patch(first.image, *first.box)), first.turn)[None]
    clean = bicubic_downsample(hr, distributions[0].scale).clamp(0, 1).expand(len(refs), -1, -1, -1)
    for distribution in distributions:
        lr = []
        for k, ref in enumerate(refs):
            draw = distribution.draw_on(seed, index * len(refs) + k, [replace(first, seed=ref.seed)], [])
            lr.append(distribution.degrade(hr, draw))
        pairs[distribution.name] = Pairs(torch.cat(lr), clean)
    return pairs


def patch_side(workspace: Workspace) -> int:
    """Returns the side of a training patch, in HR pixels: at most that of the shots and of all training photographs."""
    scale = workspace.study.scale
    sides = [_SIDE * scale, *workspace.shots.support_hr.shape[-2:]]
    for distribution in map(workspace.auxiliary, workspace.study.auxiliary):
        sides += [side for size in distribution.sizes() for side in size]
    return int(min(sides)) // scale * scale

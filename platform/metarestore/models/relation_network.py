"""A distortion relation network: pairs to embeddings, a memory of relation vectors, and messages among them.

In the style of DRTL (Li et al., A Close Look at Few-shot Real Image Super-resolution from the Distortion Relation
Perspective, 2021), whose layers and sizes are not public: the memory and the messages follow ARML (Yao et al., Automated
Relational Meta-learning, 2020).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (16, 24)
"""Channels of the encoder's two layers: it must learn in seconds on one core."""

_GRAY_LEVEL = 1 / 255
"""What inputs are compressed around: differences of less are rounding."""

_TINY = 1e-6


class Nodes(NamedTuple):
    """Embeddings as nodes of the graph.

    Attributes:
        distributions: One node for each auxiliary distribution, (..., N, d).
        queries: One node for each image that is asked about, (..., Q, d).
        attention: How much each of these, (..., N+Q, M), attends to the entries of the memory; rows sum to 1.
    """

    distributions: Tensor
    queries: Tensor
    attention: Tensor


class PairEncoder(nn.Module):
    """Embeds what a degradation did to an image.

    It sees the fine detail of LR and its difference from the bicubically downsampled HR image, compressed so that weak
    degradations count beside strong ones. What is pooled is the mean and the log power of the last maps.

    Args:
        dimension: d, length of an embedding.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        first, last = _WIDTHS
        self.first = nn.Conv2d(6, first, 3, padding=1)
        self.last = nn.Conv2d(first, last, 3, padding=1)
        self.embed = nn.Linear(2 * (first + last), dimension)

    def forward(self, lr: Tensor, clean: Tensor) -> Tensor:
        """Embeds LR (B, 3, h, w) and bicubically downsampled HR images of the same size, in [0, 1]: (B, d)."""
        detail = lr - F.avg_pool2d(F.pad(lr, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        seen = torch.cat([_compressed(detail), _compressed(lr - clean)], dim=1)
        first = self.first(seen)
        last = self.last(F.leaky_relu(first, 0.1))
        return self.embed(torch.cat([_pooled(first), _pooled(last)], dim=1))


def _compressed(images: Tensor) -> Tensor:
    return torch.asinh(images / _GRAY_LEVEL)


def _pooled(maps: Tensor) -> Tensor:
    """Returns the mean and half the log power of maps (B, C, h, w): (B, 2C)."""
    power = maps.square().mean(dim=(-2, -1))
    return torch.cat([maps.mean(dim=(-2, -1)), (power + _TINY).log() / 2], dim=1)


class MessagePassing(nn.Module):
    """One graph convolution: tanh(D⁻¹ (A + I) H W + b).

    Source: Yao et al. (2020), eq. 7, with the layer of the authors' code.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dimension, dimension)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Passes messages between nodes (..., V, d) along the edges A (..., V, V), from columns to rows."""
        edges = adjacency + torch.eye(adjacency.shape[-1])
        mean = edges @ nodes / edges.sum(dim=-1, keepdim=True)
        return torch.tanh(self.linear(mean))


class Edges(nn.Module):
    """Edges between nodes of one kind: sigmoid(w · |a − b| / γ + bias), γ the square root of the dimension.

    Source: Yao et al. (2020), eqs. 4 and 5.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dimension, 1)
        self.width = math.sqrt(dimension)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns the edges (..., A, B) between (..., A, d) and (..., B, d)."""
        apart = (a[..., :, None, :] - b[..., None, :, :]).abs() / self.width
        edges: Tensor = self.linear(apart)[..., 0].sigmoid()
        return edges


class RelationNetwork(nn.Module):
    """Encoder, memory and message passing.

    Args:
        dimension: d, length of an embedding.
        memory: M, learnable relation vectors; 0: none.
        message_passing: Whether messages pass between distributions and memory. Without, what is read from the memory is
            added to the embeddings, and without either they are the nodes.
    """

    def __init__(self, dimension: int, memory: int, message_passing: bool) -> None:
        super().__init__()
        self.encoder = PairEncoder(dimension)
        self.memory = nn.Parameter(torch.randn(memory, dimension))
        self.passing = MessagePassing(dimension) if message_passing else None
        self.among_tasks = Edges(dimension) if message_passing else None
        self.among_memory = Edges(dimension) if message_passing and memory else None

    def attention(self, embeddings: Tensor) -> Tensor:
        """Returns the attention (..., V, M) of embeddings (..., V, d): softmax over entries of −|(c − h)/γ|²/2.

        γ is a quarter of the typical distance, √(2d), of entries that were just drawn.

        Source: Yao et al. (2020), eq. 6.
        """
        squares = (embeddings[..., :, None, :] - self.memory).square().sum(dim=-1)
        return (-squares / (2 * embeddings.shape[-1] / 8)).softmax(dim=-1)

    def forward(self, prototypes: Tensor, queries: Tensor) -> Nodes:
        """Turns prototypes (..., N, d) and queries (..., Q, d) into nodes.

        Queries receive messages and send none: what is said of one does not depend on the others, and the distributions
        are the same whoever asks.
        """
        known = prototypes.shape[-2]
        embeddings = torch.cat([prototypes, queries], dim=-2)
        attention = self.attention(embeddings)
        if self.passing is None:
            nodes = embeddings + attention @ self.memory
        else:
            passed = self.passing(*self.graph(prototypes, embeddings, attention))
            nodes = embeddings + passed[..., : embeddings.shape[-2], :]
        return Nodes(nodes[..., :known, :], nodes[..., known:, :], attention)

    def graph(self, prototypes: Tensor, embeddings: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Joins tasks and memory to one graph: nodes (..., V, d), with V = N + Q + M, and edges (..., V, V).

        Source: Yao et al. (2020), eq. 7; their code has no edge from a node to itself here either.
        """
        known, count, entries = prototypes.shape[-2], embeddings.shape[-2], len(self.memory)
        assert self.among_tasks is not None
        tasks = self.among_tasks(embeddings, prototypes)
        tasks = torch.cat([tasks, tasks.new_zeros(*tasks.shape[:-1], count - known)], dim=-1)
        tasks = tasks * (1 - torch.eye(count))
        if self.among_memory is None:
            return embeddings, tasks
        memory = self.memory.expand(*embeddings.shape[:-2], -1, -1)
        among = self.among_memory(memory, memory) * (1 - torch.eye(entries))
        heard = torch.cat([attention[..., :known, :], torch.zeros_like(attention[..., known:, :])], dim=-2)
        upper = torch.cat([tasks, attention], dim=-1)
        lower = torch.cat([heard.transpose(-1, -2), among], dim=-1)
        return torch.cat([embeddings, memory], dim=-2), torch.cat([upper, lower], dim=-2)


def cosines(nodes: Nodes) -> Tensor:
    """Returns the cosine of each query to each distribution, (..., Q, N), after subtracting the distributions' mean.

    What all distributions have in common would otherwise bring every cosine close to 1.
    """
    centre = nodes.distributions.mean(dim=-2, keepdim=True)
    a, b = F.normalize(nodes.queries - centre, dim=-1), F.normalize(nodes.distributions - centre, dim=-1)
    return a @ b.transpose(-1, -2)

"""A distortion relation network: embeddings of pairs, a memory of relation vectors, and message passing among them.

In the style of DRTL (Li et al., A Close Look at Few-shot Real Image Super-resolution from the Distortion Relation
Perspective, 2021), whose layers and sizes are not public: memory and message passing follow ARML (Yao et al.,
Automated Relational Meta-learning, 2020).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (16, 24)
"""Channels of the encoder's two layers: small enough to train in seconds on one core."""

_GRAY_LEVEL = 1 / 255
"""Scale at which inputs are compressed: smaller differences are rounding errors."""

_TINY = 1e-6


class Nodes(NamedTuple):
    """Embeddings as nodes of the graph.

    Attributes:
        distributions: One node for each auxiliary distribution, (..., N, d).
        queries: One node for each query image, (..., Q, d).
        attention: Attention of each of these nodes to the entries of the memory, (..., N+Q, M); rows sum to 1.
    """

    distributions: Tensor
    queries: Tensor
    attention: Tensor


class PairEncoder(nn.Module):
    """Embeds the effect of a degradation on an image.

    Its inputs are the fine detail of LR and its difference from the bicubically downsampled HR image, compressed so
    that weak degradations are not dominated by strong ones. The maps are pooled to their mean and log power.

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
        inputs = torch.cat([_compressed(detail), _compressed(lr - clean)], dim=1)
        first = self.first(inputs)
        last = self.last(F.leaky_relu(first, 0.1))
        embeddings: Tensor = self.embed(torch.cat([_pooled(first), _pooled(last)], dim=1))
        return embeddings


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
        distances = (a[..., :, None, :] - b[..., None, :, :]).abs() / self.width
        edges: Tensor = self.linear(distances)[..., 0].sigmoid()
        return edges


class JoinedGraph(nn.Module):
    """The graph of tasks and memory: its edges, and the layer that passes messages along them.

    Source: Yao et al. (2020), eqs. 4 to 7.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.among_tasks = Edges(dimension)
        self.among_memory = Edges(dimension)
        self.passing = MessagePassing(dimension)

    def forward(self, nodes: Tensor, attention: Tensor, known: int) -> Tensor:
        """Returns the messages to all nodes (..., V, d).

        Args:
            nodes: Prototypes, queries, and the entries of the memory, V = N + Q + M in all.
            attention: Links of the prototypes and queries to the memory, (..., N+Q, M).
            known: N.
        """
        messages: Tensor = self.passing(nodes, self.adjacency(nodes, attention, known))
        return messages

    def adjacency(self, nodes: Tensor, attention: Tensor, known: int) -> Tensor:
        """Returns the edges (..., V, V) from columns to rows, without self-loops.

        Queries receive messages but send none: the node of a query does not depend on the other queries, and those of
        the distributions do not depend on the queries at all.
        """
        tasks, entries = attention.shape[-2:]
        embeddings, memory = nodes[..., :tasks, :], nodes[..., tasks:, :]
        of_tasks = self.among_tasks(embeddings, embeddings[..., :known, :]) * (1 - torch.eye(tasks, known))
        of_memory = self.among_memory(memory, memory) * (1 - torch.eye(entries))
        no_messages = (0, tasks - known)
        upper = torch.cat([F.pad(of_tasks, no_messages), attention], dim=-1)
        lower = torch.cat([F.pad(attention[..., :known, :].transpose(-1, -2), no_messages), of_memory], dim=-1)
        return torch.cat([upper, lower], dim=-2)


class RelationNetwork(nn.Module):
    """Encoder, memory and message passing.

    Args:
        dimension: d, length of an embedding.
        memory: Number M of learnable relation vectors; 0 disables the memory.
        message_passing: Whether distributions and memory exchange messages before the memory is read.
    """

    def __init__(self, dimension: int, memory: int, message_passing: bool) -> None:
        super().__init__()
        self.encoder = PairEncoder(dimension)
        self.memory = nn.Parameter(torch.randn(memory, dimension))
        self.graph = JoinedGraph(dimension) if message_passing else None

    def attention(self, embeddings: Tensor) -> Tensor:
        """Returns the attention (..., V, M) of embeddings (..., V, d): softmax over entries of −|(c − h)/γ|²/2.

        γ is a quarter of √(2d), the typical distance between entries at initialisation.

        Source: Yao et al. (2020), eq. 6.
        """
        squares = (embeddings[..., :, None, :] - self.memory).square().sum(dim=-1)
        gamma = math.sqrt(2 * embeddings.shape[-1]) / 4
        return (-squares / gamma**2 / 2).softmax(dim=-1)

    def forward(self, prototypes: Tensor, queries: Tensor) -> Nodes:
        """Computes the nodes of prototypes (..., N, d) and queries (..., Q, d).

        A node is the sum of the embedding, its message, and what it reads from the memory. The prototypes' mean is
        subtracted first and their root mean square normalised to 1, otherwise all nodes would read the same entries.
        """
        known = prototypes.shape[-2]
        centre = prototypes.mean(dim=-2, keepdim=True)
        size = (prototypes - centre).square().mean(dim=(-2, -1), keepdim=True).add(_TINY).sqrt()
        embeddings = (torch.cat([prototypes, queries], dim=-2) - centre) / size
        tasks = embeddings.shape[-2]
        attention = self.attention(embeddings)
        nodes = torch.cat([embeddings, self.memory.expand(*embeddings.shape[:-2], -1, -1)], dim=-2)
        if self.graph is not None:
            nodes = nodes + self.graph(nodes, attention, known)
        read = nodes[..., :tasks, :] + attention @ nodes[..., tasks:, :]
        return Nodes(read[..., :known, :], read[..., known:, :], attention)


def cosines(nodes: Nodes) -> Tensor:
    """Returns the cosine similarities of queries and distributions, (..., Q, N), after subtracting the latter's mean.

    Without the subtraction, the part that all distributions share would bring every cosine close to 1.
    """
    centre = nodes.distributions.mean(dim=-2, keepdim=True)
    a, b = F.normalize(nodes.queries - centre, dim=-1), F.normalize(nodes.distributions - centre, dim=-1)
    return a @ b.transpose(-1, -2)

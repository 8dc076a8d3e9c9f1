"""The `learned` estimator: a relation network is trained on the auxiliary distributions and applied to the shots.

It follows DRTL, whose sizes and losses are not public. The auxiliary distributions degrade the target's HR shots, so
that each shot is compared with degraded versions of the same image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from metarestore.config.estimators import LearnedEstimatorSpec
from metarestore.degradations import bicubic_downsample
from metarestore.graphs.relation_training import TEMPERATURE, Training
from metarestore.graphs.relations import Relations
from metarestore.graphs.reliability import bootstrap_error, jackknife_error, rank_correlation
from metarestore.models.relation_network import Nodes, PairEncoder, RelationNetwork, cosines
from metarestore.seeds import derived_seed
from metarestore.workspace.job import Runner
from metarestore.workspace.workspace import Workspace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RelationNetworkJob:
    """Trains a relation network, or continues its training, and applies it to the shots.

    Attributes:
        options: Options of the estimator.
        until: Total number of training steps after this job.
        carried: State carried over from the previous estimate, or None.
    """

    options: LearnedEstimatorSpec
    until: int
    carried: NDArray[np.float32] | None

    def run(self, workspace: Workspace, flat: Tensor) -> Relations:
        """Returns the relations, which do not depend on the restoration network."""
        del flat
        training = Training.start(self.options, workspace.experiment.seed, self.carried)
        training.learn(workspace, self.options, self.until)
        with torch.no_grad():
            return apply_network(training.network, workspace, self.options.draws, training.carry())


def estimate_learned(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: LearnedEstimatorSpec,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Estimates the relation of the target to every auxiliary distribution with a relation network."""
    carried = None if previous is None else previous.carried
    relations: Relations = run([RelationNetworkJob(options, steps_until(workspace, options, step), carried)], flat)[0]
    return relations


def steps_until(workspace: Workspace, options: LearnedEstimatorSpec, step: int) -> int:
    """Returns the total number of steps of the relation network at the estimate of an outer step.

    Joint training distributes the steps evenly over the estimates of a run, with at least one before the first.
    """
    refresh = workspace.experiment.graph.refresh
    if not options.joint or refresh is None:
        return options.steps
    estimates = max(1, -(-workspace.experiment.training.steps // refresh))
    return min(-(-options.steps * (step // refresh + 1) // estimates), options.steps)


def apply_network(
    network: RelationNetwork, workspace: Workspace, draws: int, carried: NDArray[np.float32]
) -> Relations:
    """Estimates relations with a trained relation network.

    Args:
        network: The network.
        workspace: The study.
        draws: Tasks drawn from each auxiliary distribution for its prototype.
        carried: State to carry over to the next estimate.
    """
    lr, hr = workspace.seen_shots
    names = tuple(workspace.study.auxiliary)
    queries = network.encoder(lr, bicubic_downsample(hr, workspace.study.scale).clamp(0, 1))[:, None]
    drawn = torch.stack([_embeddings(network.encoder, workspace, name, hr, draws) for name in names])
    nodes = _nodes(network, drawn, queries)
    similarities = _cosines(nodes)[:, 0]
    halves = [combined(similarities[k::2]) for k in (0, 1)] if len(similarities) > 1 else None
    return Relations(
        target=workspace.experiment.graph.target,
        auxiliary=names,
        values=combined(similarities),
        standard_errors=_standard_errors(network, drawn, queries, workspace.experiment.seed),
        estimator="learned",
        draws=draws,
        reliability=rank_correlation(*halves) if halves else float("nan"),
        matrix=_matrix(network, drawn, combined(similarities)),
        attention=nodes.attention.mean(dim=0).to(torch.float64).numpy(),
        carried=carried,
    )


def combined(similarities: Floats) -> Floats:
    """Combines the similarities of K shots into one relation to each distribution.

    The shots of a mixed target come from several distributions, and a mean over shots would favour distributions that
    lie between these. Therefore the relation is based on the mean over shots of the probability softmax(cosine/τ). This
    is one step of expectation maximisation for the weights of a mixture. Its logarithm is converted back to the scale
    of the cosines.

    Args:
        similarities: Cosine similarities of each shot to each distribution, (..., K, N).

    Returns:
        (..., N) in −1..1: the cosines themselves for one shot, or if all shots agree; never less than their mean.
    """
    total = TEMPERATURE * logsumexp(similarities / TEMPERATURE, axis=-1, keepdims=True)
    shares = logsumexp((similarities - total) / TEMPERATURE, axis=-2) - np.log(similarities.shape[-2])
    return np.asarray(np.clip(TEMPERATURE * shares + total.mean(axis=-2), -1.0, 1.0))


def _embeddings(encoder: PairEncoder, workspace: Workspace, name: str, hr: Tensor, draws: int) -> Tensor:
    """Embeds the draws of one distribution on the HR shots: (draws, K, d)."""
    distribution = workspace.auxiliary(name)
    seed = derived_seed(workspace.experiment.seed, "relation prototypes")
    rows = []
    for index in range(draws):
        lr, clean = distribution.pairs_on(hr, distribution.draw(seed, index))
        embedded = encoder(lr, bicubic_downsample(clean, distribution.scale).clamp(0, 1))
        # Distributions that cannot degrade given images use their own: their mean embedding is used for every shot.
        rows.append(embedded if distribution.degrades else embedded.mean(dim=0).expand(len(hr), -1))
    return torch.stack(rows)


def _nodes(network: RelationNetwork, drawn: Tensor, queries: Tensor) -> Nodes:
    """Builds one graph for each shot: embeddings (N, draws, K, d) and queries (K, Q, d) to nodes (K, ...)."""
    nodes: Nodes = network(drawn.mean(dim=1).transpose(0, 1), queries)
    return nodes


def _cosines(nodes: Nodes) -> Floats:
    return np.asarray(cosines(nodes).to(torch.float64).numpy())


def _standard_errors(network: RelationNetwork, drawn: Tensor, queries: Tensor, seed: int) -> Floats:
    """Combines the jackknife error over shots (if there are several) and the bootstrap error over draws."""

    def similarities(chosen: NDArray[np.int64]) -> Floats:
        return _cosines(_nodes(network, drawn[:, torch.from_numpy(chosen)], queries))[:, 0]

    over_draws = bootstrap_error(lambda chosen: combined(similarities(chosen)), drawn.shape[1], seed)
    whole = similarities(np.arange(drawn.shape[1]))
    if len(whole) < 2:
        return over_draws
    without = [combined(np.delete(whole, k, axis=0)) for k in range(len(whole))]
    return np.asarray(np.hypot(jackknife_error(without, len(drawn)), over_draws))


def _matrix(network: RelationNetwork, drawn: Tensor, values: Floats) -> Floats:
    """Returns the relations among N distributions and the target (last): (N+1, N+1), symmetric, ones on the diagonal.

    The draws of a distribution are treated like the shots of a target; the two directions are averaged.
    """
    count, draws, shots, dimension = drawn.shape
    queries = drawn.permute(2, 0, 1, 3).reshape(shots, count * draws, dimension)
    similarities = _cosines(_nodes(network, drawn, queries)).reshape(shots, count, draws, count)
    among = combined(similarities.transpose(1, 0, 2, 3).reshape(count, shots * draws, count))
    matrix = np.ones((count + 1, count + 1))
    matrix[:count, :count] = (among + among.T) / 2
    np.fill_diagonal(matrix, 1.0)
    matrix[count, :count] = matrix[:count, count] = values
    return matrix

"""The `learned` estimator: a relation network, trained on the auxiliary distributions, is asked about the shots.

It is in the style of DRTL, whose sizes and losses are not public. The auxiliary distributions degrade the target's own
HR shots, so that each shot is compared with what they make of the same image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from metarestore.config.estimators import LearnedEstimator
from metarestore.degradations import bicubic_downsample
from metarestore.graphs.relation_training import TEMPERATURE, Training
from metarestore.graphs.relations import Relations
from metarestore.graphs.reliability import bootstrap_error, jackknife_error, rank_correlation
from metarestore.learners.workspace import Runner, Workspace
from metarestore.models.relation_network import Nodes, PairEncoder, RelationNetwork, cosines
from metarestore.seeds import derived_seed

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RelationNetworkJob:
    """Trains a relation network, or goes on training it, and asks it about the shots.

    Attributes:
        options: The estimator.
        until: Steps that the network will have taken then.
        carried: What the estimate before carried along, or None.
    """

    options: LearnedEstimator
    until: int
    carried: NDArray[np.float32] | None

    def run(self, workspace: Workspace, flat: Tensor) -> Relations:
        """Returns the relations; the restoration network has no part in them."""
        del flat
        training = Training.start(self.options, workspace.experiment.seed, self.carried)
        training.learn(workspace, self.options, self.until)
        with torch.no_grad():
            return ask(training.network, workspace, self.options.draws, training.carry())


def estimate_learned(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: LearnedEstimator,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Relates the target to every auxiliary distribution by a relation network."""
    carried = None if previous is None else previous.carried
    relations: Relations = run([RelationNetworkJob(options, steps_until(workspace, options, step), carried)], flat)[0]
    return relations


def steps_until(workspace: Workspace, options: LearnedEstimator, step: int) -> int:
    """Returns how many steps the relation network will have taken by the estimate at an outer step.

    Joint training spreads them evenly over the estimates of a run, at least one at the first.
    """
    refresh = workspace.experiment.graph.refresh
    if not options.joint or refresh is None:
        return options.steps
    estimates = max(1, -(-workspace.experiment.training.steps // refresh))
    return min(-(-options.steps * (step // refresh + 1) // estimates), options.steps)


def ask(network: RelationNetwork, workspace: Workspace, draws: int, carried: NDArray[np.float32]) -> Relations:
    """Asks a trained relation network about the shots.

    Args:
        network: The network.
        workspace: The study.
        draws: Tasks drawn from each auxiliary distribution for its prototype.
        carried: What goes along with the relations.
    """
    lr, hr = workspace.seen_shots
    names = tuple(workspace.study.auxiliary)
    queries = network.encoder(lr, bicubic_downsample(hr, workspace.study.scale).clamp(0, 1))[:, None]
    drawn = torch.stack([_embeddings(network.encoder, workspace, name, hr, draws) for name in names])
    nodes = _nodes(network, drawn, queries)
    told = _cosines(nodes)[:, 0]
    return Relations(
        target=workspace.experiment.graph.target,
        auxiliary=names,
        values=combined(told),
        standard_errors=_standard_errors(network, drawn, queries, workspace.experiment.seed),
        estimator="learned",
        draws=draws,
        reliability=rank_correlation(*(combined(told[k::2]) for k in (0, 1))) if len(told) > 1 else float("nan"),
        matrix=_matrix(network, drawn, combined(told)),
        attention=nodes.attention.mean(dim=0).to(torch.float64).numpy(),
        carried=carried,
    )


def combined(told: Floats) -> Floats:
    """Combines what K shots say into one relation to each distribution.

    Each photograph of a camera, and each shot, is a draw of its own, and those of a mixed target come from several
    distributions: a mean over shots would place what lies between these first. So a distribution counts by the share
    of the shots that it answers for: the mean over shots of the network's probability, softmax(cosine/τ). This is one
    step of expectation maximisation for the parts of a mixture. Its logarithm is brought back to the scale of the
    cosines.

    Args:
        told: Cosines of each shot to each distribution, (..., K, N).

    Returns:
        (..., N) in −1..1: the cosines themselves for one shot, or where all shots say the same; nowhere less than
        their mean.
    """
    total = TEMPERATURE * logsumexp(told / TEMPERATURE, axis=-1, keepdims=True)
    shares = logsumexp((told - total) / TEMPERATURE, axis=-2) - np.log(told.shape[-2])
    return np.asarray(np.clip(TEMPERATURE * shares + total.mean(axis=-2), -1.0, 1.0))


def _embeddings(encoder: PairEncoder, workspace: Workspace, name: str, hr: Tensor, draws: int) -> Tensor:
    """Embeds the draws of one distribution on the HR shots: (draws, K, d)."""
    distribution = workspace.auxiliary(name)
    seed = derived_seed(workspace.experiment.seed, "relation prototypes")
    rows = []
    for index in range(draws):
        lr, shown = distribution.pairs_on(hr, distribution.draw(seed, index))
        found = encoder(lr, bicubic_downsample(shown, distribution.scale).clamp(0, 1))
        # What cannot be applied to other images shows its own: one mean embedding stands in for every shot.
        rows.append(found if distribution.degrades else found.mean(dim=0).expand(len(hr), -1))
    return torch.stack(rows)


def _nodes(network: RelationNetwork, drawn: Tensor, queries: Tensor) -> Nodes:
    """Makes one graph for each shot: embeddings (N, draws, K, d) and queries (K, Q, d) to nodes (K, ...)."""
    nodes: Nodes = network(drawn.mean(dim=1).transpose(0, 1), queries)
    return nodes


def _cosines(nodes: Nodes) -> Floats:
    return np.asarray(cosines(nodes).to(torch.float64).numpy())


def _standard_errors(network: RelationNetwork, drawn: Tensor, queries: Tensor, seed: int) -> Floats:
    """Combines the jackknife error over shots (where there are several) and the bootstrap error over draws."""

    def told(chosen: NDArray[np.int64]) -> Floats:
        return _cosines(_nodes(network, drawn[:, torch.from_numpy(chosen)], queries))[:, 0]

    over_draws = bootstrap_error(lambda chosen: combined(told(chosen)), drawn.shape[1], seed)
    whole = told(np.arange(drawn.shape[1]))
    if len(whole) < 2:
        return over_draws
    without = [combined(np.delete(whole, k, axis=0)) for k in range(len(whole))]
    return np.asarray(np.hypot(jackknife_error(without, len(drawn)), over_draws))


def _matrix(network: RelationNetwork, drawn: Tensor, values: Floats) -> Floats:
    """Relates N distributions and the target (last) to one another: (N+1, N+1), symmetric, ones on the diagonal.

    The draws of a distribution are asked about as the shots of a target are; of both directions the mean is taken.
    """
    count, draws, shots, dimension = drawn.shape
    asked = drawn.permute(2, 0, 1, 3).reshape(shots, count * draws, dimension)
    told = _cosines(_nodes(network, drawn, asked)).reshape(shots, count, draws, count)
    among = combined(told.transpose(1, 0, 2, 3).reshape(count, shots * draws, count))
    matrix = np.ones((count + 1, count + 1))
    matrix[:count, :count] = (among + among.T) / 2
    np.fill_diagonal(matrix, 1.0)
    matrix[count, :count] = matrix[:count, count] = values
    return matrix

"""The relation network by hand, its training, and what the estimator makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from metarestore.config.estimators import LearnedEstimatorSpec
from metarestore.config.graph import GraphSpec
from metarestore.graphs.estimate import estimate
from metarestore.graphs.learned import _standard_errors, combined, steps_until
from metarestore.graphs.relation_training import Training, episode, episode_loss, patch_side
from metarestore.graphs.relations import Relations
from metarestore.models.network import seeded
from metarestore.models.relation_network import JoinedGraph, MessagePassing, RelationNetwork, cosines
from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.photographs import write_image
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

SmallStudy = Callable[..., Study]


def options(**changes: Any) -> LearnedEstimatorSpec:
    return LearnedEstimatorSpec.model_validate({"kind": "learned", "steps": 8, "draws": 3, "dimension": 8} | changes)


def asked(workspace: Workspace, step: int = 0, previous: Relations | None = None) -> Relations:
    run = lambda jobs, flat: [job.run(workspace, flat) for job in jobs]  # noqa: E731
    return estimate(workspace, run, workspace.initial(), step, previous)


def network(memory: int = 5, message_passing: bool = True) -> RelationNetwork:
    return seeded(RelationNetwork, 0, dimension=8, memory=memory, message_passing=message_passing)


def embeddings(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 8, generator=torch.Generator().manual_seed(seed))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_message_passing_is_the_formula() -> None:
    """tanh(D⁻¹ (A + I) H W + b), with D the row sums of A + I."""
    layer = seeded(MessagePassing, 0, dimension=8)
    nodes, adjacency = embeddings(4), torch.rand(4, 4, generator=torch.Generator().manual_seed(1))
    h, a = nodes.numpy().astype(float), adjacency.numpy().astype(float) + np.eye(4)
    weight, bias = (p.detach().numpy().astype(float) for p in (layer.linear.weight.T, layer.linear.bias))
    expected = np.tanh(np.diag(1 / a.sum(axis=1)) @ a @ h @ weight + bias)
    np.testing.assert_allclose(layer(nodes, adjacency).detach(), expected, atol=1e-6)


@torch.no_grad()
def test_edges_of_the_joined_graph() -> None:
    """Blocks of ARML's super-graph, 3 prototypes, 2 queries and 4 entries; no edge leaves a query or is a loop."""
    graph = seeded(JoinedGraph, 0, dimension=8)
    nodes = embeddings(9)
    attention = embeddings(5, seed=1)[:, :4].softmax(dim=-1)
    found = graph.adjacency(nodes, attention, known=3).numpy()
    h = nodes.numpy().astype(float)

    def edges(layer: Any, rows: slice, columns: slice) -> np.ndarray:
        apart = np.abs(h[rows, None] - h[None, columns]) / np.sqrt(8)
        return sigmoid(apart @ layer.linear.weight.numpy()[0].astype(float) + layer.linear.bias.item())

    expected = np.zeros((9, 9))
    expected[:5, :3] = edges(graph.among_tasks, slice(0, 5), slice(0, 3))
    expected[5:, 5:] = edges(graph.among_memory, slice(5, 9), slice(5, 9))
    expected[:5, 5:], expected[5:, :3] = attention, attention[:3].T
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@torch.no_grad()
def test_attention_is_the_formula() -> None:
    net = network()
    found = net.attention(embeddings(2, 3)).numpy()
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
    squares = np.square(embeddings(2, 3).numpy()[:, :, None] - net.memory.numpy()).sum(axis=-1)
    scores = np.exp(-squares / (2 * 8 / 8))
    np.testing.assert_allclose(found, scores / scores.sum(axis=-1, keepdims=True), atol=1e-6)


@torch.no_grad()
def test_without_memory_and_messages_nothing_but_cosines_is_left() -> None:
    prototypes, queries = embeddings(4), embeddings(2, seed=1)
    centre = prototypes.mean(dim=0)
    plain = F.cosine_similarity((queries - centre)[:, None], (prototypes - centre)[None], dim=-1)
    found = {(m, p): cosines(network(m, p)(prototypes, queries)) for m in (0, 5) for p in (False, True)}
    torch.testing.assert_close(found[0, False], plain)
    for (m, p), values in found.items():
        assert values.abs().max() <= 1 + 1e-6
        for other, others in found.items():
            assert other == (m, p) or (values - others).abs().max() > 1e-3, ((m, p), other)


@torch.no_grad()
def test_a_query_does_not_depend_on_the_others() -> None:
    net, prototypes, queries = network(), embeddings(4), embeddings(3, seed=1)
    together, alone = net(prototypes, queries), net(prototypes, queries[1:2])
    torch.testing.assert_close(together.queries[1:2], alone.queries)
    torch.testing.assert_close(together.distributions, alone.distributions)


def test_gradient_reaches_every_parameter() -> None:
    """Memory and edges learn as well, also those of entries among one another."""
    net = network()
    cosines(net(embeddings(4), embeddings(3, seed=1))).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert name.startswith("encoder") or (parameter.grad is not None and parameter.grad.abs().max() > 0), name


def test_one_shot_and_equal_shots_say_what_their_cosines_say() -> None:
    told = np.asarray([[0.9, 0.1, -0.6]])
    np.testing.assert_allclose(combined(told), told[0])
    np.testing.assert_allclose(combined(np.repeat(told, 4, axis=0)), told[0])


def test_both_parts_of_a_mixture_come_before_what_lies_between() -> None:
    """Half the shots from the first, half from the second; the third is half like each, and first in the mean."""
    told = np.asarray([[0.95, -0.4, 0.5]] * 2 + [[-0.4, 0.95, 0.5]] * 2)
    assert told.mean(axis=0).argmax() == 2
    assert combined(told).argmin() == 2


def test_combined_relations_are_bounded() -> None:
    told = np.random.default_rng(0).uniform(-1, 1, (200, 5, 6))
    found = combined(told)
    assert found.max() <= 1
    assert (found >= told.mean(axis=1) - 1e-9).all()


def test_an_episode_degrades_one_patch(workspace: Workspace) -> None:
    """All see the same clean image; bicubic leaves it as it is but for 8 bit, and draws differ."""
    pairs = episode(workspace, patch_side(workspace), 0, 3)
    names = list(workspace.study.auxiliary)
    assert pairs.lr.shape == pairs.clean.shape == (3, 4, 3, 16, 16)
    assert (pairs.clean == pairs.clean[0, 0]).all()
    torch.testing.assert_close(pairs.lr[names.index("bicubic")], pairs.clean[0], atol=0.51 / 255, rtol=0)
    noisy = pairs.lr[names.index("noise_gaussian")]
    assert all((noisy[0] - noisy[k]).abs().mean() > 1e-3 for k in (1, 2, 3))
    other = episode(workspace, patch_side(workspace), 0, 4)
    assert not torch.equal(pairs.clean, other.clean)


def test_the_loss_falls(workspace: Workspace) -> None:
    """On episodes that it did not learn from, at least half of what is above the least that is possible."""
    chosen = options(steps=12)
    training, side = Training.start(chosen, 0), patch_side(workspace)
    least = np.log(3) / 2  # half a contrast of four images of each distribution

    @torch.no_grad()
    def mean_loss() -> float:
        return float(np.mean([episode_loss(training.network, episode(workspace, side, 1, k)) for k in range(3)]))

    before = mean_loss()
    training.learn(workspace, chosen, 12)
    assert least < mean_loss() < least + (before - least) / 2


def test_training_in_parts_is_training_at_a_stretch(workspace: Workspace) -> None:
    """Parameters and moments that were carried along bit for bit."""
    chosen = options()
    whole, first = Training.start(chosen, 0), Training.start(chosen, 0)
    losses = whole.learn(workspace, chosen, 8)
    parts = first.learn(workspace, chosen, 3)
    second = Training.start(chosen, 5, first.carry())
    np.testing.assert_array_equal(second.carry(), first.carry())
    parts += second.learn(workspace, chosen, 8)
    assert parts == losses
    np.testing.assert_array_equal(second.carry(), whole.carry())


def joint(small_study: SmallStudy, **changes: Any) -> Workspace:
    estimator = options(**changes).model_dump(mode="json")
    return Workspace(small_study(graph={"estimator": estimator, "refresh": 3}, training={"steps": 10}))


def test_joint_training_is_spread_over_the_estimates(small_study: SmallStudy) -> None:
    """Ten outer steps with an estimate every three: four estimates, at 0, 3, 6 and 9."""
    workspace = joint(small_study, joint=True)
    assert [steps_until(workspace, options(joint=True), step) for step in (0, 3, 6, 9)] == [2, 4, 6, 8]
    assert [steps_until(workspace, options(joint=True, steps=2), step) for step in (0, 3, 6, 9)] == [1, 1, 2, 2]
    assert [steps_until(workspace, options(), step) for step in (0, 9)] == [8, 8]


def test_joint_goes_on_learning_and_frozen_does_not(small_study: SmallStudy) -> None:
    for goes_on in (True, False):
        workspace = joint(small_study, joint=goes_on)
        first = asked(workspace)
        second = asked(workspace, 3, first)
        assert first.carried is not None
        assert second.carried is not None
        assert second.carried[-1] == (4 if goes_on else 8)
        assert np.array_equal(first.carried, second.carried) != goes_on
        assert np.array_equal(first.values, second.values) != goes_on


def test_the_restoration_network_has_no_part(workspace: Workspace, small_study: SmallStudy) -> None:
    workspace = joint(small_study)
    run = lambda jobs, flat: [job.run(workspace, flat) for job in jobs]  # noqa: E731
    found = [estimate(workspace, run, flat).values for flat in (workspace.initial(), workspace.initial() * 0)]
    np.testing.assert_array_equal(*found)


def test_attention_has_a_row_for_each_distribution_and_the_target(small_study: SmallStudy) -> None:
    found = asked(joint(small_study, memory=6)).attention
    assert found is not None
    assert found.shape == (4, 6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("changes", [{"adaptation": {"shots": 1}}, {"graph": {"auxiliary": ["bicubic"]}}])
def test_the_least_that_can_be_asked(small_study: SmallStudy, changes: dict[str, Any]) -> None:
    graph = {"estimator": options().model_dump(mode="json")} | changes.pop("graph", {})
    relations = asked(Workspace(small_study(graph=graph, **changes)))
    assert np.isfinite(relations.values).all()
    assert np.isfinite(relations.standard_errors).all()


def test_real_pairs_are_related_as_they_are(small_study: SmallStudy, tmp_path: Path) -> None:
    """An auxiliary camera cannot degrade other images; its pairs stand for it, in training and as its prototype."""
    rng = np.random.default_rng(0)
    for k in range(3):
        hr = rng.integers(0, 256, (40, 48, 3), np.uint8)
        for side, pixels in (("hr", hr), ("lr", hr[::4, ::4])):
            (tmp_path / side).mkdir(exist_ok=True)
            write_image(tmp_path / side / f"{k}.png", pixels)
    camera = PairsSpec(kind="pairs", scale=4, lr=tmp_path / "lr", hr=tmp_path / "hr", support_pool=2)
    study = small_study(graph={"estimator": options().model_dump(mode="json")})
    study = dataclasses.replace(study, auxiliary={**study.auxiliary, "camera": camera})
    workspace = Workspace(study)
    assert patch_side(workspace) == 40
    pairs = episode(workspace, 40, 0, 0)
    assert pairs.lr.shape == (4, 4, 3, 10, 10)
    assert (pairs.lr[3] - pairs.clean[3]).abs().mean() > 0.1
    assert asked(workspace).values.shape == (4,)


PLANTED = ("blur_iso_wide", "noise_gaussian", "jpeg", "bicubic")


def test_finds_a_planted_relation(small_study: SmallStudy) -> None:
    """A target that secretly is one of the auxiliary distributions is related to that one most, in 7 of 8 cases.

    The network does not depend on the target, so the first one is asked about all.
    """
    estimator = options(steps=24, draws=4, dimension=16, lr=8e-3).model_dump(mode="json")
    first = None
    found = []
    for seed in (0, 1):
        for planted in PLANTED:
            study = small_study(seed=seed, graph={"auxiliary": PLANTED, "estimator": estimator})
            workspace = Workspace(dataclasses.replace(study, target=study.auxiliary[planted]))
            relations = asked(workspace, previous=first)
            first = first or relations
            found.append(relations.auxiliary[int(relations.values.argmax())] == planted)
    assert sum(found) >= 7, found


def test_joint_needs_a_refresh() -> None:
    graph = {"target": "a", "auxiliary": ["b"], "estimator": {"kind": "learned", "joint": True}}
    with pytest.raises(ValidationError, match="refresh"):
        GraphSpec.model_validate(graph)
    GraphSpec.model_validate(graph | {"refresh": 10})


def test_shots_that_disagree_are_an_error() -> None:
    """Draws that all agree leave the jackknife over shots: none where the shots agree, some where they do not."""
    network = seeded(RelationNetwork, 0, dimension=8, memory=2, message_passing=True)
    rng = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 1, 1, 8, generator=rng).expand(3, 4, 5, 8)
    same = torch.randn(1, 1, 8, generator=rng).expand(5, 1, 8)
    with torch.no_grad():
        agreeing = _standard_errors(network, drawn, same, 0)
        differing = _standard_errors(network, drawn, torch.randn(5, 1, 8, generator=rng), 0)
    np.testing.assert_allclose(agreeing, 0, atol=1e-6)
    assert (differing > 0.01).all()

"""Adaptation is gradient descent on the support set, and leaves its starting point alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from metarestore.learners.adaptation import adapt
from metarestore.learners.learner import MAMLLearner
from metarestore.learners.workspace import Workspace
from metarestore.models.parameters import Layout
from metarestore.tasks.task import Task


def test_sgd_on_a_quadratic_shrinks_the_error_by_a_known_factor(scalar: nn.Module) -> None:
    image = torch.ones(1, 1, 1, 1)
    adapted = adapt(scalar, torch.tensor([3.0]), image, image, optimizer="sgd", steps=4, lr=0.1, loss_name="mse")
    assert float(adapted[0]) - 1 == pytest.approx(2.0 * 0.8**4, rel=1e-5)


def test_sgd_adaptation_is_the_inner_loop_of_maml(workspace: Workspace) -> None:
    """The query loss after adapting equals the loss of MAML with as many inner steps."""
    task = workspace.for_model(workspace.target_task)
    flat = workspace.initial()
    how = {"optimizer": "sgd", "steps": 3, "lr": 0.02}
    adapted = adapt(workspace.model, flat, task.support_lr, task.support_hr, **how)
    layout = Layout.of(workspace.model)
    with torch.no_grad():
        restored = functional_call(workspace.model, layout.unflatten(adapted), (task.query_lr,))
        direct = (restored - task.query_hr).abs().mean()
    learner = MAMLLearner(workspace.model, inner_steps=3, inner_lr=0.02)
    loss, _ = learner.loss(layout.unflatten(flat), Task(*task))
    assert float(direct) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_adaptation_lowers_the_support_loss_and_keeps_its_start(workspace: Workspace, optimizer: str) -> None:
    shots = workspace.for_model(workspace.shots)
    start = workspace.initial()
    before = start.clone()
    seen: list[tuple[int, torch.Tensor]] = []
    adapted = adapt(
        workspace.model,
        start,
        shots.support_lr,
        shots.support_hr,
        optimizer=optimizer,  # type: ignore[arg-type]
        steps=5,
        lr=1e-4 if optimizer == "adam" else 1e-3,  # a step of Adam's is as long as the rate, whatever the gradient
        observe=lambda step, flat: seen.append((step, flat.clone())),
    )
    assert torch.equal(start, before)
    assert [step for step, _ in seen] == list(range(6))
    assert torch.equal(seen[0][1], before)
    assert torch.equal(seen[-1][1], adapted)

    def loss(flat: torch.Tensor) -> float:
        params = workspace.layout.unflatten(flat)
        restored = functional_call(workspace.model, params, (shots.support_lr,))
        return float((restored - shots.support_hr).abs().mean())

    assert loss(adapted) < loss(before)

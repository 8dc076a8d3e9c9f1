"""Adaptation is gradient descent on the support set, and leaves its starting point alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.func import functional_call

from metarestore.learners.adaptation import adapt
from metarestore.learners.gradients import repeated
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import MAMLLearner
from metarestore.learners.variants import MetaSGDLearner
from metarestore.learners.workspace import Workspace
from metarestore.tasks.task import Task


def test_sgd_on_a_quadratic_shrinks_the_error_by_a_known_factor(scalar: nn.Module) -> None:
    image = torch.ones(1, 1, 1, 1)
    rule = InnerRule("mse")
    adapted = adapt(scalar, torch.tensor([3.0]), image, image, optimizer="sgd", steps=4, lr=0.1, rule=rule)
    assert float(adapted[0]) - 1 == pytest.approx(2.0 * 0.8**4, rel=1e-5)


LEARNERS: dict[str, Callable[[nn.Module], MAMLLearner]] = {
    "maml": lambda model: MAMLLearner(model, 3, 0.02),
    "maml, other losses": lambda model: MAMLLearner(model, 3, 0.02, inner_loss="charbonnier", eps=0.02),
    "maml, clipped": lambda model: MAMLLearner(model, 3, 0.02, clip=0.03),
    "anil": lambda model: MAMLLearner(model, 3, 0.02, adapts=frozenset({"tail.weight", "body.1.weight"})),
    "meta_sgd": lambda model: MetaSGDLearner(model, 3, 0.02),
    "meta_sgd, clipped": lambda model: MetaSGDLearner(model, 3, 0.02, clip=0.03),
}


@pytest.mark.parametrize("kind", LEARNERS)
def test_sgd_adaptation_is_the_inner_loop_of_the_learner(workspace: Workspace, kind: str) -> None:
    """The query loss after adapting equals the loss of the learner with as many inner steps."""
    model = workspace.model
    learner = LEARNERS[kind](model)
    task = workspace.for_model(workspace.target_task)
    layout = workspace.layout
    flat = learner.initial(workspace.initial())
    flat = flat + 0.003 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(2))
    how = {"optimizer": "sgd", "steps": 3, "lr": 0.02, "rule": learner.adapting(layout, flat)}
    adapted = adapt(model, flat[: layout.size], task.support_lr, task.support_hr, **how)
    with torch.no_grad():
        restored = functional_call(workspace.model, layout.unflatten(adapted), (task.query_lr,))
        direct = (restored - task.query_hr).abs().mean()
        before = functional_call(workspace.model, layout.unflatten(flat[: layout.size]), (task.query_lr,))
    params = repeated(learner.layout(layout).unflatten(flat), 1)
    loss = learner.losses(params, Task(*(tensor[None] for tensor in task)))[0].detach()
    change = float((before - task.query_hr).abs().mean()) - float(loss)
    assert abs(change) > 5e-5
    assert float(direct) == pytest.approx(float(loss), abs=1e-3 * abs(change))


def test_only_named_parts_adapt_to_the_shots_by_any_optimizer(workspace: Workspace) -> None:
    shots, flat = workspace.for_model(workspace.shots), workspace.initial()
    learner = MAMLLearner(workspace.model, adapts=frozenset({"tail.bias"}))
    rule = learner.adapting(workspace.layout, flat)
    for optimizer in ("adam", "sgd"):
        adapted = adapt(
            workspace.model, flat, shots.support_lr, shots.support_hr, optimizer=optimizer, steps=2, lr=1e-3, rule=rule
        )
        before, after = workspace.layout.unflatten(flat), workspace.layout.unflatten(adapted)
        assert [name for name in before if not torch.equal(before[name], after[name])] == ["tail.bias"]


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

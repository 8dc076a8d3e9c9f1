"""Adaptation is gradient descent on the support set, and leaves its starting point alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.func import functional_call

from metarestore.config.adaptation import AdaptationOptimizerSpec, AdaptationSpec
from metarestore.config.learner import ANILSpec, LearnerSpec
from metarestore.learners.adaptation import adapt, cut
from metarestore.learners.build import build_learner
from metarestore.learners.gradients import repeated
from metarestore.learners.inner_rule import InnerRule
from metarestore.tasks.task import Task
from metarestore.workspace.workspace import Workspace


def test_sgd_on_a_quadratic_shrinks_the_error_by_a_known_factor(scalar: nn.Module) -> None:
    image = torch.ones(1, 1, 1, 1)
    rule = InnerRule("mse", 1e-3)
    adapted = adapt(
        scalar, torch.tensor([3.0]), image, image, AdaptationOptimizerSpec(optimizer="sgd", steps=4, lr=0.1), rule=rule
    )
    assert float(adapted[0]) - 1 == pytest.approx(2.0 * 0.8**4, rel=1e-5)


L1 = InnerRule("l1", 1e-3)
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": {"kind": "maml"},
    "maml, other losses": {"kind": "maml", "inner_loss": "charbonnier", "charbonnier_eps": 0.02},
    "maml, clipped": {"kind": "maml", "inner_clip": 0.03},
    "anil": {"kind": "anil", "adapts": ["tail.weight", "body.1.weight"]},
    "meta_sgd": {"kind": "meta_sgd"},
    "meta_sgd, clipped": {"kind": "meta_sgd", "inner_clip": 0.03},
}


@pytest.mark.parametrize("kind", LEARNERS)
def test_sgd_adaptation_is_the_inner_loop_of_the_learner(workspace: Workspace, kind: str) -> None:
    """The query loss after adapting equals the loss of the learner with as many inner steps."""
    model = workspace.model
    spec = TypeAdapter(LearnerSpec).validate_python({"inner_steps": 3, "inner_lr": 0.02, **LEARNERS[kind]})
    learner = build_learner(spec, model)
    task = workspace.for_model(workspace.target_task)
    layout = workspace.layout
    flat = learner.initial(workspace.initial())
    flat = flat + 0.003 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(2))
    how, rule = AdaptationOptimizerSpec(optimizer="sgd", steps=3, lr=0.02), learner.adapting(layout, flat)
    adapted = adapt(model, flat[: layout.size], task.support_lr, task.support_hr, how, rule=rule)
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
    learner = build_learner(ANILSpec(kind="anil", adapts=("tail.bias",)), workspace.model)
    rule = learner.adapting(workspace.layout, flat)
    for optimizer in ("adam", "sgd"):
        how = AdaptationOptimizerSpec(optimizer=optimizer, steps=2, lr=1e-3)  # type: ignore[arg-type]
        adapted = adapt(workspace.model, flat, shots.support_lr, shots.support_hr, how, rule=rule)
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
        # A step of Adam's is as long as the rate, whatever the gradient.
        AdaptationOptimizerSpec(optimizer=optimizer, steps=5, lr=1e-4 if optimizer == "adam" else 1e-3),  # type: ignore[arg-type]
        rule=L1,
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


def test_patches_are_aligned_cuts_of_the_shots() -> None:
    """HR pixels that say where they lie tell which LR patch belongs to them, whatever way both are turned."""
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    lr = torch.stack([torch.stack([rows, columns]) + 100 * k for k in range(3)])
    hr = lr.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
    how = AdaptationOptimizerSpec(patch=32, batch=40)
    small, big = cut(lr, hr, how, 7, 0)
    assert small.shape == (40, 2, 8, 8)
    assert torch.equal(big, small.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2))
    assert {int(v) for v in small[:, 0].flatten(1).amin(dim=1) // 100} == {0, 1, 2}
    upright = (small[:, 0, 0, 0] < small[:, 0, -1, 0]) & (small[:, 1, 0, 0] < small[:, 1, 0, -1])
    assert 0 < int(upright.sum()) < 20
    assert torch.equal(small, cut(lr, hr, how, 7, 0)[0])
    assert not torch.equal(small, cut(lr, hr, how, 7, 1)[0])
    assert not torch.equal(small, cut(lr, hr, how, 8, 0)[0])


def test_the_rate_falls_as_a_cosine(scalar: nn.Module) -> None:
    """On a slope of constant sign, Adam's first step is as long as the rate; two steps of a cosine are 1 and 1/2."""
    image = torch.ones(1, 1, 1, 1)
    ways = [AdaptationOptimizerSpec(steps=2, lr=0.1, schedule=schedule) for schedule in ("constant", "cosine")]  # type: ignore[arg-type]
    moved = [float(adapt(scalar, torch.tensor([9.0]), image, image, how, rule=L1)[0]) - 9 for how in ways]
    assert moved == pytest.approx([-0.2, -0.15], rel=1e-3)


def test_what_a_patch_needs() -> None:
    with pytest.raises(ValidationError, match=r"patch must not be above shot_size \(192\), got 256"):
        AdaptationSpec(patch=256)
    with pytest.raises(ValidationError, match="patch must not be above"):
        AdaptationSpec(alternatives=(AdaptationOptimizerSpec(patch=200),))
    with pytest.raises(ValidationError, match="batch requires patch"):
        AdaptationSpec(batch=4)

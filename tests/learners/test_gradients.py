"""Task gradients: analytic values, and agreement of the vectorised backend with learn2learn's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from metarestore.learners.gradients import mean_loss_gradient, repeated, vectorised_gradients
from metarestore.learners.learn2learn import maml_class
from metarestore.learners.learner import psnr_of_mse
from metarestore.models.parameters import Layout
from metarestore.tasks.task import Task
from metarestore.testing.learners import ReferenceContract, learner_of, network, random_tasks, relative_error

PARTS = ["tail.weight", "tail.bias", "body.1.weight"]
LEARNERS: dict[str, dict[str, Any]] = {
    "pretrain": {"kind": "pretrain"},
    "maml": {"kind": "maml"},
    "maml, 3 steps": {"kind": "maml", "inner_steps": 3, "inner_lr": 0.05},
    "fomaml": {"kind": "fomaml"},
    "fomaml, 3 steps": {"kind": "fomaml", "inner_steps": 3, "inner_lr": 0.05},
    "maml, squared error": {"kind": "maml", "loss": "mse"},
    "maml, two losses": {
        "kind": "maml",
        "inner_steps": 2,
        "inner_lr": 0.05,
        "loss": "charbonnier",
        "inner_loss": "mse",
        "charbonnier_eps": 0.02,
    },
    "maml, clipped": {"kind": "maml", "inner_steps": 2, "inner_lr": 0.05, "inner_clip": 0.05},
    "fomaml, clipped": {"kind": "fomaml", "inner_steps": 2, "inner_lr": 0.05, "inner_clip": 0.05},
    "maml, all steps": {"kind": "maml", "inner_steps": 3, "inner_lr": 0.05, "multi_step": {"weights": "uniform"}},
    "maml, annealed": {"kind": "maml", "inner_steps": 3, "inner_lr": 0.05, "multi_step": {"steps": 10}},
    "maml, first step alone": {"kind": "maml", "inner_steps": 2, "inner_lr": 0.05, "multi_step": {"weights": [1, 0]}},
    "fomaml, all steps": {"kind": "fomaml", "inner_steps": 3, "inner_lr": 0.05, "multi_step": {"weights": "uniform"}},
    "meta_sgd": {"kind": "meta_sgd", "inner_lr": 0.05},
    "meta_sgd, 3 steps": {
        "kind": "meta_sgd",
        "inner_steps": 3,
        "inner_lr": 0.05,
        "multi_step": {"weights": [1, 0, 2]},
    },
    "meta_sgd, clipped": {"kind": "meta_sgd", "inner_steps": 2, "inner_lr": 0.05, "inner_clip": 0.05},
    "meta_sgd, first order": {"kind": "meta_sgd", "inner_steps": 3, "inner_lr": 0.05, "first_order": True},
    "anil": {"kind": "anil", "inner_steps": 3, "inner_lr": 0.05, "adapts": PARTS},
    "anil, first order": {"kind": "anil", "inner_steps": 3, "inner_lr": 0.05, "adapts": PARTS, "first_order": True},
    "anil, clipped": {"kind": "anil", "inner_steps": 2, "inner_lr": 0.05, "adapts": PARTS, "inner_clip": 0.02},
    "reptile": {"kind": "reptile", "inner_lr": 0.05},
    "reptile, clipped": {"kind": "reptile", "inner_steps": 3, "inner_lr": 0.05, "inner_clip": 0.05},
}


class TestEveryLearner(ReferenceContract):
    examples = LEARNERS


def learner(model: nn.Module, kind: str, **options: Any) -> Any:
    """Builds the learner of a section of an experiment."""
    return learner_of(model, {"kind": kind, **options})


def ones_task(count: int = 1) -> Task:
    """T tasks of one pixel: input 1, target 1, so that the squared error is (w − 1)²."""
    return Task(*(torch.ones(count, 1, 1, 1, 1, dtype=torch.float64) for _ in range(4)))


@pytest.mark.parametrize(("kind", "power"), [("maml", 2), ("fomaml", 1)])
@pytest.mark.parametrize("w", [0.0, 0.3, 2.0])
def test_outer_slope_of_a_quadratic(scalar: nn.Module, kind: str, power: int, w: float) -> None:
    """One inner step of rate a on (w − 1)² has outer slope 2(w − 1)(1 − 2a)²; first order drops one factor."""
    rate = 0.1
    built = learner(scalar, kind, inner_lr=rate, loss="mse")
    layout = Layout.of(built.model)
    found = vectorised_gradients(built, layout, torch.tensor([w], dtype=torch.float64), ones_task())
    assert found.gradients[0, 0] == pytest.approx(2 * (w - 1) * (1 - 2 * rate) ** power, abs=1e-12)
    assert found.metrics.losses[0] == pytest.approx(((w - 1) * (1 - 2 * rate)) ** 2, abs=1e-12)


@pytest.mark.parametrize(("kind", "power"), [("maml", 2), ("fomaml", 1)])
def test_outer_slopes_of_quadratics_with_factors(scalar: nn.Module, kind: str, power: int) -> None:
    """With the factor f, the slope is 2(w − 1)(1 − 2fa)²."""
    factors = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    built = replace(learner(scalar, kind, inner_lr=0.1, loss="mse"), rate_factors=factors)
    found = vectorised_gradients(built, Layout.of(scalar), torch.tensor([0.3], dtype=torch.float64), ones_task(3))
    np.testing.assert_allclose(found.gradients[:, 0], [-1.4 * (1 - 0.2 * f) ** power for f in (0, 0.5, 1)], rtol=1e-6)


def test_second_order_differs_from_first_order() -> None:
    model, layout, flat = network(torch.float64)
    tasks = random_tasks(2, torch.float64)
    first = vectorised_gradients(learner(model, "fomaml", inner_steps=3, inner_lr=0.05), layout, flat, tasks)
    second = vectorised_gradients(learner(model, "maml", inner_steps=3, inner_lr=0.05), layout, flat, tasks)
    assert relative_error(first, second) > 1e-3


def test_pretraining_gradient_is_the_slope_of_the_mean_loss() -> None:
    model, layout, flat = network(torch.float64)
    task = Task(*(tensor[0] for tensor in random_tasks(1, torch.float64)))
    built = learner(model, "pretrain", loss="mse")
    gradient = mean_loss_gradient(built, layout, flat, task)
    direction = torch.randn(flat.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    step = 1e-6

    def value(sign: float) -> float:
        params = repeated(layout.unflatten(flat + sign * step * direction), 1)
        return float(built.losses(params, Task(*(tensor[None] for tensor in task)))[0])

    assert float(gradient @ direction) == pytest.approx((value(1) - value(-1)) / (2 * step), rel=1e-5)


def test_an_operation_without_double_backward_is_named() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError("fused_operation has no derivative")

    from metarestore.errors import UserError

    built = learner(Fused(), "maml")
    with pytest.raises(UserError, match=r"fused_operation.*fomaml"):
        vectorised_gradients(built, Layout.of(built.model), torch.ones(1, dtype=torch.float64), ones_task())


def test_learn2learn_is_really_used() -> None:
    assert maml_class().__module__ == "learn2learn.algorithms.maml"


def test_psnr_of_mse() -> None:
    np.testing.assert_allclose(psnr_of_mse([1.0, 0.1, 0.01]), [0.0, 10.0, 20.0], atol=1e-12)


def test_features_come_with_the_restored_images() -> None:
    """They are those of each task's own parameters, and have gradients."""
    model, layout, flat = network(torch.float64)
    lr = random_tasks(2, torch.float64).support_lr
    built, params = learner(model, "pretrain"), repeated(layout.unflatten(flat), 2)
    params = {name: torch.stack([value[0], 1.5 * value[1]]).requires_grad_() for name, value in params.items()}
    restored, features = built.restore_with_features(params, lr, ["expanding", "features"])
    torch.testing.assert_close(restored, built.restore(params, lr))
    assert list(features) == ["expanding", "features"]
    assert features["features"].shape == (2, 3, 8, 8, 8)
    for task in range(2):
        torch.nn.utils.vector_to_parameters(
            layout.flatten({name: value[task] for name, value in params.items()}).detach(), model.parameters()
        )
        torch.testing.assert_close(features["features"][task], model.body[:2](lr[task]))
        torch.testing.assert_close(features["expanding"][task], model.body(lr[task]))
    gradient = torch.autograd.grad(features["features"].square().sum(), params["body.0.weight"])[0]
    assert gradient.flatten(1).norm(dim=1).min() > 0

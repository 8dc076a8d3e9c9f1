"""Task gradients: analytic values, and agreement of the vectorised backend with learn2learn's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from metarestore.config.learner import LearnerSpec
from metarestore.config.model import FSRCNNSpec
from metarestore.learners.build import build_learner
from metarestore.learners.gradients import (
    TaskGradients,
    mean_loss_gradient,
    repeated,
    split_gradients,
    vectorised_gradients,
)
from metarestore.learners.learn2learn import maml_class, reference_gradients
from metarestore.learners.learner import psnr_of_mse
from metarestore.learners.variants import ReptileLearner
from metarestore.models.build import build_model
from metarestore.models.parameters import Layout, initial_vector
from metarestore.tasks.task import Task

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


def learner(model: nn.Module, kind: str, **options: Any) -> Any:
    """Builds the learner of a section of an experiment."""
    return build_learner(TypeAdapter(LearnerSpec).validate_python({"kind": kind, **options}), model)


def ones_task(count: int = 1) -> Task:
    """T tasks of one pixel: input 1, target 1, so that the squared error is (w − 1)²."""
    return Task(*(torch.ones(count, 1, 1, 1, 1, dtype=torch.float64) for _ in range(4)))


def random_tasks(count: int, dtype: torch.dtype) -> Task:
    rng = torch.Generator().manual_seed(0)
    lr, hr = (count, 3, 1, 8, 8), (count, 3, 1, 32, 32)
    return Task(*(torch.rand(shape, generator=rng, dtype=dtype) for shape in (lr, hr, lr, hr)))


def network(dtype: torch.dtype) -> tuple[nn.Module, Layout, torch.Tensor]:
    model = build_model(FSRCNNSpec(d=8, s=4, m=1), scale=4, seed=3).to(dtype)
    flat = initial_vector(model)
    # Away from the nearly linear initial network, where first and second order hardly differ.
    return (
        model,
        Layout.of(model),
        flat + 0.05 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1)).to(flat),
    )


def relative_error(a: TaskGradients, b: TaskGradients) -> float:
    return float((np.linalg.norm(a.gradients - b.gradients, axis=1) / np.linalg.norm(b.gradients, axis=1)).max())


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


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_vectorised_equals_learn2learn(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model, layout, flat = network(dtype)
    tasks, model_size = random_tasks(3, dtype), layout.size
    built = learner(model, **LEARNERS[name])
    layout, flat = built.layout(layout), built.initial(flat)
    flat[model_size:] *= 1 + torch.rand(flat[model_size:].shape, generator=torch.Generator().manual_seed(4)).to(flat)
    ours = vectorised_gradients(built, layout, flat, tasks, step=4)
    reference = reference_gradients(built, layout, flat, tasks, step=4)
    assert ours.gradients.shape == (3, layout.size)
    # The reference is a difference of float32 parameters, which are a thousand times longer than the way.
    loss_of_digits = 10 if isinstance(built, ReptileLearner) else 1
    assert relative_error(ours, reference) <= loss_of_digits * tolerance
    np.testing.assert_allclose(ours.metrics.losses, reference.metrics.losses, rtol=10 * tolerance)
    np.testing.assert_allclose(ours.metrics.mse, reference.metrics.mse, rtol=10 * tolerance)


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "pretrain"])
def test_factors_of_the_inner_rate(name: str) -> None:
    """They are the tasks' own: each task has the gradient of a built whose rate is its factor times as large."""
    model, layout, flat = network(torch.float64)
    tasks = random_tasks(3, torch.float64)
    built = learner(model, **LEARNERS[name])
    layout, flat = built.layout(layout), built.initial(flat)
    factors = torch.tensor([0.25, 1.0, 0.0], dtype=torch.float64)
    weighted = replace(built, rate_factors=factors)
    ours = vectorised_gradients(weighted, layout, flat, tasks, step=4)
    reference = reference_gradients(weighted, layout, flat, tasks, step=4)
    moved = np.linalg.norm(reference.gradients, axis=1) > 0
    assert moved.tolist() == [True, True, not isinstance(built, ReptileLearner)]
    limit = (1e-8 if isinstance(built, ReptileLearner) else 1e-9) * np.linalg.norm(reference.gradients, axis=1)
    assert (np.linalg.norm(ours.gradients - reference.gradients, axis=1) <= limit + 1e-12).all()
    plain = vectorised_gradients(built, layout, flat, tasks, step=4)
    np.testing.assert_allclose(ours.gradients[1], plain.gradients[1], rtol=1e-9, atol=1e-14)
    split = split_gradients(weighted, layout, flat, tasks, 4, microbatch=2)
    np.testing.assert_allclose(split.gradients, ours.gradients, rtol=1e-7, atol=1e-12)


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


def test_a_task_gradient_does_not_depend_on_its_neighbours() -> None:
    model, layout, flat = network(torch.float64)
    tasks = random_tasks(3, torch.float64)
    built = learner(model, "maml")
    together = vectorised_gradients(built, layout, flat, tasks)
    for k in range(3):
        alone = vectorised_gradients(built, layout, flat, Task(*(tensor[k : k + 1] for tensor in tasks)))
        np.testing.assert_allclose(alone.gradients[0], together.gradients[k], rtol=1e-10, atol=1e-14)


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

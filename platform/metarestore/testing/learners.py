"""Contract tests of learners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from metarestore.config.learner import AnyLearnerSpec, LearnerSpec
from metarestore.config.model import FSRCNNSpec
from metarestore.learners.build import build_learner
from metarestore.learners.gradients import TaskGradients, split_gradients, vectorised_gradients
from metarestore.learners.learn2learn import reference_gradients
from metarestore.learners.variants import ReptileLearner
from metarestore.models.build import build_model
from metarestore.models.parameters import Layout, initial_vector
from metarestore.tasks.task import Task
from metarestore.testing.contract import Contract

Example = Mapping[str, Any]


def learner_of(model: nn.Module, example: Example) -> Any:
    """Builds a learner from the section `learner` of an experiment."""
    spec: AnyLearnerSpec = TypeAdapter(LearnerSpec).validate_python(example)
    return build_learner(spec, model)


def random_tasks(count: int, dtype: torch.dtype) -> Task:
    """Returns T tasks of noise, each with three support and three query luma patches at scale 4."""
    rng = torch.Generator().manual_seed(0)
    lr, hr = (count, 3, 1, 8, 8), (count, 3, 1, 32, 32)
    return Task(*(torch.rand(shape, generator=rng, dtype=dtype) for shape in (lr, hr, lr, hr)))


def network(dtype: torch.dtype) -> tuple[nn.Module, Layout, Tensor]:
    """Returns a small FSRCNN with its layout and parameters (P,)."""
    model = build_model(FSRCNNSpec(d=8, s=4, m=1), scale=4, seed=3).to(dtype)
    flat = initial_vector(model)
    # Perturbed, because for the nearly linear initial network first and second order hardly differ.
    return (
        model,
        Layout.of(model),
        flat + 0.05 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1)).to(flat),
    )


def relative_error(a: TaskGradients, b: TaskGradients) -> float:
    """Returns the largest relative difference between the gradients of a task."""
    return float((np.linalg.norm(a.gradients - b.gradients, axis=1) / np.linalg.norm(b.gradients, axis=1)).max())


def started(example: Example, dtype: torch.dtype = torch.float64) -> tuple[Any, Layout, Tensor]:
    """Returns a learner of a small FSRCNN, with the layout and the vector of its learned parameters."""
    model, layout, flat = network(dtype)
    built = learner_of(model, example)
    return built, built.layout(layout), built.initial(flat)


class LearnerContract(Contract):
    """Tests learners; an example is the section `learner` of an experiment, for FSRCNN on luma at scale 4."""

    def test_every_task_has_a_finite_loss_and_gradient(self, example: Example) -> None:
        """Each task has one loss, and one gradient of all learned parameters."""
        built, layout, flat = started(example)
        computed = vectorised_gradients(built, layout, flat, random_tasks(3, torch.float64), step=4)
        assert computed.gradients.shape == (3, layout.size)
        assert np.isfinite(computed.gradients).all()
        assert (np.linalg.norm(computed.gradients, axis=1) > 0).all()
        assert np.isfinite(computed.metrics.losses).all()
        assert np.isfinite(computed.metrics.mse).all()

    def test_a_task_gradient_does_not_depend_on_its_neighbours(self, example: Example) -> None:
        """A task has the same gradient alone and in a shard, so workers and retries change nothing."""
        built, layout, flat = started(example)
        if built.spec.compares_tasks:
            pytest.skip("the learner compares the tasks of a shard")
        tasks = random_tasks(3, torch.float64)
        together = vectorised_gradients(built, layout, flat, tasks, step=4)
        for k in range(3):
            alone = vectorised_gradients(built, layout, flat, Task(*(tensor[k : k + 1] for tensor in tasks)), step=4)
            np.testing.assert_allclose(alone.gradients[0], together.gradients[k], rtol=1e-10, atol=1e-14)

    def test_the_same_tasks_have_the_same_gradients(self, example: Example) -> None:
        """Gradients depend on the parameters and tasks only, bit for bit."""
        built, layout, flat = started(example)
        tasks = random_tasks(3, torch.float64)
        first, second = (vectorised_gradients(built, layout, flat, tasks, step=4) for _ in range(2))
        np.testing.assert_array_equal(first.gradients, second.gradients)


class ReferenceContract(LearnerContract):
    """Tests learners that learn2learn also implements: the vectorised backend equals `clone` and `adapt`."""

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
    def test_vectorised_equals_learn2learn(self, example: Example, dtype: torch.dtype, tolerance: float) -> None:
        """Gradients, losses and errors agree."""
        model, layout, flat = network(dtype)
        tasks, model_size = random_tasks(3, dtype), layout.size
        built = learner_of(model, example)
        layout, flat = built.layout(layout), built.initial(flat)
        away = torch.rand(flat[model_size:].shape, generator=torch.Generator().manual_seed(4))
        flat[model_size:] *= 1 + away.to(flat)
        ours = vectorised_gradients(built, layout, flat, tasks, step=4)
        reference = reference_gradients(built, layout, flat, tasks, step=4)
        assert ours.gradients.shape == (3, layout.size)
        # The reference is a difference of float32 parameters, whose norm is a thousand times that of the difference.
        loss_of_digits = 10 if isinstance(built, ReptileLearner) else 1
        assert relative_error(ours, reference) <= loss_of_digits * tolerance
        np.testing.assert_allclose(ours.metrics.losses, reference.metrics.losses, rtol=10 * tolerance)
        np.testing.assert_allclose(ours.metrics.mse, reference.metrics.mse, rtol=10 * tolerance)

    def test_factors_of_the_inner_rate(self, example: Example) -> None:
        """Each task has the gradient of a learner whose inner learning rate is multiplied by the task's factor."""
        built, layout, flat = started(example)
        if not built.spec.has_inner_loop:
            pytest.skip("the learner has no inner loop")
        tasks, reptile = random_tasks(3, torch.float64), isinstance(built, ReptileLearner)
        weighted = replace(built, rate_factors=torch.tensor([0.25, 1.0, 0.0], dtype=torch.float64))
        ours = vectorised_gradients(weighted, layout, flat, tasks, step=4)
        reference = reference_gradients(weighted, layout, flat, tasks, step=4)
        moved = np.linalg.norm(reference.gradients, axis=1) > 0
        assert moved.tolist() == [True, True, not reptile]
        limit = (1e-8 if reptile else 1e-9) * np.linalg.norm(reference.gradients, axis=1)
        assert (np.linalg.norm(ours.gradients - reference.gradients, axis=1) <= limit + 1e-12).all()
        plain = vectorised_gradients(built, layout, flat, tasks, step=4)
        np.testing.assert_allclose(ours.gradients[1], plain.gradients[1], rtol=1e-9, atol=1e-14)
        split = split_gradients(weighted, layout, flat, tasks, 4, microbatch=2)
        np.testing.assert_allclose(split.gradients, ours.gradients, rtol=1e-7, atol=1e-12)

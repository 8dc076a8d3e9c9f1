"""What each relative of MAML computes, on losses that are polynomials, and its options on a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from metarestore.config.learner import FOMAMLSpec, LearnerSpec, MAMLSpec, MultiStepSpec
from metarestore.errors import UserError
from metarestore.learners.adapted import matching_parameters
from metarestore.learners.build import build_learner
from metarestore.learners.gradients import joined, split_gradients, vectorised_gradients
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import Learner, MAMLLearner, PretrainLearner
from metarestore.learners.losses import image_loss, norm_factors
from metarestore.learners.multi_step import step_weights
from metarestore.learners.variants import MetaSGDLearner, ReptileLearner
from metarestore.models.parameters import Layout, initial_vector
from metarestore.tasks.task import Task
from metarestore.workspace.refs import TaskRef
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

RATE = 0.1
SHRINKS = 1 - 2 * RATE
"""One inner step of rate a on (w − 1)² takes the error w − 1 to (1 − 2a) of it."""


def pixel(count: int = 1) -> Task:
    """T tasks of one pixel: input 1, target 1, so that the squared error is (w − 1)²."""
    return Task(*(torch.ones(count, 1, 1, 1, 1, dtype=torch.float64) for _ in range(4)))


def learner(model: nn.Module, kind: str, **options: Any) -> Any:
    """Builds the learner of a section of an experiment."""
    return build_learner(TypeAdapter(LearnerSpec).validate_python({"kind": kind, **options}), model)


def mse(model: nn.Module, kind: str, **options: Any) -> Any:
    """Builds a learner with the squared error, and inner steps of `RATE`."""
    return learner(model, kind, inner_lr=RATE, loss="mse", **options)


def slope(built: Learner, *values: float, step: int = 0) -> tuple[np.ndarray, float]:
    """The gradient and the loss of one task at the learned values."""
    layout = built.layout(Layout.of(built.model))
    found = vectorised_gradients(built, layout, torch.tensor(values, dtype=torch.float64), pixel(), step)
    return found.gradients[0], float(found.metrics.losses[0])


def test_weights_of_mzsr() -> None:
    """w₁..₄ = max(1/5 − 6e-5·g, 0.006), w₅ = min(1/5 + 2.4e-4·g, 0.976) at outer step g (the released code)."""
    spec = MultiStepSpec(steps=10000 / 3)
    for g in (0, 1, 1000, 3000, 3300, 50000):
        first, last = max(0.2 - 6e-5 * g, 0.006), min(0.2 + 2.4e-4 * g, 0.976)
        np.testing.assert_allclose(step_weights(spec, 5, g), [first] * 4 + [last], rtol=1e-12)


def test_weights_sum_to_one_and_end_where_they_should() -> None:
    for spec in (None, MultiStepSpec(), MultiStepSpec(weights="uniform"), MultiStepSpec(weights=(1.0, 2.0, 5.0))):
        for step in (0, 10, 10**6):
            assert sum(step_weights(spec, 3, step)) == pytest.approx(1)
    assert step_weights(None, 3, 7) == (0, 0, 1)
    assert step_weights(MultiStepSpec(weights="uniform"), 2, 10**6) == (0.5, 0.5)
    assert step_weights(MultiStepSpec(weights=(1.0, 3.0)), 2, 5) == (0.25, 0.75)
    assert step_weights(MultiStepSpec(floor=0.0, steps=4), 2, 4) == pytest.approx((0, 1))
    assert step_weights(MultiStepSpec(), 1, 100) == pytest.approx((1.0,))


def test_multi_step_slope_of_a_quadratic(scalar: nn.Module) -> None:
    """Σ vₖ (w − 1)² s²ᵏ with s = 1 − 2a has the slope 2(w − 1) Σ vₖ s²ᵏ; in first order sᵏ stands for s²ᵏ."""
    w, spec = 3.0, MultiStepSpec(weights="annealed", steps=10)
    for kind, power in (("maml", 2), ("fomaml", 1)):
        built = learner(scalar, kind, inner_steps=3, inner_lr=RATE, loss="mse", multi_step=spec)
        for step in (0, 5, 100):
            weights = step_weights(spec, 3, step)
            found, loss = slope(built, w, step=step)
            expected = sum(v * SHRINKS ** (k * 2) for k, v in enumerate(weights, 1)) * (w - 1) ** 2
            assert loss == pytest.approx(expected, rel=1e-12)
            steps = [v * SHRINKS**k * SHRINKS ** (k * (power - 1)) for k, v in enumerate(weights, 1)]
            assert found[0] == pytest.approx(2 * (w - 1) * sum(steps), rel=1e-12)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [0, 0]])
def test_a_wrong_list_of_weights_is_refused(weights: list[float]) -> None:
    with pytest.raises(ValidationError, match="2 numbers"):
        MAMLSpec.model_validate({"kind": "maml", "inner_steps": 2, "multi_step": {"weights": weights}})


def test_meta_sgd_learns_its_rate(scalar: nn.Module) -> None:
    """L = (w − 1)²(1 − 2a)² has the slopes 2(w − 1)(1 − 2a)² in w and −4(w − 1)²(1 − 2a) in a."""
    found, _ = slope(mse(scalar, "meta_sgd"), 3.0, RATE)
    assert found[0] == pytest.approx(2 * 2 * SHRINKS**2, rel=1e-12)
    assert found[1] == pytest.approx(-4 * 4 * SHRINKS, rel=1e-12)


def test_meta_sgd_starts_as_maml(scalar: nn.Module) -> None:
    maml, meta = (mse(scalar, kind, inner_steps=2) for kind in ("maml", "meta_sgd"))
    start = meta.initial(torch.tensor([0.5]))
    assert start.tolist() == pytest.approx([0.5, RATE])
    assert slope(meta, *start.tolist())[0][0] == pytest.approx(slope(maml, 0.5)[0][0], rel=1e-6)


def test_anil_leaves_the_other_parts(scalar: nn.Module) -> None:
    """Where nothing adapts the loss is that at the parameters themselves; where all does, it is MAML."""
    maml = mse(scalar, "maml", inner_steps=2)
    assert slope(replace(maml, adapts=frozenset()), 3.0)[1] == pytest.approx(4.0)
    np.testing.assert_array_equal(slope(replace(maml, adapts=frozenset({"w"})), 3.0)[0], slope(maml, 3.0)[0])


def test_reptile_points_back_from_where_training_leads(scalar: nn.Module) -> None:
    """θ − U^k(θ) is (w − 1)(1 − (1 − 2a)^k); with k = 1 it is a times the gradient of pre-training."""
    for k in (1, 4):
        found, loss = slope(mse(scalar, "reptile", inner_steps=k), 3.0)
        assert found[0] == pytest.approx(2 * (1 - SHRINKS**k), rel=1e-12)
        assert loss == pytest.approx(4 * SHRINKS ** (2 * k), rel=1e-12)
    single = slope(mse(scalar, "reptile", inner_steps=1), 3.0)[0]
    assert single[0] == pytest.approx(RATE * slope(learner(scalar, "pretrain", loss="mse"), 3.0)[0][0], rel=1e-12)


def test_clipped_inner_steps_have_the_given_length(scalar: nn.Module) -> None:
    """A clipped step takes w by a·c: L = (w − ac − 1)², and dL/dw = 2(w − ac − 1), since its length is constant."""
    found, loss = slope(mse(scalar, "maml", inner_steps=2, inner_clip=0.5), 3.0)
    assert loss == pytest.approx((3.0 - 2 * RATE * 0.5 - 1) ** 2, rel=1e-12)
    assert found[0] == pytest.approx(2 * (3.0 - 2 * RATE * 0.5 - 1), rel=1e-12)
    np.testing.assert_array_equal(
        slope(mse(scalar, "maml", inner_steps=2, inner_clip=1e9), 3.0)[0],
        slope(mse(scalar, "maml", inner_steps=2), 3.0)[0],
    )


def test_clipping_a_vanishing_gradient_gives_no_nan(scalar: nn.Module) -> None:
    assert slope(mse(scalar, "maml", inner_steps=2, inner_clip=0.5), 1.0)[0].tolist() == [0.0]
    gradients = [torch.tensor([[3.0], [0.3]]), torch.tensor([[4.0], [0.4]])]
    assert norm_factors(gradients, 1.0).tolist() == pytest.approx([0.2, 1.0])


@pytest.mark.parametrize(("name", "error"), [("l1", 0.3), ("mse", 0.09), ("charbonnier", (0.09 + 0.04) ** 0.5)])
def test_losses(name: Any, error: float) -> None:
    found = image_loss(name, 0.2)(torch.full((2, 3), 0.5), torch.full((2, 3), 0.2))
    assert float(found) == pytest.approx(error, rel=1e-6)


def test_inner_and_outer_loss_are_told_apart(scalar: nn.Module) -> None:
    """|w − 1| inside takes w by the rate: the squared error outside is (w − a − 1)²."""
    found, loss = slope(mse(scalar, "maml", inner_loss="l1"), 3.0)
    assert loss == pytest.approx((2 - RATE) ** 2)
    assert found[0] == pytest.approx(2 * (2 - RATE))


def test_patterns_of_parameters() -> None:
    names = ["body.0.weight", "body.0.bias", "body.1.weight", "tail.weight"]
    assert matching_parameters(["tail.*", "body.1.weight"], names, "learner.adapts") == {"tail.weight", "body.1.weight"}
    assert matching_parameters(["*"], names, "learner.adapts") == set(names)
    with pytest.raises(UserError, match=r"learner.adapts: 'tial.\*' matches no parameter.*did you mean 'tail.\*'\?"):
        matching_parameters(["tail.*", "tial.*"], names, "learner.adapts")
    with pytest.raises(UserError, match=r"'zzz' matches no parameter.*patterns that match: body.\*"):
        matching_parameters(["zzz"], names, "learner.adapts")


@pytest.mark.parametrize(
    ("kind", "built", "own"),
    [
        ("maml", MAMLLearner, {}),
        ("fomaml", MAMLLearner, {}),
        ("meta_sgd", MetaSGDLearner, {"first_order": True}),
        ("anil", MAMLLearner, {"adapts": ("w",)}),
        ("reptile", ReptileLearner, {}),
        ("pretrain", PretrainLearner, {}),
        ("finetune", PretrainLearner, {}),
    ],
)
def test_a_learner_has_its_section(scalar: nn.Module, kind: str, built: type, own: dict[str, Any]) -> None:
    spec = TypeAdapter(LearnerSpec).validate_python({"kind": kind, "loss": "mse", **own})
    found = build_learner(spec, scalar, "bfloat16")
    assert type(found) is built
    assert (found.spec, found.model, found.precision) == (spec, scalar, "bfloat16")
    assert getattr(found, "adapts", None) == (frozenset({"w"}) if kind == "anil" else None)


_INNER = {"inner_steps": 3, "inner_lr": 0.11, "inner_clip": 0.01, "inner_loss": "charbonnier", "loss": "charbonnier"}
_MULTI_STEP = {**_INNER, "multi_step": {"weights": "uniform"}}
KEYS: dict[str, dict[str, Any]] = {
    "maml": _MULTI_STEP,
    "fomaml": _MULTI_STEP,
    "meta_sgd": {**_MULTI_STEP, "first_order": True},
    "anil": {**_MULTI_STEP, "first_order": True, "adapts": ["v"]},
    "reptile": _INNER,
    "pretrain": {"loss": "charbonnier"},
    "finetune": {"loss": "charbonnier"},
}
"""Keys of each learner, with values other than those that the test starts from."""


class _Affine(nn.Module):
    """w·x + v·x²: its gradient changes along the way, and two parameters tell apart what adapts."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor(-0.4, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * x + self.v * x**2


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in KEYS.items() for key in keys])
def test_every_key_of_a_learner_has_an_effect(kind: str, key: str) -> None:
    """A key that the learner did not read would leave the gradient as it is."""
    model = _Affine()
    rng = torch.Generator().manual_seed(0)
    tasks = Task(*(torch.rand(2, 3, 1, 4, 4, generator=rng, dtype=torch.float64) for _ in range(4)))
    inner = {} if kind in ("pretrain", "finetune") else {"inner_steps": 2, "inner_lr": 0.2, "inner_loss": "mse"}
    start = {"kind": kind, "loss": "mse", **inner, **({"adapts": ["w"]} if kind == "anil" else {})}
    if (kind, key) == ("reptile", "loss"):
        start.pop("inner_loss")  # it replaces the loss: Reptile has no outer one

    def gradient(spec: dict[str, Any]) -> np.ndarray:
        built = build_learner(TypeAdapter(LearnerSpec).validate_python(spec), model)
        layout = built.layout(Layout.of(model))
        flat = built.initial(initial_vector(model))
        return vectorised_gradients(built, layout, flat, tasks).gradients

    before, after = gradient(start), gradient({**start, key: KEYS[kind][key]})
    assert np.abs(before - after).max() > 1e-6


def test_adaptation_takes_over_the_inner_loop(scalar: nn.Module) -> None:
    inner = learner(scalar, "maml", loss="l1", inner_loss="charbonnier", charbonnier_eps=0.1, inner_clip=3.0)
    assert inner.inner_rule == InnerRule("charbonnier", 0.1, 3.0)
    assert learner(scalar, "pretrain", loss="mse").inner_rule.loss_name == "mse"


def test_defaults_are_those_of_before(scalar: nn.Module) -> None:
    spec = FOMAMLSpec(kind="fomaml")
    assert build_learner(spec, scalar).inner_rule.loss_name == "l1"
    assert (spec.multi_step, spec.inner_clip, spec.inner_loss) == (None, None, None)


def shard(workspace: Workspace, count: int) -> Task:
    return workspace.tasks([TaskRef("blur_iso_wide", 0, index) for index in range(count)])


@pytest.mark.parametrize("microbatch", [1, 2, 3, None])
def test_a_split_shard_gives_the_tasks_in_order(workspace: Workspace, microbatch: int | None) -> None:
    tasks, flat = shard(workspace, 4), workspace.initial()
    learner, layout = workspace.learner, workspace.layout
    whole = vectorised_gradients(learner, layout, flat, tasks)
    parts = split_gradients(learner, layout, flat, tasks, 0, microbatch)
    for ours, theirs in zip(parts.gradients, whole.gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    np.testing.assert_allclose(parts.metrics.losses, whole.metrics.losses, rtol=1e-5)
    again = split_gradients(learner, layout, flat, tasks, 0, microbatch)
    np.testing.assert_array_equal(again.gradients, parts.gradients)


def test_joining_keeps_sketches(workspace: Workspace) -> None:
    found = workspace.gradients(workspace.initial(), shard(workspace, 2)).sketch(16).metrics
    both = joined([found, found])
    assert both.sketches is not None
    assert both.sketches.shape == (4, 16)
    np.testing.assert_array_equal(both.sketches[2:], found.sketches)


@pytest.mark.parametrize("kind", ["pretrain", "fomaml", "maml", "meta_sgd", "reptile"])
def test_bfloat16_points_the_same_way(small_study: Callable[..., Study], kind: str) -> None:
    exact = Workspace(small_study(learner={"kind": kind}))
    rough = Workspace(small_study(learner={"kind": kind}, training={"precision": "bfloat16"}))
    tasks, flat = shard(exact, 3), exact.initial()
    ours, theirs = rough.gradients(flat, tasks).gradients, exact.gradients(flat, tasks).gradients
    assert ours.dtype == np.float32
    assert not np.array_equal(ours, theirs)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 0.999


def test_an_operation_without_bfloat16_is_named() -> None:
    class Exact(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.matmul(torch.ones(1, 1), torch.ones(1, 1)).dtype != torch.float32:
                raise RuntimeError("fused_operation wants float32")
            return self.w * x

    tasks = Task(*(tensor.float() for tensor in pixel()))
    model = Exact()
    vectorised_gradients(learner(model, "maml"), Layout.of(model), torch.ones(1), tasks)
    with pytest.raises(
        UserError,
        match=r"training.precision: bfloat16 is not supported by this learner and network \(fused_operation.*float32",
    ):
        vectorised_gradients(
            replace(learner(model, "maml"), precision="bfloat16"), Layout.of(model), torch.ones(1), tasks
        )

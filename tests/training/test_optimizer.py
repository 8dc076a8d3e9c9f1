"""The outer optimizer: each kind is torch's own, the schedule is a function of the step, everything restores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from metarestore.config.experiment import OptimizerSpec
from metarestore.training.optimizer import OuterOptimizer
from metarestore.training.state import TrainState, load_state, save_state

STEPS = 12


def gradient(step: int, flat: torch.Tensor) -> torch.Tensor:
    """Any gradient that depends on the parameters, so that a difference is not forgotten."""
    return torch.sin(flat.detach() * (step + 1)) + flat.detach()


def advanced(optimizer: OuterOptimizer, first: int = 0, last: int = STEPS) -> OuterOptimizer:
    for step in range(first, last):
        optimizer.update(step, gradient(step, optimizer.flat))
    return optimizer


KINDS: dict[str, tuple[dict[str, Any], Callable[..., torch.optim.Optimizer]]] = {
    "adam": ({"kind": "adam"}, torch.optim.Adam),
    "adamw": ({"kind": "adamw", "weight_decay": 0.3}, lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.3)),
    "adamw without decay": ({"kind": "adamw"}, torch.optim.Adam),
    "sgd": ({"kind": "sgd"}, torch.optim.SGD),
    "momentum": ({"kind": "sgd", "momentum": 0.9}, lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_that_of_torch(name: str) -> None:
    spec, build = KINDS[name]
    ours = advanced(
        OuterOptimizer(OptimizerSpec(lr=0.05, schedule="constant", **spec), torch.linspace(-1, 1, 7), STEPS)
    )
    theirs = torch.linspace(-1, 1, 7).requires_grad_()
    rule = build([theirs], lr=0.05)
    for step in range(STEPS):
        theirs.grad = gradient(step, theirs)
        rule.step()
    assert torch.equal(ours.flat, theirs)


def test_learned_rates_do_not_decay() -> None:
    spec = OptimizerSpec(kind="adamw", lr=0.1, schedule="constant", weight_decay=0.5)
    optimizer = OuterOptimizer(spec, torch.ones(4), 10, decayed=3)
    optimizer.update(0, torch.zeros(4))
    assert optimizer.flat.tolist() == pytest.approx([0.95, 0.95, 0.95, 1.0])


def test_warm_up_rises_to_the_rate_and_the_cosine_falls_to_the_least() -> None:
    spec = OptimizerSpec(lr=1.0, warmup_steps=3, min_lr=0.2)
    rates = [OuterOptimizer(spec, torch.zeros(1), 13).rate(step) for step in range(14)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[8] == pytest.approx(0.6)
    assert rates[13] == pytest.approx(0.2)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    constant = OuterOptimizer(OptimizerSpec(lr=1.0, warmup_steps=1, schedule="constant"), torch.zeros(1), 2)
    assert [constant.rate(step) for step in range(3)] == [0.5, 1.0, 1.0]
    assert OuterOptimizer(OptimizerSpec(lr=1.0, warmup_steps=9), torch.zeros(1), 4).rate(3) == pytest.approx(0.4)


def test_a_long_gradient_is_clipped_and_a_short_one_is_not() -> None:
    spec = OptimizerSpec(kind="sgd", lr=1.0, schedule="constant", clip=1.0)
    optimizer = OuterOptimizer(spec, torch.zeros(2), 10)
    optimizer.update(0, torch.tensor([3.0, 4.0]))
    assert optimizer.flat.tolist() == pytest.approx([-0.6, -0.8])
    optimizer.update(1, torch.tensor([0.6, 0.0]))
    assert optimizer.flat.tolist() == pytest.approx([-1.2, -0.8])


def test_the_running_mean() -> None:
    """With a constant gradient of 1 and rate 1 the parameters are −t; the mean follows by its definition."""
    spec = OptimizerSpec(kind="sgd", lr=1.0, schedule="constant")
    optimizer = OuterOptimizer(spec, torch.zeros(1), 50, ema=0.9)
    mean = 0.0
    for step in range(50):
        optimizer.update(step, torch.ones(1))
        decay = min(0.9, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * -(step + 1.0)
    assert float(optimizer.averaged) == pytest.approx(mean, rel=1e-5)
    assert float(optimizer.flat.detach()) == -50
    # In the long run it lags by decay/(1 − decay) steps.
    assert 50 - 10 < -float(optimizer.averaged) < 50 - 5


def test_without_a_mean_the_parameters_are_evaluated_themselves() -> None:
    optimizer = advanced(OuterOptimizer(OptimizerSpec(), torch.ones(3), STEPS))
    assert torch.equal(optimizer.averaged, optimizer.flat)
    assert "ema" not in optimizer.tensors()


@pytest.mark.parametrize("ema", [None, 0.99])
@pytest.mark.parametrize("name", KINDS)
def test_a_restored_optimizer_continues_to_the_same_bits(tmp_path: Path, name: str, ema: float | None) -> None:
    spec = OptimizerSpec(lr=0.1, warmup_steps=2, clip=0.7, **KINDS[name][0])

    def fresh() -> OuterOptimizer:
        return OuterOptimizer(spec, torch.linspace(-1, 1, 7), STEPS, ema=ema)

    whole, state, resumed = advanced(fresh()), TrainState(advanced(fresh(), 0, 5), step=5), TrainState(fresh())
    save_state(tmp_path, state)
    assert load_state(tmp_path, resumed)
    advanced(resumed.optimizer, resumed.step)
    assert torch.equal(resumed.optimizer.flat, whole.flat)
    assert torch.equal(resumed.optimizer.averaged, whole.averaged)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "adam", "momentum": 0.9}, "momentum is only valid for kind: sgd"),
        ({"kind": "adam", "weight_decay": 0.1}, "weight_decay is only valid for kind: adamw"),
        ({"kind": "sgd", "lr": 0.1, "min_lr": 0.2}, "min_lr must not be above lr"),
    ],
)
def test_keys_that_would_do_nothing_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OptimizerSpec.model_validate(spec)

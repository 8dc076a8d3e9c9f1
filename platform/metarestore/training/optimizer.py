"""The outer optimizer: schedule, clipping, weight decay, and an EMA of the parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metarestore.config.experiment import OptimizerSpec


def learning_rate(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Returns the learning rate of a step: a linear warm-up, then the schedule over the remaining steps."""
    warmup = spec.warmup_steps
    if step < warmup:
        return spec.lr * (step + 1) / (warmup + 1)
    if spec.schedule == "constant":
        return spec.lr
    phase = math.pi * (step - warmup) / max(steps - warmup, 1)
    return spec.min_lr + (spec.lr - spec.min_lr) * 0.5 * (1.0 + math.cos(phase))


class OuterOptimizer:
    """The outer optimizer on the flat parameters (P,), with its schedule as a pure function of the step.

    Args:
        spec: Kind, learning rate and schedule.
        flat: Initial parameters, (P,).
        steps: Outer steps of the whole run.
        ema: Decay of the EMA of the parameters; None disables it.
        decayed: Number of leading parameters that weight decay applies to; None for all.
    """

    def __init__(
        self, spec: OptimizerSpec, flat: Tensor, steps: int, *, ema: float | None = None, decayed: int | None = None
    ) -> None:
        self.flat = flat.detach().clone().requires_grad_()
        self._spec = spec
        self._steps = steps
        self._ema = ema
        self._average = self.flat.detach().clone() if ema is not None else None
        self._decayed = decayed
        if spec.kind == "sgd":
            self._rule: torch.optim.Optimizer = torch.optim.SGD([self.flat], lr=spec.lr, momentum=spec.momentum)
        else:
            self._rule = torch.optim.Adam([self.flat], lr=spec.lr)

    @property
    def averaged(self) -> Tensor:
        """The parameters (P,) to be evaluated and saved: their EMA if enabled."""
        return self.flat.detach() if self._average is None else self._average

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step."""
        return learning_rate(self._spec, step, self._steps)

    def update(self, step: int, gradient: Tensor) -> None:
        """Takes one optimizer step with the outer gradient (P,)."""
        rate = self.rate(step)
        self._rule.param_groups[0]["lr"] = rate
        self.flat.grad = self._clipped(gradient)
        if self._spec.weight_decay:
            # Decoupled from Adam's moments, as in AdamW: Loshchilov and Hutter (2019), algorithm 2.
            with torch.no_grad():
                self.flat[: self._decayed].mul_(1.0 - rate * self._spec.weight_decay)
        self._rule.step()
        if self._average is not None and self._ema is not None:
            # A smaller decay at first, or the EMA would stay near the initial network for 1/(1 − decay) steps.
            decay = min(self._ema, (1.0 + step) / (10.0 + step))
            self._average.mul_(decay).add_(self.flat.detach(), alpha=1.0 - decay)

    def _clipped(self, gradient: Tensor) -> Tensor:
        if self._spec.clip is None:
            return gradient
        norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        return gradient * (self._spec.clip / norm) if norm > self._spec.clip else gradient

    def tensors(self) -> dict[str, Tensor]:
        """Returns parameters, moments and EMA by name."""
        moments = self._rule.state_dict()["state"].get(0, {})
        named = {f"optimizer.{key}": value for key, value in moments.items() if isinstance(value, Tensor)}
        average = {} if self._average is None else {"ema": self._average.clone()}
        return {"params": self.flat.detach().clone(), **named, **average}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restores the state returned by `tensors`."""
        with torch.no_grad():
            self.flat.copy_(tensors["params"])
        if self._average is not None:
            self._average.copy_(tensors["ema"])
        moments = {key.removeprefix("optimizer."): t for key, t in tensors.items() if key.startswith("optimizer.")}
        if moments:
            state = self._rule.state_dict()
            state["state"] = {0: moments}
            self._rule.load_state_dict(state)

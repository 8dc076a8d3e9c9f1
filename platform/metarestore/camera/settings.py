"""What adapting to a camera is given, and how its time is spent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metarestore.config.adaptation import Adapts, LoRASpec

PATCH, BATCH = 128, 8
"""Side of an HR patch at most, and patches of a step."""

ADAPTATION_STEPS = (30, 200)
"""Fewest and most steps of an adaptation."""
FITTED_STEPS = 2000
"""Most steps of training on the fitted distribution."""
_FITTED_SHARE = 0.35
"""Share of the time that is trained on the fitted distribution."""
_OVERHEAD = 0.8
"""Share of the time that is left for steps, after checks, measurements and pictures."""
_FITTED_COST = 1.7
"""Duration of a training step on the fitted distribution, in adaptation steps: its patches are degraded first."""

_RATES = ((30_000, 1e-3), (300_000, 3e-4))
"""Learning rates of networks up to so many parameters; 1e-4 above."""
_LARGEST_RATE = 1e-4
_LORA_RATE = 5.0
"""Learning rate of low-rank changes, relative to that of all parameters."""


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        pairs: Folder of pairs.
        shots: Number of pairs to learn from, at most.
        model: The network to start from; None selects a shipped one.
        scale: HR side over LR side, if known.
        minutes: Time limit.
        data: Folder of clean photographs to train on with the fitted distribution; None for the embedded ones.
        out: Folder of the results.
        seed: Seed of all draws.
    """

    pairs: Path
    shots: int
    model: Path | None
    scale: int | None
    minutes: float
    data: Path | None
    out: Path
    seed: int


def learning_rate(parameters: int) -> float:
    """Returns the learning rate of all parameters of a network with so many of them."""
    return next((rate for largest, rate in _RATES if parameters <= largest), _LARGEST_RATE)


@dataclass(frozen=True)
class Way:
    """A way to make a network for a camera.

    Attributes:
        name: Its name in tables.
        fitted: Whether the network is first trained on the distribution fitted to the shots.
        adapts: Which parameters adapt to the shots; None for none.
    """

    name: str
    fitted: bool
    adapts: Adapts | None

    def rate(self, parameters: int) -> float:
        """Returns the learning rate of the adaptation of a network with so many parameters."""
        rate = learning_rate(parameters)
        return rate * _LORA_RATE if isinstance(self.adapts, LoRASpec) else rate


UNADAPTED = Way("unadapted", fitted=False, adapts=None)

WAYS = (
    UNADAPTED,
    Way("adapted", fitted=False, adapts="all"),
    Way("adapted by LoRA", fitted=False, adapts=LoRASpec(lora=4)),
    Way("trained on the fit", fitted=True, adapts=None),
    Way("trained on the fit, adapted", fitted=True, adapts="all"),
)
"""The ways that are compared on the shots."""


@dataclass(frozen=True)
class Plan:
    """How many steps are taken.

    Attributes:
        steps: Steps of an adaptation.
        fitted_steps: Steps of training on the fitted distribution; 0 leaves it out.
        folds: Number of times that shots are left out to compare the ways.
    """

    steps: int
    fitted_steps: int
    folds: int

    @classmethod
    def of(cls, shots: int, minutes: float, seconds_per_step: float) -> Plan:
        """Divides the time.

        Args:
            shots: Number of shots.
            minutes: Time that is left.
            seconds_per_step: Duration of a step.
        """
        total = int(60 * minutes * _OVERHEAD / seconds_per_step)
        fitted = min(FITTED_STEPS, int(_FITTED_SHARE * total / _FITTED_COST))
        fewest, most = ADAPTATION_STEPS
        adapting = sum(way.adapts is not None for way in WAYS)
        for folds in (shots, 2):
            # The comparison, and the adaptation to all shots.
            steps = int(total - _FITTED_COST * fitted) // (adapting * folds + 1)
            if steps >= fewest:
                break
        return cls(max(min(steps, most), fewest), fitted if fitted >= 2 * fewest else 0, min(folds, shots))

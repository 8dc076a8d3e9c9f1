"""Trained networks that are shipped with the package, by name, each with a card that describes its training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from metarestore.errors import UserError

REAL_PAIRS, BICUBIC_LR = "real pairs", "bicubic LR"
"""Kinds of LR images on which cards state gains, the more telling one first."""
FIVE_PAIRS = "real pairs, adapted to five"
"""The gain on real pairs of a network that was adapted to five others of the same camera."""


@dataclass(frozen=True)
class Card:
    """The model card of a shipped network.

    Attributes:
        name: Name of the network, which commands accept instead of a path.
        purpose: Intended use, in one sentence.
        parameters: Number of its parameters.
        scale: Upscaling factor.
        sha256: SHA-256 of its file.
        data: Training data.
        tasks: Content hash of each task distribution that it was trained on.
        seed: Seed of its training.
        steps: Outer steps of each stage.
        minutes: Training time of all stages.
        command: Command that trained it.
        metrics: Test metrics by name.
        measured_on: Data that the metrics were measured on.
        date: Date of the training.
        gains: Mean PSNR-Y over bicubic upscaling in dB, by kind of LR: `REAL_PAIRS`, `BICUBIC_LR`, or `FIVE_PAIRS`.
        licence: Licence of the training data.
    """

    name: str
    purpose: str
    parameters: int
    scale: int
    sha256: str
    data: str
    tasks: dict[str, str]
    seed: int
    steps: dict[str, int]
    minutes: float
    command: str
    metrics: dict[str, float]
    measured_on: str
    date: str
    gains: dict[str, float]
    licence: str


_CARD = TypeAdapter(Card)


def folder() -> Path:
    """Returns the folder of the shipped networks: in the wheel, or the repository's own."""
    package = Path(__file__).parents[1]
    packaged = package / "catalogue" / "networks"
    return packaged if packaged.is_dir() else package.parents[1] / "experiments" / "networks"


def shipped() -> dict[str, Path]:
    """Returns the files of the shipped networks by name."""
    return {path.stem: path for path in sorted(folder().glob("*.safetensors"))}


def read_card(path: Path) -> Card:
    """Reads the card beside a network's file.

    Raises:
        UserError: There is no card, or it is invalid.
    """
    card = path.with_suffix(".json")
    try:
        return _CARD.validate_python(json.loads(card.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{card}: is not a valid model card ({reason}); reinstall metarestore") from error


@dataclass(frozen=True)
class Recommended:
    """The shipped network to restore with if none is chosen.

    Attributes:
        file: Its file.
        name: Its name.
        lr: Kind of LR images on which its gain was measured.
        gain: Mean PSNR-Y over bicubic upscaling, in dB.
    """

    file: Path
    name: str
    lr: str
    gain: float


def recommended(scale: int, kinds: Sequence[str] = (REAL_PAIRS, BICUBIC_LR)) -> Recommended:
    """Returns the network of a scale with the highest gain on real pairs, or on bicubic LR if no card states any there.

    Args:
        scale: Upscaling factor.
        kinds: Kinds of LR, the more telling ones first.

    Raises:
        UserError: No card of this scale states a gain.
    """
    cards = [(path, read_card(path)) for path in shipped().values()]
    for kind in kinds:
        found = [
            Recommended(path, card.name, kind, card.gains[kind])
            for path, card in cards
            if card.scale == scale and kind in card.gains
        ]
        if found:
            return max(found, key=lambda one: one.gain)
    raise UserError(f"--scale: no shipped network for scale {scale} states a gain over bicubic; give --model NETWORK")

"""Builds networks from specifications, and converts images to and from a network's channels."""

from __future__ import annotations

import torch
from torch import Tensor

from metarestore.config.model import BaseModelSpec
from metarestore.degradations.resample import bicubic_upsample
from metarestore.models.colour import rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb
from metarestore.models.network import Channels, Network, Restore, seeded
from metarestore.models.pisr_teacher import PISRTeacher


def build_model(spec: BaseModelSpec, scale: int, seed: int) -> Network:
    """Builds the network of an experiment, on the CPU, with initial weights drawn from `seed`.

    Raises:
        UserError: The code of the network cannot be imported.
    """
    return seeded(_built, seed, spec=spec, scale=scale)


def _built(spec: BaseModelSpec, scale: int) -> Network:
    options = {name: getattr(spec, name) for name in type(spec).model_fields if name not in BaseModelSpec.model_fields}
    options.pop("kind")
    network: Network = spec.implemented()(scale=scale, **options)
    if spec.keep_low_frequencies == "both":
        network.keep_low_frequencies()
    return network


def pisr_teacher(scale: int, decoder: BaseModelSpec, d: int, s: int) -> Network:
    """Builds a teacher of PISR with the decoder that its specification describes."""
    return PISRTeacher(scale, _built(decoder, scale), d, s)


def to_channels(rgb: Tensor, channels: Channels) -> Tensor:
    """Converts RGB (..., 3, H, W) to the channels of a network."""
    return rgb if channels == "rgb" else rgb_to_y(rgb)


def restore_rgb(model: Restore, lr: Tensor, *, scale: int, channels: Channels) -> Tensor:
    """Restores RGB images, (N, 3, h, w) in [0, 1] to (N, 3, s·h, s·w) in [0, 1].

    A luma network restores Y; the chroma planes are upscaled bicubically, as is standard.
    """
    with torch.no_grad():
        if channels == "rgb":
            return model(lr).clamp(0, 1)
        ycbcr = rgb_to_ycbcr(lr)
        chroma = bicubic_upsample(ycbcr[:, 1:], scale)
        return ycbcr_to_rgb(torch.cat([model(ycbcr[:, :1]), chroma], dim=1)).clamp(0, 1)

"""Tiny random networks of other projects, which spandrel opens."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from metarestore.models.spandrel_library import library

_SWIN = {"img_size": 16, "window_size": 4, "embed_dim": 8, "depths": [2], "num_heads": [2], "mlp_ratio": 2}
_DAT = {"img_size": 16, "embed_dim": 32, "split_size": [4, 8], "depth": [2], "num_heads": [2], "expansion_factor": 2.0}
FOREIGN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "esrgan": ("ESRGAN", "ESRGAN", {"num_filters": 8, "num_blocks": 1, "scale": 4}),
    "esrgan, unshuffled": ("ESRGAN", "ESRGAN", {"in_nc": 12, "num_filters": 8, "num_blocks": 1, "shuffle_factor": 2}),
    "compact": ("Compact", "Compact", {"num_feat": 8, "num_conv": 2, "upscale": 3}),
    "compact, luma": ("Compact", "Compact", {"num_in_ch": 1, "num_out_ch": 1, "num_feat": 8, "num_conv": 1}),
    "span": ("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}),
    "plksr": ("PLKSR", "PLKSR", {"dim": 8, "n_blocks": 1, "upscaling_factor": 4, "kernel_size": 5}),
    "realplksr": ("PLKSR", "RealPLKSR", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2, "kernel_size": 5}),
    "rcan": ("RCAN", "RCAN", {"scale": 4, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 8, "reduction": 2}),
    "swinir": ("SwinIR", "SwinIR", {**_SWIN, "upscale": 4, "upsampler": "pixelshuffledirect"}),
    "dat": ("DAT", "DAT", {**_DAT, "upscale": 2, "upsampler": "pixelshuffledirect"}),
}
"""Module, class and options of networks, by name."""


def foreign_module(name: str, **changes: Any) -> nn.Module:
    """Builds a network of `FOREIGN`, with some options changed; needs spandrel."""
    library(Path())
    module, cls, options = FOREIGN[name]
    built = getattr(importlib.import_module(f"spandrel.architectures.{module}"), cls)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network: nn.Module = built(**options | changes)
        for parameter in network.parameters():  # some layers start at 0
            parameter.data += 0.02 * torch.randn(parameter.shape)
    return network


def write_foreign(name: str, file: Path, **changes: Any) -> Path:
    """Writes the weights of a network of `FOREIGN` as `.safetensors`, or as `.pth` under `params_ema`."""
    tensors = {key: value.clone() for key, value in foreign_module(name, **changes).state_dict().items()}
    if file.suffix == ".safetensors":
        save_file(tensors, file)
    else:
        torch.save({"params_ema": tensors}, file)
    return file

"""Restores a photograph with a trained network that is adapted to this photograph alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.degradations.kernels import Kernel
from metarestore.degradations.resample import bicubic_upsample
from metarestore.learners.adaptation import adapt
from metarestore.learners.inner_rule import InnerRule
from metarestore.models.build import to_channels
from metarestore.models.network import Network
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.restore import restored_strips
from metarestore.zero_shot.blur import Blur, with_colour_of
from metarestore.zero_shot.options import Clock, ZeroShotResult
from metarestore.zero_shot.photograph import SMALLEST, Photograph


@dataclass(frozen=True)
class NetworkOptions:
    """Options of adapting a trained network to one photograph.

    Attributes:
        kernel: The kernel (K, K) if it is known, with K even if and only if the scale is; otherwise it is estimated.
        adaptation: Optimizer, learning rate, steps, and patches of the adaptation.
        budget: Time limit for learning in seconds, from the start and without the final restoration; None for no limit.
        final_projections: Back-projections after the network.
        keep_colour: Whether to keep the local mean colour of bicubic upscaling.
        seed: Seed of the patches.
    """

    kernel: Kernel | None = None
    adaptation: AdaptationOptimizerSpec = field(default_factory=lambda: AdaptationOptimizerSpec(steps=10, lr=3e-4))
    budget: float | None = None
    final_projections: int = 2
    keep_colour: bool = True
    seed: int = 0


Observer = Callable[[int, Callable[[], Tensor]], None]
"""Called after every step with the number of steps, and a function that returns the restored photograph."""


def internal_pair(lr: Tensor, blur: Blur) -> tuple[Tensor, Tensor]:
    """Returns the support set of one photograph: its degraded version and the photograph itself.

    Args:
        lr: RGB (1, 3, h, w) in [0, 1]; rows and columns beyond a multiple of the scale are ignored.
        blur: The degradation.

    Returns:
        LR (1, 3, h / s, w / s) and HR (1, 3, h, w), in [0, 1].

    Source: Shocher et al., "Zero-Shot" Super-Resolution using Deep Internal Learning (2018), section 3.
    """
    height, width = (length // blur.scale * blur.scale for length in lr.shape[-2:])
    hr = lr[..., :height, :width]
    return blur.degrade(hr).clamp(0, 1), hr


def restore_adapted(
    image: Tensor,
    network: Network,
    options: NetworkOptions | None = None,
    *,
    observe: Observer | None = None,
    clock: Clock = time.monotonic,
) -> ZeroShotResult:
    """Restores a photograph with a network that is first adapted to it.

    The network learns to restore the photograph from its degraded version, as in few-shot adaptation with this pair as
    its only shot.

    Args:
        image: LR (3, h, w) or gray (1, h, w), in [0, 1]; computed on its device.
        network: A trained network of any kind, on the same device; it is not modified.
        options: Options of the restoration.
        observe: Receives the progress.
        clock: Returns seconds, for the time budget.

    Returns:
        The restored photograph (3, s·h, s·w), its kernel and diagnostics. Without a time budget, the result depends on
        the arguments only.

    Raises:
        ValueError: The image has another shape or values that are not finite, the kernel does not fit the scale, or the
            network is a teacher, which restores only given HR.
    """
    options, began, steps = options or NetworkOptions(), clock(), 0
    if network.privileged:
        raise ValueError("a teacher needs the HR image as input; adapt a student")
    photograph = Photograph.of(image, network.scale, options.kernel)
    # The pair's LR must be large enough to learn from, too.
    reason = photograph.reason_not_to_learn(network.scale * SMALLEST)

    def restored(flat: Tensor) -> Tensor:
        return _restored(network, flat, photograph, options)

    def count(step: int, flat: Tensor) -> None:
        nonlocal steps
        steps = step
        if observe is not None:
            observe(step, lambda: restored(flat))

    def done(step: int) -> float:
        by_steps = step / max(options.adaptation.steps, 1)
        return by_steps if options.budget is None else max(by_steps, (clock() - began) / max(options.budget, 1e-9))

    flat = initial_vector(network).to(photograph.lr.device)
    if not reason:
        pair = internal_pair(photograph.lr, photograph.blur)
        support_lr, support_hr = (to_channels(side, network.channels) for side in pair)
        flat = adapt(
            network,
            flat,
            support_lr,
            support_hr,
            options.adaptation,
            rule=InnerRule(loss_name="l1", eps=0.0),
            seed=options.seed,
            observe=count,
            progress=None if options.budget is None else done,
        )
    seconds = clock() - began
    return ZeroShotResult(
        restored(flat),
        photograph.estimate,
        {"network": steps},
        seconds,
        photograph.skipped(reason and f"{reason}; the network is not adapted"),
        flat,
        photograph.diagnostics,
    )


def _restored(network: Network, flat: Tensor, photograph: Photograph, options: NetworkOptions) -> Tensor:
    """Restores a photograph with given parameters, (3, s·h, s·w) in [0, 1]."""
    lr, blur = photograph.lr, photograph.blur
    adapted = deepcopy(network)
    adapted.load_state_dict(Layout.of(network).unflatten(flat), strict=False)  # buffers stay as they are
    part = adapted.restoring(to_channels(lr, network.channels))
    image = torch.cat(list(restored_strips(part, adapted, lr)), dim=-2)[None]
    image = blur.back_project(image, lr, options.final_projections)
    if options.keep_colour:
        image = with_colour_of(image, bicubic_upsample(lr, blur.scale).clamp(0, 1), blur.scale)
    return image[0]

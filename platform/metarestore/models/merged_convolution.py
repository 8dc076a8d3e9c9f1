"""The re-parameterised convolution of SPAN as the single convolution that it is equivalent to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE = 0.05


class MergedConvolution(nn.Conv2d):
    """The convolution that a `Conv3XC` of SPAN computes, trained in place of its four layers.

    In evaluation mode, `Conv3XC` merges its layers without gradients. In training mode, its layers get gradients, but
    the published networks were merged before; of the layers that are then written for them, most weights are 0 and
    would get none.

    Args:
        layer: The `Conv3XC`.

    Source: Wan et al., Swift Parameter-free Attention Network (CVPR Workshops 2024), section 3.1.
    """

    def __init__(self, layer: Any) -> None:
        layer.update_params()
        merged = layer.eval_conv
        super().__init__(merged.in_channels, merged.out_channels, 3, stride=layer.stride, padding=1)
        with torch.no_grad():
            self.load_state_dict(merged.state_dict())
        self._inner = layer.conv[0].out_channels, layer.conv[1].out_channels
        self._slope = _SLOPE if layer.has_relu else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Convolves features (N, C, h, w)."""
        convolved = super().forward(x)
        return convolved if self._slope == 1.0 else F.leaky_relu(convolved, self._slope)

    def full_layout(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Returns the tensors of a `Conv3XC` that computes the same: identities around the merged convolution.

        Args:
            weight: The kernels, (O, I, 3, 3).
            bias: (O,).
        """
        outputs, inputs = weight.shape[:2]
        first, second = self._inner
        middle, shift = weight.new_zeros(second, first, 3, 3), bias.new_zeros(second)
        middle[:outputs, :inputs], shift[:outputs] = weight, bias
        return {
            "sk.weight": weight.new_zeros(outputs, inputs, 1, 1),
            "sk.bias": torch.zeros_like(bias),
            "conv.0.weight": torch.eye(first, inputs).to(weight)[..., None, None],
            "conv.0.bias": bias.new_zeros(first),
            "conv.1.weight": middle,
            "conv.1.bias": shift,
            "conv.2.weight": torch.eye(outputs, second).to(weight)[..., None, None],
            "conv.2.bias": torch.zeros_like(bias),
            "eval_conv.weight": weight,
            "eval_conv.bias": bias,
        }

"""Depthwise convolution with a separate kernel per image, and the memory format that makes it fast.

The derivatives of the convolution are a convolution and a correlation, and those of the correlation are convolutions,
so the two operations define each other's derivatives and are differentiable any number of times. PyTorch's own second
derivative of a grouped convolution loops over the groups, of which there is one per image and channel here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

KERNEL = 3


def dynamic_depthwise(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolves each channel of each image with its own 3×3 kernel, with zero padding.

    Args:
        images: (B, C, h, w).
        kernels: (B, C, 3, 3).

    Returns:
        (B, C, h, w); differentiable any number of times, and usable under `vmap`.

    Source: Xia et al., Knowledge Distillation based Degradation Estimation for Blind Super-Resolution (ICLR 2023),
    section 3.2 (IDR-DDC).
    """
    if torch.compiler.is_exporting():
        return _Convolve.forward(images, kernels)
    convolved: Tensor = _Convolve.apply(images, kernels.to(images.dtype))  # type: ignore[no-untyped-call]
    return convolved


def channels_last(images: Tensor) -> Tensor:
    """Converts images (B, C, h, w) to channels-last memory format on the CPU, where it makes convolutions faster.

    Under `vmap` it does nothing: there, the channels of all tasks are groups of one convolution.
    """
    if torch.compiler.is_exporting():  # the program that runs the file chooses its own
        return images
    converted: Tensor = _ChannelsLast.apply(images)  # type: ignore[no-untyped-call]
    return converted


class _OfTwo(Function):
    """A function of two batches whose derivatives need both."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs)


class _Convolve(_OfTwo):
    """Convolves images (B, C, h, w) with kernels (B, C, 3, 3)."""

    @staticmethod
    def forward(images: Tensor, kernels: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        if _is_channels_last(images):
            # Folding the batch into groups would copy the images; a loop does not.
            each = [
                F.conv2d(image, kernel[:, None], padding=1, groups=channels)
                for image, kernel in zip(_each(images), kernels, strict=True)
            ]
            return torch.cat(each) if batch > 1 else each[0]
        folded = images.reshape(1, batch * channels, height, width)
        weight = kernels.reshape(batch * channels, 1, KERNEL, KERNEL)
        return F.conv2d(folded, weight, padding=1, groups=batch * channels).view(images.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        images, kernels = ctx.saved_tensors
        of_images, of_kernels = ctx.needs_input_grad
        return (
            _Convolve.apply(grad_outputs[0], kernels.flip(-1, -2)) if of_images else None,  # type: ignore[no-untyped-call]
            _Correlate.apply(images, grad_outputs[0]) if of_kernels else None,  # type: ignore[no-untyped-call]
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], *given: Tensor) -> tuple[Tensor, int]:
        return _of_all_tasks(_Convolve.apply, info.batch_size, in_dims, given)


class _Correlate(_OfTwo):
    """Correlates images (B, C, h, w) with others of the same shape, at shifts of −1..1 pixels: (B, C, 3, 3)."""

    @staticmethod
    def forward(images: Tensor, others: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        if _is_channels_last(images):
            shape, others = (channels, 1, KERNEL, KERNEL), others.contiguous(memory_format=torch.channels_last)
            pairs = zip(_each(images), _each(others), strict=True)
            return torch.stack([_weight_gradient(x, shape, y)[:, 0] for x, y in pairs])
        folded = (1, batch * channels, height, width)
        shape = (batch * channels, 1, KERNEL, KERNEL)
        gradient = _weight_gradient(images.reshape(folded), shape, others.reshape(folded))
        return gradient.view(batch, channels, KERNEL, KERNEL)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        images, others = ctx.saved_tensors
        of_images, of_others = ctx.needs_input_grad
        return (
            _Convolve.apply(others, grad_outputs[0].flip(-1, -2)) if of_images else None,  # type: ignore[no-untyped-call]
            _Convolve.apply(images, grad_outputs[0]) if of_others else None,  # type: ignore[no-untyped-call]
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], *given: Tensor) -> tuple[Tensor, int]:
        return _of_all_tasks(_Correlate.apply, info.batch_size, in_dims, given)


class _ChannelsLast(Function):
    """Converts the memory format of images (B, C, h, w); the identity under `vmap`."""

    @staticmethod
    def forward(images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], images: Tensor) -> tuple[Tensor, int]:
        return images, in_dims[0]


def _each(images: Tensor) -> list[Tensor]:
    """Returns each image with its batch dimension; image[None] would have the strides of neither memory format."""
    return [images.narrow(0, index, 1) for index in range(len(images))]


def _weight_gradient(images: Tensor, shape: tuple[int, ...], grad_output: Tensor) -> Tensor:
    groups = shape[0]
    gradient: Tensor = conv2d_weight(images, shape, grad_output, padding=1, groups=groups)  # type: ignore[no-untyped-call]
    return gradient


def _is_channels_last(images: Tensor) -> bool:
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return last and images.device.type == "cpu"


def _of_all_tasks(
    function: Callable[..., Tensor], tasks: int, in_dims: tuple[int | None, ...], given: tuple[Tensor, ...]
) -> tuple[Tensor, int]:
    """Applies a function of batches (B, ...) to tensors of T tasks, (T, B, ...), as one batch (T·B, ...)."""
    stacked = [
        tensor.expand(tasks, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(given, in_dims, strict=True)
    ]
    result = function(*(tensor.flatten(0, 1) for tensor in stacked))
    return result.view(tasks, -1, *result.shape[1:]), 0

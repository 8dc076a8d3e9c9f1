"""The interface of all networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from metarestore.models.low_frequencies import REACH, keep_low_frequencies

Channels = Literal["y", "rgb"]
Restore = Callable[[Tensor], Tensor]
"""Restores LR images (N, C, h, w) to (N, C, s·h, s·w), not clamped."""


class Network(nn.Module, ABC):
    """A network that restores LR images (N, C, h, w) in [0, 1] to (N, C, s·h, s·w), not clamped.

    Attributes:
        scale: Upscaling factor s.
        channels: Whether images are luma (C = 1) or RGB (C = 3).
        privileged: Whether the network (a teacher) takes the HR images as a second input.
        tile: Side, in LR pixels, of the overlapping tiles in which a network without a `receptive_field` restores.
        foreign: Name of the architecture, if its code is that of another project.
        least: Smallest side, in pixels, of an image that the exported network restores.
        interchangeable: Keys of the specification in which a network used for initialisation may differ.
        keeps_low_frequencies: Whether restored images have the low frequencies of LR, see `keep_low_frequencies`.
    """

    scale: int
    channels: Channels
    privileged: bool = False
    tile: int = 64
    foreign: str | None = None
    least: int = 4
    interchangeable: ClassVar[tuple[str, ...]] = ()
    keeps_low_frequencies: bool = False

    @property
    @abstractmethod
    def receptive_field(self) -> int | None:
        """Receptive-field radius in LR pixels, given what `for_image` computes once per image.

        None: an output pixel depends on the whole image, regardless of its size.
        """

    @property
    def receptive_sides(self) -> tuple[int, int] | None:
        """Receptive field before and after a pixel, in LR pixels; both are the radius unless a layer is asymmetric."""
        radius = self.receptive_field
        return None if radius is None else (radius, radius)

    @property
    def margin(self) -> int | None:
        """Margin in LR pixels with which parts of an image are restored as in the whole; None if there is no limit."""
        radius = self.receptive_field
        return None if radius is None else radius + (REACH if self.keeps_low_frequencies else 0)

    @property
    def last_layer(self) -> str:
        """The path of the module that is the last layer: the last one by definition, as architectures are written."""
        return last_defined(self)

    def keep_low_frequencies(self) -> None:
        """Makes the network keep the low frequencies of LR, whenever it is called."""
        self.keeps_low_frequencies = True
        self.register_forward_hook(_kept)

    def restoring(self, lr: Tensor, crop: int | None = None) -> Restore:
        """Returns `for_image`, with the low frequencies of LR if the network keeps them."""
        return self.kept(self.for_image(lr, crop))

    def kept(self, part: Restore) -> Restore:
        """Makes a part of the network keep the low frequencies of its input, if the network does."""
        if part is self or not self.keeps_low_frequencies:
            return part
        return lambda lr: keep_low_frequencies(part(lr), lr, self.scale)

    @property
    def feature_layers(self) -> Mapping[str, str]:
        """The named features, in the order of computation: for each, the path of the layer that outputs it."""
        return {}

    def for_image(self, lr: Tensor, crop: int | None = None) -> Restore:
        """Returns a function that restores parts of an image; values that depend on the whole image are computed once.

        Args:
            lr: The whole image LR (1, C, h, w).
            crop: Size of the central crop that those values are computed from, a faster approximation.
        """
        del lr, crop
        return self

    def for_student(self) -> dict[str, Tensor]:
        """Returns the initial parameters of a student that this network teaches, by the student's names."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def simplified(self) -> Network:
        """Returns a network that computes the same with fewer layers, to be exported; by default this one."""
        return self

    def stored(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors that a file of this network contains, given its parameters by name."""
        return dict(params)

    def started_from(self, other: Network) -> dict[str, Tensor]:
        """Returns initial parameters by name from a trained network, which may differ in `interchangeable` keys.

        Raises:
            ValueError: The other network cannot initialise this one.
        """
        return {name: parameter.detach() for name, parameter in other.named_parameters()}


def last_defined(module: nn.Module) -> str:
    """Returns the path of the last submodule, by definition, with a weight of at least two dimensions."""
    weights: list[str] = [
        name
        for name, one in module.named_modules()
        if any(parameter.dim() > 1 for parameter in one.parameters(recurse=False))
    ]
    return weights[-1]


def _kept(network: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Corrects the output of a network that keeps low frequencies."""
    scale = output.shape[-1] // inputs[0].shape[-1]
    return keep_low_frequencies(output.to(inputs[0].dtype), inputs[0], scale)


@contextmanager
def collected_features(network: Network, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Collects named features of the network during calls; each call replaces the features of the previous one.

    It works under `vmap` and `functional_call`; the features belong to the call and must be returned from it.

    Args:
        network: The network.
        names: Some of its `feature_layers`.

    Raises:
        ValueError: The network has no such feature.
    """
    layers, features = network.feature_layers, dict[str, Tensor]()

    def collect(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: features.update({name: output})

    with ExitStack() as hooks:
        for name in names:
            if name not in layers:
                raise ValueError(f"the network has no feature '{name}'; available: {', '.join(layers) or 'none'}")
            handle = network.get_submodule(layers[name]).register_forward_hook(collect(name))
            hooks.callback(handle.remove)
        yield features


class _Stop(Exception):  # noqa: N818
    """Ends a forward pass after the last requested feature."""


def features_of(network: Network, names: Collection[str], *images: Tensor) -> dict[str, Tensor]:
    """Computes named features of images, and stops after the last requested layer.

    Args:
        network: The network.
        names: A subset of its `feature_layers`; if it is empty, nothing is computed.
        images: LR images, and for a teacher HR images.

    Raises:
        ValueError: The network has no such feature.
    """
    if not names:
        return {}

    def stop(module: nn.Module, inputs: object, output: Tensor) -> None:
        raise _Stop

    with collected_features(network, names) as features, suppress(_Stop):
        *_, last = (name for name in network.feature_layers if name in names)
        handle = network.get_submodule(network.feature_layers[last]).register_forward_hook(stop)
        try:
            network(*images)
        finally:
            handle.remove()
    return features


_Built = TypeVar("_Built", bound=nn.Module)


def seeded(build: Callable[..., _Built], seed: int, **options: object) -> _Built:
    """Builds a network whose initial weights depend only on `seed`; the global random state is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**options)

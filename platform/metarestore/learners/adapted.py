"""What adapts: all parameters, some of them, or low-rank changes of the weights (LoRA)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from metarestore.config.adaptation import AdaptationOptimizerSpec, Adapts, LoRASpec
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.learners.inner_rule import InnerRule
from metarestore.models.network import Network, last_defined
from metarestore.models.parameters import Layout
from metarestore.seeds import generator

KEY = "adaptation.adapts"


class Adapted(ABC):
    """The values that an adaptation optimises, and the network's parameters that follow from them.

    Attributes:
        rule: The settings of a step, as they apply to the optimised values.
    """

    rule: InnerRule

    @property
    @abstractmethod
    def initial(self) -> Tensor:
        """The initial values, (Q,)."""

    @abstractmethod
    def parameters(self, values: Tensor) -> Tensor:
        """Returns the network's parameters (P,) for given values (Q,); differentiable."""


@dataclass(frozen=True)
class Whole(Adapted):
    """The parameters themselves; some may be fixed by the mask of the rule."""

    flat: Tensor
    rule: InnerRule

    @property
    def initial(self) -> Tensor:
        """The initial parameters."""
        return self.flat.detach().clone()

    def parameters(self, values: Tensor) -> Tensor:
        """Returns the values."""
        return values


@dataclass(frozen=True)
class LowRank(Adapted):
    """Low-rank changes: each weight W of outputs × inputs becomes W + B·A, where B is 0 at first.

    Biases and other vectors stay fixed. The change is merged into the parameters, so the adapted network has the
    architecture of the original.

    Attributes:
        flat: The initial parameters, (P,).
        rule: The settings of a step.
        mask: 1 for parameters that may change, (P,); None for all.
        weights: Of each weight: the position of its first value, the number of its outputs and that of its inputs.
        rank: Largest rank of a change.
        seed: Seed of A, which is normally distributed with the variance 1 / inputs.

    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (ICLR 2022), section 4.1, with α = r.
    """

    flat: Tensor
    rule: InnerRule
    mask: Tensor | None
    weights: tuple[tuple[int, int, int], ...]
    rank: int
    seed: int

    @property
    def initial(self) -> Tensor:
        """The factors B and A of each weight, one after the other."""
        rng, values = generator(self.seed, "lora"), []
        for _, outputs, inputs in self.weights:
            rank = min(self.rank, outputs, inputs)
            a = torch.from_numpy(rng.standard_normal(rank * inputs)) / math.sqrt(inputs)
            values += [torch.zeros(outputs * rank), a.float()]
        return torch.cat(values).to(self.flat)

    def parameters(self, values: Tensor) -> Tensor:
        """Adds the changes to the initial parameters."""
        pieces, end, used = [], 0, 0
        for start, outputs, inputs in self.weights:
            rank = min(self.rank, outputs, inputs)
            b = values[used : used + outputs * rank].view(outputs, rank)
            a = values[used + outputs * rank : used + (outputs + inputs) * rank].view(rank, inputs)
            pieces += [self.flat.new_zeros(start - end), (b @ a).reshape(-1)]
            end, used = start + outputs * inputs, used + (outputs + inputs) * rank
        change = torch.cat([*pieces, self.flat.new_zeros(len(self.flat) - end)])
        return self.flat.detach() + (change if self.mask is None else self.mask * change)


def adapted(model: nn.Module, flat: Tensor, options: AdaptationOptimizerSpec, rule: InnerRule, seed: int) -> Adapted:
    """Returns what an adaptation optimises.

    Args:
        model: The network.
        flat: Its initial parameters, (P,).
        options: Options of the adaptation.
        rule: The settings of a step; parameters that its mask fixes stay fixed.
        seed: Seed of initial values.

    Raises:
        UserError: The network has no such parameters.
    """
    layout = Layout.of(model)
    if isinstance(options.adapts, LoRASpec):
        return LowRank(flat, replace(rule, mask=None), rule.mask, _matrices(layout), options.adapts.lora, seed)
    names = adapted_names(model, options.adapts)
    if len(names) == len(layout.entries):
        return Whole(flat, rule)
    ones = {name: torch.full(shape, float(name in names)) for name, shape in layout.entries}
    mask = layout.flatten(ones).to(flat)
    return Whole(flat, replace(rule, mask=mask if rule.mask is None else mask * rule.mask))


def adapted_names(model: nn.Module, adapts: Adapts, key: str = KEY) -> frozenset[str]:
    """Returns the names of the parameters that change.

    Args:
        model: The network.
        adapts: As in the configuration.
        key: The configuration key, for error messages.

    Raises:
        UserError: The network has no normalisation layers, or a pattern matches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    if adapts == "all":
        return frozenset(names)
    if adapts == "tail":
        last = f"{model.last_layer}." if isinstance(model, Network) else f"{last_defined(model)}."
        return frozenset(name for name in names if name.startswith(last))
    if adapts == "norms":
        found = _of_modules(model, [name for name, module in model.named_modules() if _normalises(module)])
        if not found:
            raise UserError(f"{key}: norms, but the network has no normalisation layers; write tail or {{lora: 4}}")
        return frozenset(found)
    if isinstance(adapts, LoRASpec):
        return frozenset(name for name, parameter in model.named_parameters() if parameter.dim() > 1)
    return matching_parameters(adapts, names, key)


def matching_parameters(patterns: Sequence[str], names: Sequence[str], key: str) -> frozenset[str]:
    """Returns the names of the parameters that match any of the patterns; `key` is their configuration key.

    Raises:
        UserError: A pattern matches no parameter.
    """
    matching: set[str] = set()
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            known = [*dict.fromkeys(f"{part}.*" for part in _modules(names)), *names]
            hint = did_you_mean(pattern, known) or f"; patterns that match: {', '.join(known[:4])}"
            raise UserError(f"{key}: '{pattern}' matches no parameter of the network{hint}")
        matching.update(matches)
    return frozenset(matching)


def _modules(names: Sequence[str]) -> list[str]:
    """Returns the modules that contain the parameters, outer modules first."""
    modules = {name.rsplit(".", count)[0] for name in names for count in range(1, name.count(".") + 1)}
    return sorted(modules, key=lambda module: (module.count("."), module))


def _matrices(layout: Layout) -> tuple[tuple[int, int, int], ...]:
    """Returns position, outputs and inputs of each weight with at least two dimensions."""
    found, start = [], 0
    for _, shape in layout.entries:
        size = math.prod(shape)
        if len(shape) > 1:
            found.append((start, shape[0], size // shape[0]))
        start += size
    return tuple(found)


def _normalises(module: nn.Module) -> bool:
    """Returns whether a module is a normalisation layer of PyTorch or, by its name, one of the network's own."""
    return "Norm" in type(module).__name__


def _of_modules(model: nn.Module, modules: Sequence[str]) -> list[str]:
    """Returns the parameters that belong to modules directly."""
    return [f"{name}.{own}" for name in modules for own, _ in model.get_submodule(name).named_parameters(recurse=False)]

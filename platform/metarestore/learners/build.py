"""Builds the learner of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from metarestore.config.learner import ANILSpec, BaseLearnerSpec, FinetuneSpec, PretrainSpec
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.learners.embedding import EmbeddingLearner, require_encoder
from metarestore.learners.feature_distillation import ImitationLearner, StudentLearner
from metarestore.learners.learner import Learner, MAMLLearner, Precision, PretrainLearner


def pretrain(spec: PretrainSpec | FinetuneSpec, model: nn.Module, precision: Precision) -> Learner:
    """Builds the learner that takes support and query together, with what its options add."""
    if spec.contrast is not None:
        return EmbeddingLearner(spec, require_encoder(model), precision)
    if spec.distillation is not None:
        return StudentLearner.build(spec, model, precision)
    return (PretrainLearner if spec.imitation is None else ImitationLearner)(spec, model, precision)


def anil(spec: ANILSpec, model: nn.Module, precision: Precision) -> Learner:
    """Builds the learner of which named parts adapt.

    Raises:
        UserError: A pattern of `adapts` matches no parameter of the network.
    """
    adapts = matching_parameters(spec.adapts, [name for name, _ in model.named_parameters()])
    return MAMLLearner(spec, model, precision, adapts)


def build_learner(spec: BaseLearnerSpec, model: nn.Module, precision: Precision = "float32") -> Learner:
    """Builds the learner of an experiment.

    Raises:
        UserError: A pattern of `learner.adapts` matches no parameter of the network, or `learner.teacher` is no teacher
            of the network, or `learner.distillation` does not fit it, or the code of the learner cannot be imported.
    """
    learner: Learner = spec.implemented()(spec, model, precision)
    return learner


def matching_parameters(patterns: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    """Returns the names of the parameters that match any of the patterns.

    Raises:
        UserError: A pattern matches no parameter.
    """
    matching: set[str] = set()
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            known = [*dict.fromkeys(f"{part}.*" for part in _parts(names)), *names]
            hint = did_you_mean(pattern, known) or f"; patterns that match: {', '.join(known[:4])}"
            raise UserError(f"learner.adapts: '{pattern}' matches no parameter of the network{hint}")
        matching.update(matches)
    return frozenset(matching)


def _parts(names: Sequence[str]) -> list[str]:
    """Returns the modules that contain the parameters, outer modules first."""
    modules = {name.rsplit(".", count)[0] for name in names for count in range(1, name.count(".") + 1)}
    return sorted(modules, key=lambda module: (module.count("."), module))

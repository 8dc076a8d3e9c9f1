"""Builds the learner of an experiment."""

from __future__ import annotations

from torch import nn

from metarestore.config.learner import ANILSpec, BaseLearnerSpec, FinetuneSpec, PretrainSpec
from metarestore.learners.adapted import adapted_names
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
        UserError: A pattern of `adapts` matches no parameter of the network, or it has no normalisation layers.
    """
    return MAMLLearner(spec, model, precision, adapted_names(model, spec.adapts, "learner.adapts"))


def build_learner(spec: BaseLearnerSpec, model: nn.Module, precision: Precision = "float32") -> Learner:
    """Builds the learner of an experiment.

    Raises:
        UserError: A pattern of `learner.adapts` matches no parameter of the network, or `learner.teacher` is no teacher
            of the network, or `learner.distillation` does not fit it, or the code of the learner cannot be imported.
    """
    learner: Learner = spec.implemented()(spec, model, precision)
    return learner

"""A study: one experiment with all its references resolved, as plain data that does not need PyTorch."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metarestore.config.experiment import Experiment
from metarestore.tasks.images import ImageSource
from metarestore.tasks.spec import DistributionSpec
from metarestore.tasks.task import Split


@dataclass(frozen=True)
class Study:
    """One experiment with all its references resolved: plain data that is sent to workers.

    Attributes:
        experiment: The resolved configuration.
        auxiliary: Specifications of the auxiliary distributions, by name, in the order of their gradient weights.
        target: Specification of the target distribution.
        images: Source of the photographs of each split.
        root: The project's folder; records of the study contain paths relative to it.
    """

    experiment: Experiment
    auxiliary: Mapping[str, DistributionSpec]
    target: DistributionSpec
    images: Mapping[Split, ImageSource]
    root: Path = Path()

    @cached_property
    def key(self) -> str:
        """A hash of the study's content: equal studies share an opened workspace."""
        return hashlib.blake2b(pickle.dumps(self), digest_size=8).hexdigest()

    @property
    def scale(self) -> int:
        """Upscaling factor of the target, and thus of the whole study."""
        return self.target.scale

"""What a task file may say: one file, one task distribution, named by the file's name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metarestore.config.base import Strict
from metarestore.degradations import Pipeline

Scale = Literal[2, 3, 4]


class SyntheticSpec(Strict):
    """A degradation type: a pipeline whose parameters are drawn once per task."""

    kind: Literal["synthetic"]
    scale: Scale
    """Upscaling factor that the distribution is for."""
    pipeline: Pipeline
    """Degradations, applied in order to HR images."""

    @model_validator(mode="after")
    def _fits_scale(self) -> Self:
        self.pipeline.check_scale(self.scale)
        return self


class PairsSpec(Strict):
    """Aligned real pairs: two folders with the same file names."""

    kind: Literal["pairs"]
    scale: Scale
    """HR side over LR side."""
    lr: Path
    """Folder of LR images; a relative path starts at the project's folder."""
    hr: Path
    """Folder of HR images."""
    support_pool: int = Field(10, ge=1)
    """The first so many pairs, by name, may be learned from; the others are the test set, whatever the shots."""


TaskSpec = Annotated[SyntheticSpec | PairsSpec, Field(discriminator="kind")]


def content_hash(spec: SyntheticSpec | PairsSpec) -> str:
    """Returns 16 hex digits that change with what a distribution draws, not with comments or the file's layout."""
    canonical = json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()

"""What a task file may say: one file, one task distribution, named by the file's name."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from metarestore.config.base import Strict
from metarestore.degradations import Pipeline
from metarestore.degradations.base import Drawn, misplaced
from metarestore.tasks.photographs import SUFFIXES

Scale = Literal[2, 3, 4]


def _has_one_place(template: str) -> str:
    problem = ""
    if template.count("{name}") != 1:
        problem = "must contain {name} once, which stands for the pair's name"
    elif Path(template).name != template or Path(template).suffix.lower() in SUFFIXES:
        problem = "is the name of a file without its folder and suffix, e.g. '{name}x4'"
    if problem:
        raise PydanticCustomError("template", "{problem}, got '{given}'", {"problem": problem, "given": template})
    return template


def _is_none(value: object) -> bool:
    return value is None


def _is_false(value: object) -> bool:
    return value is False


NameTemplate = Annotated[str, AfterValidator(_has_one_place)]


class SyntheticSpec(Strict):
    """A degradation type: a pipeline whose parameters are drawn once per task."""

    kind: Literal["synthetic"]
    scale: Scale
    """Upscaling factor that the distribution is for, unless an experiment or a command asks for another."""
    pipeline: Pipeline
    """Degradations, applied in order to HR images."""
    fitted_to: dict[str, str] = Field({}, exclude=True)
    """Pairs that `tasks fit` estimated the pipeline from, with hashes of their pixels: a study that tests on them warns
    of it. What is drawn does not depend on them."""

    @model_validator(mode="after")
    def _fits_scale(self) -> Self:
        self.pipeline.check_scale(self.scale)
        return self

    def degradation(self, content: str, seed: int, index: int) -> Drawn:
        """Draws the degradation of task `index`; `content` is the `content_hash` of this specification."""
        return self.pipeline.draw((content, seed, "degradation", index), self.scale)

    def at_scale(self, scale: Scale) -> SyntheticSpec:
        """Returns the same degradation type for another scale.

        Raises:
            PydanticCustomError: A parameter is written per scale, and there is nothing for this one; it is a
                `ValueError`, and `at` says where.
        """
        self.pipeline.check_scale(scale)
        return self.model_copy(update={"scale": scale})


class ProtocolSpec(SyntheticSpec):
    """An evaluation protocol: a pipeline whose every case is measured, instead of being drawn by chance.

    Parameters are numbers or `{choice: [...]}`, structures are `one_of`, `group` and `repeat`; the cases are all
    combinations. Task number i is case number i, over and over.
    """

    kind: Literal["protocol"]  # type: ignore[assignment]
    scales: tuple[Scale, ...] = (2, 3, 4)
    """Scales that the protocol is defined for."""

    @model_validator(mode="after")
    def _can_be_listed(self) -> Self:
        self._check_defined(self.scale)
        self.pipeline.cases(self.scale)
        return self

    def at_scale(self, scale: Scale) -> SyntheticSpec:
        """Returns the same protocol for another scale.

        Raises:
            PydanticCustomError: It is not defined for this scale; it is a `ValueError`, and `at` says where.
        """
        self._check_defined(scale)
        return super().at_scale(scale)

    def _check_defined(self, scale: Scale) -> None:
        if scale not in self.scales:
            defined = ", ".join(map(str, self.scales))
            raise misplaced(f"the protocol is defined for scale {defined} alone, not for {scale}", "scales")

    @cached_property
    def cases(self) -> tuple[Drawn, ...]:
        """The degradations to measure, in the order of the file."""
        return self.pipeline.cases(self.scale)

    def degradation(self, content: str, seed: int, index: int) -> Drawn:
        """Returns case `index`; the seed does not matter."""
        return self.cases[index % len(self.cases)]


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
    lr_name: NameTemplate | None = Field(None, exclude_if=_is_none)
    """Name of a pair's LR file without suffix, e.g. "{name}x4"; `{name}` is the pair's name. Files of other names are
    passed over. If neither name is given, equal names are pairs, or those of DIV2K, RealSR and DRealSR."""
    hr_name: NameTemplate | None = Field(None, exclude_if=_is_none)
    """Name of a pair's HR file without suffix, e.g. "{name}_HR"."""
    crop: bool = Field(False, exclude_if=_is_false)
    """Cut HR at the bottom and right to a multiple of the scale, and LR to it."""
    check_content: bool = Field(True, exclude=True)
    """Refuse pairs whose LR does not show what HR shows: exchanged, shifted, mirrored, rotated or rescaled ones."""


TaskSpec = Annotated[SyntheticSpec | ProtocolSpec | PairsSpec, Field(discriminator="kind")]


def content_hash(spec: SyntheticSpec | PairsSpec) -> str:
    """Returns 16 hex digits that change with what a distribution draws, not with comments or the file's layout."""
    written: dict[str, Any] = spec.model_dump(mode="json", exclude={"pipeline", "scales"})
    if isinstance(spec, SyntheticSpec):
        written["pipeline"] = _at_scale(json.loads(json.dumps(spec.pipeline.content())), spec.scale)
    canonical = json.dumps(written, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


def _at_scale(written: Any, scale: int) -> Any:
    """Puts the ranges of one scale in the place of those per scale: what other scales draw does not matter."""
    if isinstance(written, list):
        return [_at_scale(item, scale) for item in written]
    if isinstance(written, dict):
        chosen = written["per_scale"][str(scale)] if "per_scale" in written else written
        return chosen if chosen is not written else {key: _at_scale(value, scale) for key, value in written.items()}
    return written

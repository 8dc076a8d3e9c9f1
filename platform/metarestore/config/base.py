"""The base class of all models against which YAML files are validated."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """An immutable model that rejects unknown keys."""

    # Built at first use: what a registered part may be depends on the packages that are installed.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True, defer_build=True
    )

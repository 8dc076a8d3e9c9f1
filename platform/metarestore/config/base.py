"""The base of every model that a YAML file is checked against."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Refuses unknown keys and is immutable once built."""

    # Built at first use: what a registered part may be depends on the packages that are installed.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True, defer_build=True
    )

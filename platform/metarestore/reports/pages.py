"""The templates of HTML pages."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates() -> Environment:
    """Returns the package's templates; values are escaped, and undefined variables raise an error."""
    return Environment(
        loader=PackageLoader("metarestore", "reports/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

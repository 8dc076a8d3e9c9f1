"""HTML pages: the templates that they are made of."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates() -> Environment:
    """Returns the package's templates; what a page is given is escaped, and what it is not given is an error."""
    return Environment(
        loader=PackageLoader("metarestore", "reports/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

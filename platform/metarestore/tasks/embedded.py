"""The photographs included in scikit-image: data for demonstrations and tests without downloads."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from metarestore.errors import UserError

EMBEDDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": (
            "brick",
            "cell",
            "grass",
            "gravel",
            "hubble_deep_field",
            "ihc",
            "motorcycle_left",
            "page",
            "retina",
            "text",
        ),
        "validation": ("coins", "moon"),
        "test": ("astronaut", "camera", "chelsea", "coffee", "rocket"),
    }
)
"""Names of the photographs of each split, sorted; no photograph is in two splits."""


def embedded_path(name: str) -> Path:
    """Returns the file of an embedded photograph; nothing is ever downloaded.

    Args:
        name: One of the names in `EMBEDDED`, e.g. "camera".

    Raises:
        UserError: The installed scikit-image does not hold this photograph.
    """
    # The package is located without importing it: only its files are needed, and workers start faster.
    package = importlib.util.find_spec("skimage")
    roots = package.submodule_search_locations if package is not None else None
    for root in roots or ():
        for suffix in (".png", ".jpg"):
            path = Path(root, "data", name + suffix)
            if path.is_file():
                return path
    raise UserError(f"embedded photograph '{name}' is not in the installed scikit-image; reinstall scikit-image>=0.25")

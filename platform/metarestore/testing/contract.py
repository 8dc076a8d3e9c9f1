"""What the contract tests have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest


class Contract:
    """Tests that run on every example of a subclass; name the subclass `Test...`, so that pytest finds it."""

    examples: ClassVar[Mapping[str, Any]]
    """What is tested, by the names that pytest shows."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Called by pytest for each test: runs it on each of the `examples`."""
        if "example" in metafunc.fixturenames:
            metafunc.parametrize("example", list(self.examples.values()), ids=list(self.examples))

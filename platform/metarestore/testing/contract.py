"""The base class of the contract tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest


class Contract:
    """Runs its tests on every example of a subclass, whose name must start with `Test` so that pytest collects it."""

    examples: ClassVar[Mapping[str, Any]]
    """The parts to test, by the names that pytest displays."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrises a test by the `examples`; called by pytest."""
        if "example" in metafunc.fixturenames:
            metafunc.parametrize("example", list(self.examples.values()), ids=list(self.examples))

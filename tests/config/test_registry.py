"""Registries find the parts of installed packages, and name a package whose part cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest

from metarestore.config import registry
from metarestore.config.base import Strict
from metarestore.config.registry import Registered, Registry
from metarestore.errors import UserError


class Fruit(Strict):
    """What the parts of these tests extend."""


class Apple(Fruit):
    kind: Literal["apple"]


MODULE = """
from typing import Literal
from {module} import Fruit

class Plum(Fruit):
    kind: Literal["plum"]

class Pear(Fruit):
    kind: Literal["pear"]

class OtherApple(Fruit):
    kind: Literal["apple"]
"""

Install = Callable[..., "Registry[Fruit]"]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes packages with entry points as an installer does, and returns a registry that reads them."""
    base = ModuleType("orchard_base")
    base.Fruit = Fruit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "orchard_base", base)
    monkeypatch.syspath_prepend(str(tmp_path))

    def written(entries: dict[str, str], *, distribution: str = "orchard") -> Registry[Fruit]:
        (tmp_path / f"{distribution}_parts.py").write_text(MODULE.format(module="orchard_base"))
        folder = tmp_path / f"{distribution}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[test.fruits]", *lines, ""]))
        registry._entry_points.cache_clear()
        return Registry("test.fruits", Fruit, [Apple])

    yield written
    registry._entry_points.cache_clear()


def test_own_parts_come_first_then_installed_ones_by_name(install: Install) -> None:
    fruits = install({"plum": "orchard_parts:Plum", "pear": "orchard_parts:Pear"})
    assert list(fruits) == ["apple", "pear", "plum"]
    assert fruits["apple"] is Apple
    assert fruits["plum"].__name__ == "Plum"


def test_a_field_accepts_installed_parts(install: Install) -> None:
    fruits = install({"plum": "orchard_parts:Plum"})

    class Basket(Strict):
        first: Annotated[Fruit, Registered(fruits)]

    assert type(Basket.model_validate({"first": {"kind": "plum"}}).first).__name__ == "Plum"
    assert set(Basket.model_json_schema()["properties"]["first"]["discriminator"]["mapping"]) == {"apple", "plum"}


def test_nothing_is_loaded_before_it_is_asked_for(install: Install) -> None:
    fruits = install({"plum": "orchard_parts:missing"})

    class Basket(Strict):
        first: Annotated[Fruit, Registered(fruits)]

    with pytest.raises(UserError, match="cannot be loaded"):
        Basket.model_validate({"first": {"kind": "apple"}})


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (
            {"plum": "no_such_module:Plum"},
            r"cannot be loaded \(ModuleNotFoundError: No module named 'no_such_m",
        ),
        ({"plum": "orchard_parts:Cherry"}, r"cannot be loaded \(AttributeError: .*Cherry.*\); repair the package"),
        ({"apple": "orchard_parts:OtherApple"}, "metarestore has kind: apple already; choose another name"),
        ({"plum": "orchard_parts:Literal"}, r"must be a class that extends .*\.Fruit"),
        ({"plum": "orchard_parts:Pear"}, r'its class must have the field kind: Literal\["plum"\]'),
    ],
)
def test_a_part_that_cannot_be_used_names_its_package(install: Install, entries: dict[str, str], said: str) -> None:
    fruits = install(entries)
    for _ in range(2):  # a second look finds the same
        with pytest.raises(UserError, match=said) as caught:
            list(fruits)
        [problem] = caught.value.problems
        assert problem.startswith("orchard 1.0: entry point ")
        assert problem.endswith("or remove it: pip uninstall orchard")
        assert "\n" not in problem


def test_two_packages_with_one_name_are_both_named(install: Install) -> None:
    install({"plum": "orchard_parts:Plum"})
    fruits = install({"plum": "garden_parts:Plum"}, distribution="garden")
    with pytest.raises(UserError, match=r"(garden|orchard) 1.0: .*: (garden|orchard) 1.0 has kind: plum already"):
        list(fruits)


def test_a_name_of_the_own_package_is_given_once() -> None:
    with pytest.raises(ValueError, match="'apple' is registered twice"):
        Registry("test.fruits", Fruit, [Apple, Apple])


def test_a_registry_is_not_read_while_it_is_loaded(install: Install, tmp_path: Path) -> None:
    fruits = install({"plum": "eager:Plum"})
    sys.modules["orchard_base"].fruits = fruits  # type: ignore[attr-defined]
    (tmp_path / "eager.py").write_text("from orchard_base import fruits\nlist(fruits)\n")
    with pytest.raises(UserError, match="cannot be read while its entry points are imported"):
        list(fruits)

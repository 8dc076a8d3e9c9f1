"""Registries of the parts that YAML files may use, from this package and from other installed packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from pkgutil import resolve_name
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from metarestore.config.base import Strict
from metarestore.errors import UserError

Part = TypeVar("Part", bound=BaseModel)


class Implemented(Strict):
    """The specification of a part whose code is in another module, so that files can be checked without PyTorch."""

    implementation: ClassVar[str]
    """The implementation of the part, as `package.module:name`; it is imported when the part is built."""

    @classmethod
    def implemented(cls) -> Callable[..., Any]:
        """Imports the implementation of the part.

        Raises:
            UserError: It cannot be imported.
        """
        try:
            implementation: Callable[..., Any] = resolve_name(cls.implementation)
        except (ImportError, AttributeError, ValueError) as error:
            problem = f"cannot be imported ({_reason(error)}); repair the package"
            raise UserError(f"{cls.__module__}.{cls.__name__}: {cls.implementation} {problem}") from error
        return implementation


class Registry(Mapping[str, type[Part]], Generic[Part]):
    """The specifications of one type of part, by their names in YAML: a read-only mapping.

    The parts of this package come first, followed by those of the entry points of `group`, sorted by name. A process
    loads the entry points when it first reads the mapping, so workers have the same parts as the driver.

    Args:
        group: Group of entry points, e.g. `metarestore.networks`.
        base: Base class of every part.
        own: The parts of this package.
        key: The YAML key that selects the part.
    """

    def __init__(self, group: str, base: type[BaseModel], own: Iterable[Any] = (), *, key: str = "kind") -> None:
        self.group, self.key = group, key
        self.base: type[Any] = base
        self._own: dict[str, type[Part]] = {}
        self._all: dict[str, type[Part]] | None = None
        self._loading = False
        for part in own:
            self.add(part)

    def add(self, part: type[Part]) -> None:
        """Adds a part of this package.

        Raises:
            ValueError: Another part has the same name.
        """
        name = self._name(part)
        if name in self._own:
            raise ValueError(f"{self.key} {name!r} is registered twice")
        self._own[name] = part
        self._all = None

    def __getitem__(self, name: str) -> type[Part]:
        return self._parts()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts())

    def __len__(self) -> int:
        return len(self._parts())

    def _name(self, part: type[Part]) -> str:
        return str(get_args(part.model_fields[self.key].annotation)[0])

    def _parts(self) -> dict[str, type[Part]]:
        if self._all is None:
            if self._loading:
                raise RuntimeError(f"{self.group} cannot be read while its entry points are imported")
            self._loading = True
            try:
                self._all = self._own | self._installed()
            finally:
                self._loading = False
        return self._all

    def _installed(self) -> dict[str, type[Part]]:
        parts: dict[str, type[Part]] = {}
        owners = dict.fromkeys(self._own, "metarestore")
        for entry in sorted(_entry_points().select(group=self.group), key=attrgetter("name", "value")):
            part = self._loaded(entry)
            if entry.name in owners and self._own.get(entry.name) is not part:
                raise _refused(entry, f"{owners[entry.name]} has {self.key}: {entry.name} already; choose another name")
            owners[entry.name] = _distribution(entry)
            parts[entry.name] = part
        return parts

    def _loaded(self, entry: EntryPoint) -> type[Part]:
        try:
            part: Any = entry.load()
        except Exception as error:
            raise _refused(entry, f"cannot be loaded ({_reason(error)}); repair the package") from error
        if not _extends(part, self.base):
            raise _refused(entry, f"must be a class that extends {self.base.__module__}.{self.base.__name__}")
        if self.key not in part.model_fields or get_args(part.model_fields[self.key].annotation) != (entry.name,):
            raise _refused(entry, f'its class must have the field {self.key}: Literal["{entry.name}"]')
        accepted: type[Part] = part
        return accepted


@dataclass(frozen=True)
class Registered:
    """Marks a field whose value is one of the parts of a registry: `Annotated[BaseModelSpec, Registered(MODELS)]`.

    The registry is read when the model is first used, so a package may import this one and extend it.
    """

    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Returns a schema that selects among the parts by the registry's key."""
        choices = {name: handler.generate_schema(part) for name, part in self.registry.items()}
        return core_schema.tagged_union_schema(choices, discriminator=self.registry.key)

    def __hash__(self) -> int:
        return id(self.registry)


@cache
def _entry_points() -> Any:
    return entry_points()


def _extends(part: object, base: type) -> bool:
    return isinstance(part, type) and issubclass(part, base)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _refused(entry: EntryPoint, problem: str) -> UserError:
    remove = f", or remove it: pip uninstall {entry.dist.name}" if entry.dist else ""
    return UserError(
        f"{_distribution(entry)}: entry point {entry.name} = {entry.value} ({entry.group}): {problem}{remove}"
    )

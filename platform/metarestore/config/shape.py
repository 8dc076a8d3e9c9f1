"""The keys that a model accepts at each key path, read from its JSON schema."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from metarestore.config.keypath import KeyPath, Part


class Shape:
    """The structure of a model; its JSON schema is created at first use.

    Args:
        adapter: The model, or any other type, against which data is validated.
        data: The data being validated; it selects the members of tagged unions.
    """

    def __init__(self, adapter: TypeAdapter[Any], data: object) -> None:
        self._adapter = adapter
        self._data = data

    @cached_property
    def _root(self) -> dict[str, Any]:
        try:
            return self._adapter.json_schema()
        except PydanticInvalidForJsonSchema:  # a type without JSON schema: no suggestions
            return {}

    def keys(self, path: KeyPath) -> list[str]:
        """Returns the keys that may be written in the mapping at `path`."""
        return list(dict.fromkeys(key for schema in self._at(path) for key in schema.get("properties", ())))

    def tags(self, path: KeyPath, discriminator: str) -> list[str]:
        """Returns the values that the key `discriminator` may have in the mapping at `path`."""
        fields = [schema.get("properties", {}).get(discriminator, {}) for schema in self._at(path)]
        return [str(tag) for field in fields for tag in field.get("enum", [field["const"]] if "const" in field else [])]

    def _at(self, path: KeyPath) -> list[dict[str, Any]]:
        """Returns the schemas that may describe the value at `path`; several for a union."""
        data, schemas = self._data, list(self._members(self._root, self._data))
        for part in path:
            data = child(data, part)
            inner = [schema for outer in schemas if (schema := _step(outer, part)) is not None]
            schemas = [member for schema in inner for member in self._members(schema, data)]
        return schemas

    def _members(self, schema: dict[str, Any], data: object) -> Iterator[dict[str, Any]]:
        """Resolves references and unions to their members; a tagged union only to the selected member."""
        if "$ref" in schema:
            yield from self._members(self._resolved(schema["$ref"]), data)
        elif tagged := self._tagged(schema, data):
            yield from self._members(self._resolved(tagged), data)
        else:
            yield schema
            for word in ("anyOf", "oneOf", "allOf"):
                for member in schema.get(word, ()):
                    yield from self._members(member, data)

    def _tagged(self, schema: dict[str, Any], data: object) -> str | None:
        discriminator = schema.get("discriminator", {})
        tag = child(data, discriminator.get("propertyName", ""))
        return discriminator.get("mapping", {}).get(tag) if isinstance(tag, str) else None

    def _resolved(self, reference: str) -> dict[str, Any]:
        schema: dict[str, Any] = self._root["$defs"][reference.removeprefix("#/$defs/")]
        return schema


def child(data: object, part: Part) -> object:
    """Returns the entry `part` of `data`, or None if there is none."""
    return data[part] if has(data, part) else None  # type: ignore[index]


def has(data: object, part: Part) -> bool:
    """Returns whether `data` is a mapping or a list with the entry `part`."""
    if isinstance(data, list):
        return isinstance(part, int) and 0 <= part < len(data)
    return isinstance(data, dict) and part in data


def _step(schema: dict[str, Any], part: Part) -> dict[str, Any] | None:
    """Returns the schema of the entry `part`, or None if it has none."""
    inner: object
    if isinstance(part, int):
        fixed = schema.get("prefixItems", [])
        inner = fixed[part] if part < len(fixed) else schema.get("items")
    else:
        inner = schema.get("properties", {}).get(part, schema.get("additionalProperties"))
    return inner if isinstance(inner, dict) else None

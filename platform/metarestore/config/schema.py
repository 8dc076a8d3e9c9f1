"""JSON schemas of the YAML files, for completion and validation in editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from metarestore.files import write_atomically

_LONG = 400


def json_schema(model: type | TypeAdapter[Any], title: str) -> dict[str, Any]:
    """Returns the JSON schema (draft 2020-12) of a model.

    Args:
        model: A pydantic model, any other type, or its adapter.
        title: Title of the schema, shown by editors.
    """
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    return {"$schema": GenerateJsonSchema.schema_dialect, **_shared(adapter.json_schema()), "title": title}


def _shared(schema: dict[str, Any]) -> dict[str, Any]:
    """Moves long alternatives that occur repeatedly, such as the forms of a range, to `$defs`."""
    shared: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}

    def moved(part: Any) -> Any:
        if isinstance(part, list):
            return [moved(item) for item in part]
        if not isinstance(part, dict):
            return part
        part = {key: moved(value) for key, value in part.items()}
        text = json.dumps(part.get("anyOf"))
        if len(text) < _LONG:
            return part
        name = names.setdefault(text, f"AnyOf{len(names)}")
        shared[name] = {"anyOf": part.pop("anyOf")}
        return {"$ref": f"#/$defs/{name}", **part}

    whole: dict[str, Any] = moved(schema)
    return {**whole, "$defs": {**whole.get("$defs", {}), **shared}} if shared else whole


def write_schemas(folder: str | Path, models: Mapping[str, type | TypeAdapter[Any]]) -> list[Path]:
    """Writes `<name>.json` for each model; the output is deterministic.

    A YAML file refers to its schema in its first line: `# yaml-language-server: $schema=schemas/experiment.json`.

    Returns:
        The files, in the order of `models`.

    Raises:
        UserError: A file cannot be written.
    """
    folder = Path(folder)
    files = []
    for name, model in models.items():
        files.append(folder / f"{name}.json")
        text = json.dumps(json_schema(model, name), indent=2, ensure_ascii=False)
        write_atomically(files[-1], text + "\n")
    return files

"""Writes models and plain data as YAML 1.2 text that reads back as the same data."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from metarestore.config.yaml_text import resolve
from metarestore.files import write_atomically

_WIDTH = 120
_UNAMBIGUOUS = re.compile(r"(\.{0,2}/)?\w[\w./ *-]*(?<! )")


class _Representer(SafeRepresenter):
    """Writes lists of scalars in flow style and everything else in block style, without aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_text(self, text: str) -> ScalarNode:
        # Quoted in case of doubt: the emitter would write "?0" in a list as if it were a key.
        if _UNAMBIGUOUS.fullmatch(text) and isinstance(resolve(text), str):
            return self.represent_scalar("tag:yaml.org,2002:str", text)
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"')

    def represent_items(self, items: list[Any]) -> SequenceNode:
        in_brackets = not any(isinstance(item, dict | list) for item in items)
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=in_brackets)

    def represent_entries(self, entries: dict[str, Any]) -> MappingNode:
        # Pairs are not sorted; a mapping would be.
        return self.represent_mapping("tag:yaml.org,2002:map", list(entries.items()), flow_style=False)


_Representer.add_representer(dict, _Representer.represent_entries)
_Representer.add_representer(str, _Representer.represent_text)
_Representer.add_representer(list, _Representer.represent_items)


def to_yaml(content: BaseModel | Mapping[str, Any], header: str = "") -> str:
    """Returns YAML 1.2 text; the order of keys is kept.

    Args:
        content: A model, or JSON-compatible data (infinities and NaN are allowed).
        header: Lines that are written as comments at the top.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(to_jsonable_python(content, by_alias=True), stream)
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    return comment + stream.getvalue()


def dump_yaml(content: BaseModel | Mapping[str, Any], path: str | Path, header: str = "") -> None:
    """Writes a YAML file that `read_document` reads back as the same data.

    Args:
        content: A model, or JSON-compatible data.
        path: The file; missing folders are created.
        header: Lines that are written as comments at the top.

    Raises:
        UserError: The file cannot be written.
    """
    write_atomically(Path(path), to_yaml(content, header))

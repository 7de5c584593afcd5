"""A stack file to start from: what must be set with examples, and everything else commented out with its default."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from components.settings.schema import Schema, resolved, site_schema
from components.settings.site import KEY
from tools.offline.settings_page import kind

WIDTH = 110  # of the comments, before they are indented
DEPTH = 2
EXAMPLE_DOMAIN = "example.org"  # of every example in the models

HEAD = """\
# yaml-language-server: $schema=schemas/site.schema.json
# yamllint disable rule:comments-indentation rule:line-length
# What is commented out shows its default, or an example where the default is empty. A line that begins with ## explains the
# setting below it; docs/settings.md has all settings as tables.
"""


def template(domain: str, values: Mapping[str, Any], notes: Iterable[str] = ()) -> str:
    """A stack file with these values and an example for everything else that is required; `notes` are comments at its top."""
    head = HEAD + "".join(f"# {line}".rstrip() + "\n" for line in notes) + f"config:\n  {KEY}:\n"
    block = textwrap.indent("\n".join(_block(resolved(site_schema()), values)), " " * 4)
    return f"{head}{block.replace(EXAMPLE_DOMAIN, domain)}\n"


def _block(schema: Schema, values: Mapping[str, Any], off: int = 0) -> Iterator[str]:
    """The lines of a block: settings in `values` and required ones are set, the others are commented out.

    `off` counts the commented-out blocks around it: two levels down, only what is required is shown.
    """
    required = schema.get("required", ())
    for name, raw in schema["properties"].items():
        part = resolved(raw)
        if name in required or name in values:
            yield from _comment(raw, part)
            yield from _setting(name, part, values.get(name, _suggestion(part)), off)
        elif off < DEPTH:
            yield from _comment(raw, part)
            yield from (f"# {line}" for line in _setting(name, part, _suggestion(part), off + 1))


def _comment(raw: Schema, part: Schema) -> list[str]:
    choices = kind(raw) if "`" in kind(raw) and part.get("type") != "boolean" else ""
    text = part["description"] + (f" ({choices})" if choices else "")
    return textwrap.wrap(text, WIDTH, initial_indent="## ", subsequent_indent="## ", break_on_hyphens=False, break_long_words=False)


def _suggestion(part: Schema) -> Any:
    """The default; an example where it does not exist, or where it is empty."""
    default = part.get("default")
    return part["examples"][0] if default in (None, [], {}) and "examples" in part else default


def _setting(name: str, part: Schema, value: Any, off: int) -> list[str]:
    if "properties" in part:
        return [f"{name}:", *_indented(_block(part, value or {}, off))]
    if "items" in part and "properties" in (inner := resolved(part["items"])) and value:
        return [f"{name}:", *(line for entry in value for line in ("  -", *_indented(_indented(_block(inner, entry, off)))))]
    if isinstance(named := part.get("additionalProperties"), Mapping) and "properties" in (inner := resolved(named)) and value:
        return [f"{name}:", *_indented(line for key, entry in value.items() for line in _setting(key, inner, entry, off))]
    if isinstance(value, str) and len(value) > WIDTH:  # a key, in which blanks do not count
        return [f"{name}: >-", *_indented(textwrap.wrap(value, WIDTH))]
    return [f"{name}: {_text(value)}"]


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _text(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9./@-]*", value) and value not in {"true", "false", "null"}
    return value if plain else json.dumps(value, ensure_ascii=False)

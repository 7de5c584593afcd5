"""docs/settings.md: every setting with its type, default, meaning and an example, read off the JSON Schema."""

import json
from collections.abc import Iterable, Iterator, Mapping

from components.settings.schema import Schema, resolved, site_schema

FEW = 3  # a block of so few settings is shown within the table of the block above it

HEAD = """\
# Settings

Everything below `mailserver:site` in `Pulumi.<stack>.yaml`. `*` is a name of your own, `0` an entry of a list.
Written by `make docs` from [components/settings](../components/settings); editors read the same from
[schemas/site.schema.json](../schemas/site.schema.json). `make init` writes a commented stack file.
"""


def page() -> str:
    """The whole page: a section for each area, in their order, and one for each larger block in it."""
    site = resolved(site_schema())
    sections = (_sections(name, resolved(schema)) for name, schema in site["properties"].items() if _block(resolved(schema)))
    return HEAD + _table(_rows("", site, deep=False)) + "".join(text for texts in sections for text in texts)


def _sections(path: str, schema: Schema) -> Iterator[str]:
    """A section for the block at `path`, and one for each larger block in it."""
    found = _block(schema)
    assert found is not None  # noqa: S101 - the callers have looked
    inner, below = found
    heading = "#" * (2 + min(path.count("."), 1))
    yield f"\n{heading} {path}{below}\n\n{inner['about']}\n{_table(_rows('', inner))}"
    for name, part in _large(inner):
        yield from _sections(f"{path}{below}.{name}", part)


def _large(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """The blocks in a block that have sections of their own, with their dotted names."""
    for name, part in schema["properties"].items():
        if found := _block(part := resolved(part)):
            inner, below = found
            if len(inner["properties"]) > FEW:
                yield f"{path}{name}", part
            else:
                yield from _large(inner, f"{path}{name}{below}.")


def _rows(path: str, schema: Schema, *, deep: bool = True) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each setting in a block."""
    for name, raw in schema["properties"].items():
        part = resolved(raw)
        yield f"`{path}{name}`", kind(raw), _default(part, required=name in schema.get("required", ())), _meaning(part)
        if deep and (found := _block(part)) and len(found[0]["properties"]) <= FEW:
            yield from _rows(f"{path}{name}{found[1]}.", found[0])


def _table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n" + "\n".join(lines) + "\n"


def _block(schema: Schema) -> tuple[Schema, str] | None:
    """The block that a setting is, or holds by name (`.*`) or in a list (`.0`)."""
    if "properties" in schema:
        return schema, ""
    for part, below in (("additionalProperties", ".*"), ("items", ".0")):
        if isinstance(inner := schema.get(part), Mapping) and "properties" in resolved(inner):
            return resolved(inner), below
    return None


def kind(schema: Schema) -> str:
    """What a setting may hold, in words."""
    if "anyOf" in schema:
        return " or ".join(sorted((kind(part) for part in schema["anyOf"]), key=lambda text: text == "null"))
    schema = resolved(schema)
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return ", ".join(f"`{value}`" for value in values)
    return schema.get("title") or (_container if {"items", "properties", "additionalProperties"} & schema.keys() else _scalar)(schema)


def _container(schema: Schema) -> str:
    if "properties" in schema:
        return "block"
    if "items" in schema:
        return f"list of {kind(schema['items'])}"
    return f"map of {kind(schema['propertyNames'])} to {kind(schema['additionalProperties'])}"


def _scalar(schema: Schema) -> str:
    names = {"boolean": "`true`, `false`", "integer": "whole number", "string": schema.get("format", "text"), "array": "pair of numbers"}
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f", {low} to {high}" if high is not None else f", at least {low}" if low is not None else ""
    return names.get(schema["type"], schema["type"]) + bounds


def _default(schema: Schema, *, required: bool) -> str:
    if required:
        return "required"
    return f"`{json.dumps(schema['default'], ensure_ascii=False)}`"


def _meaning(schema: Schema) -> str:
    text = schema["description"]
    if examples := schema.get("examples"):
        text += f". Example: `{json.dumps(examples[0], ensure_ascii=False)}`"
    return text

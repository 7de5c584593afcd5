"""The settings as JSON Schema: for editors, for the documentation, and to guess what a misspelt setting was meant to be."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import to_jsonable_python
from pydantic_core.core_schema import DictSchema, ModelSchema

from components.settings.edge import SSH_KEY
from components.settings.site import KEY, Site
from components.settings.types import Model

Schema = Mapping[str, Any]


class _Generator(GenerateJsonSchema):
    """Titles are those of the types only; a block without anything in it is null in YAML, and counts as empty."""

    schema_dialect = "http://json-schema.org/draft-07/schema#"  # what editors' YAML plug-ins support best

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        shown = super().model_schema(schema)
        del shown["title"]
        return shown if shown.get("required") else shown | {"type": ["object", "null"]}

    def dict_schema(self, schema: DictSchema) -> JsonSchemaValue:
        shown: JsonSchemaValue = {"type": "object" if schema.get("min_length") else ["object", "null"]}
        for part, inner in (("propertyNames", schema.get("keys_schema")), ("additionalProperties", schema.get("values_schema"))):
            if inner:
                shown[part] = self.generate_inner(inner)
        self.update_with_validations(shown, schema, self.ValidationsMapping.object)
        return shown

    def encode_default(self, dft: Any) -> Any:
        """Of a block, only what differs from its own defaults."""
        if isinstance(dft, Model):
            return {part: self.encode_default(getattr(dft, part)) for part in dft.model_fields_set}
        return to_jsonable_python(dft)


@functools.cache
def site_schema() -> Schema:
    """What `mailserver:site` may hold. Rules between settings are not in it."""
    return Site.model_json_schema(schema_generator=_Generator)


def stack_schema() -> Schema:
    """A whole `Pulumi.<stack>.yaml`, as an editor reads it."""
    site = dict(site_schema())
    definitions = site.pop("$defs")
    secret = {"type": "object", "properties": {"secure": {"type": "string"}}, "required": ["secure"], "additionalProperties": False}
    return {
        "$schema": _Generator.schema_dialect,
        "title": "Pulumi.<stack>.yaml of the mail system",
        "type": "object",
        "required": ["config"],
        "properties": {
            "config": {
                "type": "object",
                "required": [KEY],
                "properties": {
                    KEY: site,
                    SSH_KEY: secret | {"description": "private key for edge.ssh: `pulumi config set --secret edgeSshKey < key`"},
                },
            }
        },
        "$defs": definitions,
    }


def resolved(schema: Schema) -> Schema:
    """The schema behind a reference, or behind `… or null`; the outer one's description and examples win, `about` is the block's own."""
    inner = schema
    if "anyOf" in schema:
        inner = next(part for part in schema["anyOf"] if part.get("type") != "null")
    if "$ref" in inner:
        inner = site_schema()["$defs"][inner["$ref"].rpartition("/")[2]]
    if inner is schema:
        return schema
    return {
        "about": inner.get("description"),
        **resolved(inner),
        **{key: value for key, value in schema.items() if key not in {"anyOf", "$ref"}},
    }


def settings_at(place: Sequence[str]) -> Mapping[str, Schema]:
    """The settings that exist in the block at `place`; empty where a value is not a block."""
    schema = resolved(site_schema())
    for part in place:
        if "items" in schema:
            schema = resolved(schema["items"])
        elif part in schema.get("properties", {}):
            schema = resolved(schema["properties"][part])
        elif isinstance(inner := schema.get("additionalProperties"), Mapping):
            schema = resolved(inner)
        else:
            return {}
    return schema.get("properties", {})

"""Every setting there is, read off the models: for the documentation, and to guess what a misspelt one was meant to be."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from components.settings.site import Site
from components.settings.types import Model


@dataclass(frozen=True)
class Setting:
    """`path` is dotted; `*` stands for a name of the reader's own, `0` for an entry of a list. `default` is None where there is none."""

    path: str
    default: str | None
    meaning: str


def reference(model: type[BaseModel] = Site, place: str = "") -> Iterator[Setting]:
    """All settings below a model, in the order in which they are written down."""
    for name, info in model.model_fields.items():
        path = f"{place}{name}"
        yield Setting(path, _default(info), info.description or "")
        for below, inner in _models(info.annotation):
            yield from reference(inner, f"{path}.{below}")


def _default(info: FieldInfo) -> str | None:
    if info.is_required():
        return None
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Model):  # its parts have rows of their own
        value = {part: getattr(value, part) for part in value.model_fields_set}
    return json.dumps(to_jsonable_python(value), ensure_ascii=False)


def _models(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models that a value may be or hold, with the path down to them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
    elif origin is Annotated:
        yield from _models(arguments[0])
    elif origin in {Union, UnionType}:
        for argument in arguments:
            yield from _models(argument)
    elif origin is dict:
        yield from ((f"*.{below}", inner) for below, inner in _models(arguments[1]))
    elif origin is tuple:
        yield from ((f"0.{below}", inner) for below, inner in _models(arguments[0]))

"""Reads a stack's settings: one object, refused as a whole with a line for each mistake."""

import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from pydantic import ValidationError

from components.settings.schema import settings_at
from components.settings.site import KEY, Site


@dataclass(frozen=True)
class Mistake:
    """A setting that does not exist, is missing, or has a value that cannot be."""

    kind: Literal["unknown", "missing", "invalid"]
    setting: str
    text: str


class InvalidSettings(Exception):  # noqa: N818 - what it holds
    """The settings are not those of a site; components/checks tells a person."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = list(mistakes)
        super().__init__(self.mistakes)


def parse_site(text: str) -> Site:
    """The settings from JSON text, as Pulumi hands over the value of `mailserver:site`.

    Raises InvalidSettings. Rules between settings are in components/checks, whose `read_site` is what programs call.
    """
    try:
        return _validated(text)
    except ValidationError as error:
        raise InvalidSettings(_mistakes(error)) from None


def _validated(text: str) -> Site:
    """The site, with `{}` for a null where a block or a map belongs: YAML reads `me@example.org:` with nothing below it as null."""
    try:
        return Site.model_validate_json(text)
    except ValidationError as error:
        details = error.errors(include_url=False)
        empty = [detail["loc"] for detail in details if detail["input"] is None and detail["type"] in {"model_type", "dict_type"}]
        if not empty or () in empty:
            raise
    settings = json.loads(text)
    for *above, last in empty:
        functools.reduce(lambda place, part: place[part], above, settings)[last] = {}
    return Site.model_validate_json(json.dumps(settings))


# What pydantic calls a wrong kind of value, and what a reader can do about it.
_REMEDIES = {
    "tuple_type": "write a list, such as [one, two]",
    "dict_type": "write names and values below it",
    "model_type": "write settings below it",
    "model_attributes_type": "write settings below it",
    "bool_type": "write true or false, without quotes",
    "string_type": "write text; in quotes where it looks like a number or a date",
    "int_type": "write a whole number, without quotes",
    "ip_any_address": "write an IP address",
    "ip_any_network": "write a network such as 10.244.0.0/16, all of whose bits behind the prefix are 0",
    "too_short": "must not be empty",
}


def _mistakes(error: ValidationError) -> Iterator[Mistake]:
    details = error.errors(include_url=False)
    places = [detail["loc"] for detail in details]
    for detail in details:
        if any(place[: len(detail["loc"])] == detail["loc"] != place for place in places):
            continue  # a list that is now too short, because of an entry that has its own line
        place = [str(part) for part in detail["loc"] if part != "[key]"]
        setting = ".".join(place) or KEY
        message = _REMEDIES.get(detail["type"], detail["msg"].removeprefix("Value error, "))
        if detail["type"] == "value_error" and isinstance(detail["input"], dict):  # a rule over a whole area names the setting itself
            inner, _, text = message.partition(": ")
            yield Mistake("invalid", f"{setting}.{inner}", text)
        elif detail["type"] == "extra_forbidden":
            near = get_close_matches(place[-1], settings_at(place[:-1]), n=1)
            yield Mistake("unknown", setting, f"unknown setting{f'; did you mean {near[0]}?' if near else ''}")
        elif detail["type"] == "missing":
            yield Mistake("missing", setting, "is required")
        elif detail["type"] == "too_short":
            yield Mistake("invalid", setting, message)
        else:
            yield Mistake("invalid", setting, f"{message} (got {detail['input']!r})")

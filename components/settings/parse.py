"""Reads a stack's settings: one object, refused as a whole with a line for each mistake."""

from collections.abc import Iterator

from pydantic import ValidationError

from components.settings.checks import problems
from components.settings.site import KEY, Site


class SettingsError(Exception):
    """The settings cannot be used; the text says which, why, and what would be right."""


def parse_site(text: str) -> Site:
    """The settings from JSON text, as Pulumi hands over the value of `mailserver:site`.

    Raises SettingsError with a line for each mistake: setting, what is wrong, the value that was given.
    """
    try:
        site = Site.model_validate_json(text)
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error))) from None
    if found := list(problems(site)):
        raise SettingsError("\n".join(f"{KEY}.{problem}" for problem in found))
    return site


def _lines(error: ValidationError) -> Iterator[str]:
    details = error.errors(include_url=False)
    places = [detail["loc"] for detail in details]
    for detail in details:
        if any(place[: len(detail["loc"])] == detail["loc"] != place for place in places):
            continue  # a list that is now too short, because of an entry that has its own line
        setting = ".".join((KEY, *map(str, detail["loc"])))
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "value_error" and isinstance(detail["input"], dict):  # a rule over a whole area names the setting itself
            yield f"{setting}.{message}"
        elif detail["type"] == "extra_forbidden":
            yield f"{setting}: unknown setting"
        elif detail["type"] == "missing":
            yield f"{setting}: is required"
        else:
            yield f"{setting}: {message} (got {detail['input']!r})"

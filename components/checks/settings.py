"""Rules for single values: what the models refuse (components/settings/parse.py)."""

from components.checks.finding import Area, Found
from components.settings.parse import InvalidSettings

AREA = Area[InvalidSettings]("settings", "single settings: names, types and ranges")


@AREA.error("unknown")
def unknown(invalid: InvalidSettings) -> Found:
    """A setting with this name does not exist; most often it is misspelt."""
    yield from ((mistake.setting, mistake.text) for mistake in invalid.mistakes if mistake.kind == "unknown")


@AREA.error("missing")
def missing(invalid: InvalidSettings) -> Found:
    """A required setting is not set."""
    yield from ((mistake.setting, mistake.text) for mistake in invalid.mistakes if mistake.kind == "missing")


@AREA.error("invalid")
def invalid_value(invalid: InvalidSettings) -> Found:
    """A value of the wrong type, form or range."""
    yield from ((mistake.setting, mistake.text) for mistake in invalid.mistakes if mistake.kind == "invalid")

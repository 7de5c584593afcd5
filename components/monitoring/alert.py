"""What an alert is, before it becomes a rule of Prometheus or of Loki's ruler."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from components.settings.site import Site

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Alert:
    """One row of the table. `impact` and `remedy` are Markdown in one paragraph; `detail` may hold Prometheus' templates.

    `query` gives PromQL or LogQL for a site, or None where the site lacks what the alert is about. `hold` is how long it must
    have a result, as Prometheus writes durations.
    """

    name: str
    query: Callable[[Site], str | None]
    hold: str
    severity: Severity
    impact: str
    remedy: str
    detail: str = ""

    @property
    def anchor(self) -> str:
        """Of its section on the page of alerts."""
        return self.name.lower()


def series(metric: str, **labels: str) -> str:
    """A selector; a value that begins with `~` is a regular expression."""
    matchers = ", ".join(f'{name}=~"{value[1:]}"' if value.startswith("~") else f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{matchers}}}"

"""CrowdSec: what its agents must know to recognise attacks on mail. It runs elsewhere; here its chart's values are made."""

from typing import Annotated

from pydantic import Field

from components.settings.types import Model, Network, text

LokiUrl = Annotated[str, *text("URL", r"https?://[^\s?]*[^\s?/]", "write a URL such as http://loki:3100, without a slash at the end")]


class Crowdsec(Model):
    """Where the log is read, and who is never banned."""

    loki: LokiUrl | None = Field(
        default=None,
        description="Loki, which is asked for lines by the pod's labels; null: an agent on each node reads the container's log file",
        examples=["http://loki.monitoring:3100"],
    )
    allow: tuple[Network, ...] = Field(
        default=(),
        description="networks that are never banned; pods, nodes, firewall, mail hosts and trusted relays never are",
        examples=[["192.0.2.0/24"]],
    )

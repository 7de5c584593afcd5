"""Bans at the firewall: where the list of attackers comes from, and what may never be on it."""

from typing import Annotated

from pydantic import Field, model_validator

from components.settings.extension import PodFields
from components.settings.secrets import Secret, secret_name
from components.settings.types import Image, Model, Network, Port, text

ListUrl = Annotated[str, *text("URL", r"https?://[^\s]+", "write a URL such as https://lists.example.org/banned.txt")]
LapiUrl = Annotated[str, *text("URL", r"https?://[^\s?]*[^\s?/]", "write a URL such as http://crowdsec-service.crowdsec:8080")]


class BouncerKey(Secret):
    """The API key of a bouncer, as `cscli bouncers add` prints it, under the key `api_key`."""

    name: str = secret_name("mailserver-bouncer")


class Mirror(Model):
    """CrowdSec's decisions, read by its own blocklist mirror, which runs beside the program that checks the list."""

    lapi: LapiUrl = Field(description="CrowdSec's local API", examples=["http://crowdsec-service.crowdsec:8080"])
    api_key: BouncerKey = Field(default=BouncerKey(), description="Secret with the API key of a bouncer")
    image: Image = Field(default="docker.io/crowdsecurity/blocklist-mirror:v0.0.5", description="image of cs-blocklist-mirror")


class Bans(Model):
    """A list of addresses that the firewall refuses on the mail ports. Set exactly one of `url` and `crowdsec`."""

    url: ListUrl | None = Field(
        default=None, description="any list in plain text, one address or network a line", examples=["https://lists.example.org/banned.txt"]
    )
    crowdsec: Mirror | None = Field(default=None, description="CrowdSec's decisions as the list")
    allow: tuple[Network, ...] = Field(
        default=(),
        description="networks that are never banned; private networks, pods, nodes, firewall, mail hosts and trusted relays never are",
        examples=[["192.0.2.0/24"]],
    )
    max_entries: int = Field(
        default=50_000,
        ge=1,
        le=200_000,  # each takes 0.8 KB of the 256 MiB that the pod may use
        description="a list with more entries is not loaded; pfSense's own limit is for all tables",
    )
    node_port: Port = Field(default=30150, description="NodePort at which the firewall fetches the checked list from the first active node")
    pod: PodFields = Field(default=PodFields(), description="further fields of the pod that checks the list")

    @model_validator(mode="after")
    def _one_source(self) -> "Bans":
        if (self.url is None) == (self.crowdsec is None):
            raise ValueError("url: set exactly one of url and crowdsec")
        return self

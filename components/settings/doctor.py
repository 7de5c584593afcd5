"""Where the doctor (`make doctor`) looks from."""

from ipaddress import ip_address
from typing import Annotated

from pydantic import Field

from components.settings.edge import HostKey, User
from components.settings.types import Address, Model, Port, text


class Vantage(Model):
    """A machine on the Internet that opens connections for the doctor: any SSH server that forwards TCP. Nothing runs on it."""

    host: Annotated[str, *text("host", r"[a-z0-9.:-]+", "write a host name or an address")] = Field(
        description="name or address of the SSH server", examples=["vps.example.net"]
    )
    port: Port = Field(default=22, description="its port")
    user: User = Field(default="root", description="any user; it needs no rights")
    host_key: HostKey = Field(description="the server's public host key", examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…"])
    key_file: str | None = Field(default=None, description="path of the private key; null: the SSH agent", examples=["~/.ssh/vantage"])


class Doctor(Model):
    """The doctor's sources."""

    resolvers: tuple[Address, ...] = Field(
        default=(ip_address("1.1.1.1"), ip_address("9.9.9.9")),
        min_length=1,
        description="DNS servers that speak for the Internet",
        examples=[["1.1.1.1"]],
    )
    internal_resolver: Address | None = Field(
        default=None, description="DNS server that clients inside use; null: it is not asked", examples=["192.168.1.53"]
    )
    vantage: Vantage | None = Field(
        default=None, description="from where the services are looked at as a client on the Internet; null: from the operator's machine"
    )
    inside: bool = Field(
        default=False, description="keeps a suspended CronJob that `make doctor INSIDE=1` starts, for what only a pod can see"
    )
    prometheus: (
        Annotated[str, *text("URL", r"https?://[^\s?]*[^\s?/]", "write a URL such as http://prometheus.monitoring:9090, without a slash")]
        | None
    ) = Field(
        default=None,
        description="base URL of Prometheus; `http://<service>.<namespace>:<port>` is reached through the cluster's API. null: not asked",
        examples=["http://prometheus.monitoring:9090"],
    )

"""The firewall in front: pfSense with the HAProxy package, reached over SSH."""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from components.settings.types import Address, Model, Port

_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


def _host_key(value: str) -> str:
    kind, _, rest = value.partition(" ")
    try:
        blob = base64.b64decode(rest.split(" ")[0], validate=True)
    except binascii.Error:
        blob = b""
    if kind not in _KEY_TYPES or kind.encode() not in blob[:32]:
        raise ValueError("write the firewall's public host key, such as `ssh-ed25519 AAAA…`: `ssh-keyscan -t ed25519 <firewall>` prints it")
    return f"{kind} {rest.split(' ')[0]}"


def _interface(value: str) -> str:
    if not value.isalnum() or not value.islower():
        raise ValueError("write pfSense's own name of the interface, such as wan, lan or opt1, not its description")
    return value


HostKey = Annotated[str, AfterValidator(_host_key)]
Interface = Annotated[str, AfterValidator(_interface)]


class Ssh(Model):
    """How the firewall is reached. The private key is no setting: config secret `edgeSshKey`, a key file, or an SSH agent."""

    host: Address | None = Field(default=None, description="the address that SSH connects to; null means the firewall's `address`")
    port: Port = Field(default=22, description="where its SSH server listens")
    user: str = Field(default="admin", pattern=r"^[a-z_][a-z0-9_-]{0,31}$", description="a user with uid 0: admin or root")
    host_key: HostKey = Field(description="the firewall's public host key; nothing is sent to a host that shows another one")
    key_file: str | None = Field(
        default=None, description="path of the private key; null means the config secret edgeSshKey, or else the SSH agent"
    )


class Legacy(Model):
    """The way in before HAProxy: a LoadBalancer Service that keeps client addresses by itself."""

    address: Address = Field(description="address of the LoadBalancer Service `mailserver-legacy`")


class Edge(Model):
    """The pfSense in front of the cluster, and what of it is managed from here."""

    address: Address = Field(description="its address on the nodes' network: where HAProxy listens, and where its connections come from")
    ipv6_address: Address | None = Field(
        default=None, description="a public IPv6 address of the firewall that HAProxy listens on too, with a pass rule to it"
    )
    ipv6_interface: Interface | None = Field(
        default=None, description="the interface that IPv6 comes in by, when it is another one than wan_interface (a tunnel)"
    )
    wan_interface: Interface = Field(default="wan", description="the interface that mail from the world comes in by")
    wan_address: Address | Literal["wanip"] = Field(
        default="wanip", description="what the world connects to: an address, or wanip for whatever address the WAN interface has"
    )
    ssh: Ssh | None = Field(default=None, description="null: the firewall is left alone; the render still shows what it should hold")
    target: Literal["haproxy", "legacy"] = Field(
        default="haproxy", description="where the redirects lead: HAProxy on the firewall, or the LoadBalancer Service of `legacy`"
    )
    test_frontend: bool = Field(default=False, description="keeps a frontend on port 2525, to try the PROXY path beside a live legacy one")
    remove_legacy_alias: bool = Field(default=False, description="deletes the alias of the legacy address, once nothing refers to it")
    legacy: Legacy | None = Field(default=None, description="brings the LoadBalancer Service back, for rolling back")

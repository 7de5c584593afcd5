"""The edge: pfSense with the HAProxy package, managed over SSH."""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from components.settings.bans import Bans
from components.settings.types import Address, Model, Port, text

SSH_KEY = "mailserver:edgeSshKey"  # config secret with the private key's text
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


HostKey = Annotated[str, AfterValidator(_host_key)]
Interface = Annotated[
    str,
    *text(
        "pfSense interface",
        r"[0-9]*[a-z][a-z0-9]*",
        "write pfSense's own name of the interface, such as wan, lan or opt1, not its description",
    ),
]
User = Annotated[str, *text("user name", r"[a-z_][a-z0-9_-]{0,31}", "write a user name such as admin")]


class Ssh(Model):
    """SSH access to the firewall. The private key is not a setting: config secret `edgeSshKey`, a key file, or an SSH agent."""

    host: Address | None = Field(default=None, description="address that SSH connects to; null: edge.address", examples=["192.0.2.1"])
    port: Port = Field(default=22, description="port of the firewall's SSH server")
    user: User = Field(default="admin", description="a user with uid 0: admin or root")
    host_key: HostKey = Field(
        description="the firewall's public host key; nothing is sent to a host that presents another one",
        examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…"],
    )
    key_file: str | None = Field(
        default=None,
        description="path of the private key; null: the config secret edgeSshKey, or else the SSH agent",
        examples=["~/.ssh/mailserver-edge"],
    )


class Legacy(Model):
    """The inbound path before HAProxy: a LoadBalancer Service that preserves client addresses by itself."""

    address: Address = Field(description="address of the LoadBalancer Service `mailserver-legacy`", examples=["192.0.2.2"])


class Edge(Model):
    """The pfSense firewall in front of the cluster, and what of it is managed here."""

    address: Address = Field(
        description="the firewall's address on the nodes' network: HAProxy listens on it and connects from it", examples=["192.0.2.1"]
    )
    ipv6_address: Address | None = Field(
        default=None,
        description="public IPv6 address of the firewall; HAProxy listens on it too, and pass rules admit mail to it",
        examples=["2001:db8::25"],
    )
    ipv6_interface: Interface | None = Field(
        default=None, description="interface that IPv6 arrives on; null: wan_interface", examples=["opt1"]
    )
    ipv6_transparent: bool = Field(
        default=True,
        description="HAProxy starts even while ipv6_address is not up, so that a missing tunnel cannot stop IPv4 mail; "
        "false: for a HAProxy without transparent binds",
    )
    wan_interface: Interface = Field(default="wan", description="interface that mail from the Internet arrives on")
    wan_address: Address | Literal["wanip"] = Field(
        default="wanip", description="destination address of the redirects; wanip: the current address of the WAN interface"
    )
    ssh: Ssh | None = Field(
        default=None, description="SSH access to the firewall; null: the firewall is not changed, and a render shows what it should hold"
    )
    target: Literal["haproxy", "legacy"] = Field(
        default="haproxy", description="where the redirects point: HAProxy on the firewall, or the LoadBalancer Service of `legacy`"
    )
    legacy: Legacy | None = Field(default=None, description="the LoadBalancer Service to roll back to; null: none is created")
    bans: Bans | None = Field(default=None, description="addresses that are refused on the mail ports; null: none")
    test_frontend: bool = Field(
        default=False, description="keeps a test frontend on the firewall, to try the PROXY path while mail still uses the legacy path"
    )
    check_after_flip: bool = Field(
        default=True,
        description="after new redirects or pass rules, an `up` connects to every mail service as a client and fails if one is broken",
    )
    remove_legacy_alias: bool = Field(
        default=False, description="deletes the firewall alias of the legacy address once nothing refers to it"
    )

    @property
    def access(self) -> Ssh | None:
        """How the firewall is reached; None where nothing says so, or where the host key is a placeholder of zeros."""
        return None if self.ssh and self.ssh.host_key.endswith("A" * 40) else self.ssh

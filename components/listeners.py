"""The table of mail services. Every port and every name that differs per service is written here once; the rest is derived."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Listener:
    """One mail service, the ports that reach it, and its names on other systems."""

    name: str
    """IANA service name. Postfix's stock service has the same name; `imaps` is Dovecot's."""
    protocol: Literal["smtp", "imap"]
    tls: Literal["starttls", "implicit"]
    """`implicit`: TLS from the first byte (RFC 8314, section 3)."""
    for_users: bool = True
    """Whether people's mail clients use it; port 25 is for other servers."""
    port: int
    """The well-known port (RFC 5321, 6409, 8314, 9051), also used by pods in the cluster."""
    proxy_port: int
    """The same service in the pod, behind a mandatory PROXY v2 header."""
    node_port: int
    """Where HAProxy sends traffic: a NodePort that forwards to `proxy_port`."""
    health_node_port: int
    """Where HAProxy sends checks: a NodePort that forwards to `port`. A check on a PROXY listener kills smtpd (96 fatals a minute)."""
    idle: timedelta
    """How long HAProxy lets a silent client stay."""
    port_name: str
    """Name of the stock port in the Service and the pod (live objects rely on it)."""
    proxy_port_name: str
    """Name of the PROXY port in the NodePort Service and the pod (live objects rely on it)."""
    pool: str
    """HAProxy backend on the firewall (adopted where it exists already)."""

    @property
    def frontend(self) -> str:
        """HAProxy frontend on the firewall (adopted where it exists already)."""
        return f"mailserver_proxy_{self.port}"

    @property
    def greeting(self) -> str:
        """How the server's first line begins (RFC 5321, section 4.2; RFC 9051, section 7.1.1)."""
        return "220" if self.protocol == "smtp" else "* OK"

    @property
    def health_service_port(self) -> int:
        """Port of the health entry in the NodePort Service: `port` padded to four digits.

        Nothing connects to it, but it is the merge key of the live Service, so it keeps the live object's numbers.
        """
        return int(str(self.port).ljust(4, "0"))


SMTP = Listener(
    name="smtp",
    protocol="smtp",
    tls="starttls",
    for_users=False,
    port=25,
    proxy_port=2525,
    node_port=30125,
    health_node_port=30145,
    idle=timedelta(minutes=5),
    port_name="smtp",
    proxy_port_name="smtp-proxy",
    pool="mailserver_nodes_smtp",
)
SUBMISSIONS = Listener(
    name="submissions",
    protocol="smtp",
    tls="implicit",
    port=465,
    proxy_port=4465,
    node_port=30126,
    health_node_port=30146,
    idle=timedelta(minutes=5),
    port_name="smtp-secure",
    proxy_port_name="smtps-proxy",
    pool="mailserver_nodes_smtps",
)
SUBMISSION = Listener(
    name="submission",
    protocol="smtp",
    tls="starttls",
    port=587,
    proxy_port=5587,
    node_port=30127,
    health_node_port=30147,
    idle=timedelta(minutes=5),
    port_name="smtp-auth",
    proxy_port_name="sub-proxy",
    pool="mailserver_nodes_sub",
)
IMAPS = Listener(
    name="imaps",
    protocol="imap",
    tls="implicit",
    port=993,
    proxy_port=10993,
    node_port=30128,
    health_node_port=30148,
    idle=timedelta(minutes=31),  # clients renew IDLE every 29 minutes (RFC 2177)
    port_name="imap-secure",
    proxy_port_name="imaps-proxy",
    pool="mailserver_nodes_imaps",
)

LISTENERS = (SMTP, SUBMISSIONS, SUBMISSION, IMAPS)

MANAGESIEVE_PORT = 4190  # RFC 5804; for the webmail alone, so it is neither a NodePort nor at the edge

# A second inbound path to the smtp service, to try the PROXY path while the live one still uses the legacy address.
TEST_FRONTEND = "mailserver_proxy_test"
TEST_POOL = "mailserver_nodes"
TEST_PORT = SMTP.proxy_port

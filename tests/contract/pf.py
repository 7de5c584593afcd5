"""What the stand-in's pf does with new connections to the mail ports, by its own listings."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from tests.contract.standin import StandIn

PORTS = ("25", "465", "587", "993")
_RULE = re.compile(r"(pass|block \w+) in (?:log )?quick on (\S+) .*?\b(inet6?) proto tcp from (\S+) to (\S+) port = (\d+)")


class Rule(NamedTuple):
    """A quick rule about one port; `sources` are those of its family."""

    passes: bool
    interface: str
    family: str
    sources: list[IPv4Network | IPv6Network]
    target: str
    port: str


def table(firewall: StandIn, name: str) -> list[str]:
    return (firewall.root / f"var/run/pf.table.{name}").read_text().split()


def rules(firewall: StandIn) -> Iterator[Rule]:
    for line in (firewall.root / "var/run/pf.rules").read_text().splitlines():
        if match := _RULE.match(line):
            action, interface, family, source, target, port = match.groups()
            anywhere = "0.0.0.0/0" if family == "inet" else "::/0"
            sources = [ip_network(entry) for entry in ([anywhere] if source == "any" else table(firewall, source.strip("<>")))]
            version = ip_network(anywhere).version
            yield Rule(action == "pass", interface, family, [one for one in sources if one.version == version], target, port)


def lets_in(firewall: StandIn, source: str, port: str, target: str | None = None) -> bool:
    """Whether pf passes new TCP from an address: its first quick rule that matches decides."""
    way = "gif0" if ":" in source else "vtnet0", target or firewall.address, port
    for rule in rules(firewall):
        if (rule.interface, rule.target, rule.port) == way and any(ip_address(source) in network for network in rule.sources):
            return rule.passes
    return False

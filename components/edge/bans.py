"""Bans on the firewall: the table of refused addresses, who is never refused, their rules, and the cron job that loads the table.

Shapes are those of the agent (scripts/pfsense/bans.php).
"""

from typing import TypedDict

from components.listeners import LISTENERS
from components.mail.trust import own_networks
from components.settings.bans import Bans
from components.settings.site import Site

BANNED = "mailserver_banned"
NEVER = "mailserver_never_banned"
PORTS = "mailserver_ports"
ALIASES = (BANNED, NEVER, PORTS)
PATH = "/banned"
LOAD = f"/etc/rc.update_urltables now forceupdate {BANNED}"
MINUTES = 5

# The sign of a checked list, and when it was checked: an address of the documentation prefix whose last 32 bits are a Unix time.
# pfSense drops a rule whose list is empty, and touches a list's file when a download fails, so neither its being there nor its time says
# that it was loaded.
SIGN = "2001:db8::"

# No attacker on the Internet has one; behind a router that translates addresses, every client may have the router's.
PRIVATE = (
    *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)


class Alias(TypedDict):
    """`url` and `updatefreq` (days) are those of a table that is fetched."""

    type: str
    address: str
    url: str
    updatefreq: str
    descr: str


class Ban(TypedDict):
    """`overruled_by` is the rule in front of it that decides otherwise; none should."""

    type: str
    interface: str
    ipprotocol: str
    protocol: str
    source: str
    destination: str
    port: str
    disabled: str
    overruled_by: str
    descr: str


class CronJob(TypedDict):
    minute: str
    hour: str
    mday: str
    month: str
    wday: str
    who: str


def never_banned(site: Site, bans: Bans) -> list[str]:
    crowdsec = site.monitoring and site.monitoring.crowdsec
    return own_networks(site, *PRIVATE, *bans.allow, *(crowdsec.allow if crowdsec else ()))


def ban_aliases(site: Site) -> dict[str, Alias]:
    bans = site.edge.bans
    if bans is None:
        return {}
    ports = " ".join(str(listener.port) for listener in LISTENERS)
    return {
        BANNED: _alias("urltable", list_url(site, bans), "mail: banned addresses", url=list_url(site, bans), updatefreq="1"),
        NEVER: _alias("network", " ".join(never_banned(site, bans)), "mail: networks that are never banned"),
        PORTS: _alias("port", ports, "mail: ports that bans hold for"),
    }


def list_url(site: Site, bans: Bans) -> str:
    """Where the firewall fetches the checked list: a NodePort answers on every node."""
    nodes = site.cluster.nodes.values()
    node = next((node for node in nodes if node.state == "active"), next(iter(nodes)))
    host = f"[{node.address}]" if node.address.version == 6 else node.address
    return f"http://{host}:{bans.node_port}{PATH}"


def ban_rules(site: Site, target: str) -> dict[str, Ban]:
    """For each family, a rule that passes whom a list must not hit, and the one that blocks the list; `target` is the redirects'."""
    edge = site.edge
    if edge.bans is None:
        return {}
    paths = [("inet", edge.wan_interface, target)]
    if edge.ipv6_address is not None:
        paths.append(("inet6", edge.ipv6_interface or edge.wan_interface, str(edge.ipv6_address)))
    return {
        name: {
            "type": kind,
            "interface": interface,
            "ipprotocol": family,
            "protocol": "tcp",
            "source": source,
            "destination": destination,
            "port": PORTS,
            "disabled": "",
            "overruled_by": "",
            "descr": name,
        }
        for family, interface, destination in paths
        for kind, source in (("pass", NEVER), ("block", BANNED))
        for name in [_name(source, family)]
    }


def ban_rule_names() -> list[str]:
    return [_name(source, family) for family in ("inet", "inet6") for source in (NEVER, BANNED)]


def ban_jobs(site: Site) -> dict[str, CronJob]:
    """Cron jobs by command."""
    if site.edge.bans is None:
        return {}
    return {LOAD: {"minute": f"*/{MINUTES}", "hour": "*", "mday": "*", "month": "*", "wday": "*", "who": "root"}}


def _name(source: str, family: str) -> str:
    return source.replace("_", " ") + (" (IPv6)" if family == "inet6" else "")


def _alias(kind: str, address: str, descr: str, *, url: str = "", updatefreq: str = "") -> Alias:
    return {"type": kind, "address": address, "url": url, "updatefreq": updatefreq, "descr": descr}

"""Rules for bans at the firewall: a list that anyone on its way could change, ports that clash, senders that must not be banned."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from components.checks.finding import Area, Found
from components.settings.site import Site

AREA = Area[Site]("bans", "addresses that the firewall refuses")


@AREA.note("none", remedy="set edge.bans, and edge.ssh so that the firewall is managed")
def none(site: Site) -> Found:
    """Fail2ban is off, because behind HAProxy it would ban the firewall, and no list of attackers reaches the firewall."""
    if site.edge.bans is None:
        yield "edge.bans", "nothing bans attackers at the firewall: Fail2ban is off, and CrowdSec's decisions do not reach it"
    elif site.edge.access is None:
        yield "edge.ssh", "the firewall is not managed, so it does not refuse the addresses on the list of edge.bans"


@AREA.error("plain-http", remedy="write the list's https:// URL, or fetch it within the cluster")
def plain_http(site: Site) -> Found:
    """A list that comes over plain HTTP from the Internet can be changed on its way: to ban others, or no one."""
    url = urlsplit(str(site.edge.bans.url)) if site.edge.bans and site.edge.bans.url else None
    if url and url.scheme == "http" and not _within(url.hostname or ""):
        yield "edge.bans.url", f"fetches the list from {url.hostname} over plain HTTP"


def _within(host: str) -> bool:
    """Whether a host is on a private network by its address, or a Service by its name."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".svc", ".svc.cluster.local"))


@AREA.error("allows-all", remedy="name the networks that must not be banned")
def allows_all(site: Site) -> Found:
    """A rule for all addresses in front of the list would leave nothing to ban."""
    for network in site.edge.bans.allow if site.edge.bans else ():
        if network.prefixlen == 0:
            yield "edge.bans.allow", f"{network} is every address, so nothing would be banned"


@AREA.error("node-port", remedy="set edge.bans.node_port to a free NodePort")
def node_port(site: Site) -> Found:
    """The NodePort of the checked list is in the range of the API server, and no service's."""
    bans, (low, high) = site.edge.bans, site.cluster.node_port_range
    if bans is None:
        return
    if not low <= bans.node_port <= high:
        yield "edge.bans.node_port", f"{bans.node_port} is outside cluster.node_port_range {low}-{high}"
    for listener in site.listeners:
        if bans.node_port in (listener.node_port, listener.health_node_port, *(site.cluster.previous_node_ports(listener.name) or ())):
            yield "edge.bans.node_port", f"{bans.node_port} is already used by {listener.name}"


@AREA.warning(
    "probe-may-be-banned", remedy="list the networks that the probe's messages come from, such as those of the provider's SPF record"
)
def probe_may_be_banned(site: Site) -> Found:
    """The probe's messages come from its provider's servers, which send for others too: one of those others may get them banned."""
    if site.edge.bans and site.jobs.probe and not site.edge.bans.allow:
        yield "edge.bans.allow", "names no network, so a ban of the probe's provider would stop the probe's messages"


@AREA.warning("not-watched", remedy="set jobs.pushgateway")
def not_watched(site: Site) -> Found:
    """Whether lists are good and fetched is told through the Pushgateway only."""
    if site.edge.bans and site.jobs.pushgateway is None:
        yield "edge.bans", "without a Pushgateway no alert tells that a list was refused or never fetched"

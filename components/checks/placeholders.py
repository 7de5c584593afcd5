"""Rules for values that were copied from an example and never replaced."""

from collections.abc import Iterator
from ipaddress import ip_network

from components.checks.finding import Area, Found
from components.settings.site import Site

AREA = Area[Site]("placeholders", "example values that were never replaced")

# For use in documentation only: RFC 5737, RFC 3849, RFC 2606.
_NETWORKS = tuple(map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")))
_DOMAINS = (".example.org", ".example.com", ".example.net")


def _addresses(site: Site) -> Iterator[tuple[str, object]]:
    yield from ((f"cluster.nodes.{name}.address", node.address) for name, node in site.cluster.nodes.items())
    edge = site.edge
    yield from (("edge.address", edge.address), ("edge.wan_address", edge.wan_address), ("edge.ipv6_address", edge.ipv6_address))
    if edge.legacy:
        yield "edge.legacy.address", edge.legacy.address
    if site.dns:
        yield from ((f"dns.hosts.{name}", address) for name, host in site.dns.hosts.items() for address in host.addresses)
        yield from (("dns.web.addresses", address) for address in (site.dns.web.addresses if site.dns.web else ()))


@AREA.warning("address", remedy="replace it with your own", source="RFC 5737, RFC 3849")
def address(site: Site) -> Found:
    """An address that is reserved for documentation, in a production stack."""
    for setting, found in _addresses(site) if site.production else ():
        if not isinstance(found, str) and any(found in network for network in _NETWORKS if found):
            yield setting, f"{found} is reserved for documentation and never reachable"


@AREA.warning("domain", remedy="replace it with your own", source="RFC 2606")
def domain(site: Site) -> Found:
    """A domain that is reserved for documentation, in a production stack."""
    for name in site.domains if site.production else ():
        if f".{name}".endswith(_DOMAINS):
            yield f"domains.{name}", "is reserved for documentation and never reachable"


@AREA.warning("host-key", remedy="write the firewall's own: `ssh-keyscan -t ed25519 <firewall>` prints it")
def host_key(site: Site) -> Found:
    """A host key of zeros belongs to no firewall. Until it is replaced nothing connects to the firewall, and nothing changes there."""
    if site.edge.ssh and site.edge.access is None:
        yield "edge.ssh.host_key", "is a placeholder, so the firewall is left alone: HAProxy and the redirects are only rendered"


@AREA.error("zone-id", remedy="copy it from Cloudflare's dashboard (Overview), or remove the setting to publish elsewhere")
def zone_id(site: Site) -> Found:
    """A zone id of zeros belongs to no zone; in a stack that has published its records it would plan to delete them."""
    for name, zone in site.dns.zones.items() if site.dns else ():
        if zone.cloudflare and not zone.cloudflare.strip("0"):
            yield f"dns.zones.{name}.cloudflare", "is a placeholder"

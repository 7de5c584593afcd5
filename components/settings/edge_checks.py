"""Rules between the firewall's settings and those of the other areas."""

from collections.abc import Iterator

from components.settings.site import Site


def edge_problems(site: Site) -> Iterator[str]:
    """`setting: what is wrong`, relative to the site."""
    firewall = site.firewall
    for setting, address, version in (
        ("firewall.address", firewall.address, 4),
        ("firewall.wan_address", firewall.wan_address, 4),
        ("firewall.ipv6_address", firewall.ipv6_address, 6),
        ("legacy.address", site.legacy and site.legacy.address, 4),
    ):
        if not isinstance(address, str) and address is not None and address.version != version:
            yield f"{setting}: {address} must be an IPv{version} address; the redirects are IPv4, and IPv6 reaches HAProxy directly"
    if all(node.state != "active" for node in site.cluster.nodes.values()):
        yield "cluster.nodes: none is active, so HAProxy would have nowhere to send mail; leave one in state active"
    if firewall.target == "legacy" and site.legacy is None:
        yield "firewall.target: legacy needs `legacy.address`, the LoadBalancer Service that the redirects would lead to"
    if firewall.remove_legacy_alias and (site.legacy is not None or firewall.target == "legacy"):
        yield "firewall.remove_legacy_alias: needs `legacy: null` and target haproxy; the alias is what legacy redirects lead to"
    if firewall.ipv6_interface is not None and firewall.ipv6_address is None:
        yield "firewall.ipv6_interface: means nothing without ipv6_address"

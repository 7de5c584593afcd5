"""Rules between the firewall's settings and those of the other areas."""

from collections.abc import Iterator

from components.settings.site import Site


def edge_problems(site: Site) -> Iterator[str]:
    """`setting: what is wrong`, relative to the site."""
    edge = site.edge
    for setting, address, version in (
        ("edge.address", edge.address, 4),
        ("edge.wan_address", edge.wan_address, 4),
        ("edge.ipv6_address", edge.ipv6_address, 6),
        ("edge.legacy.address", edge.legacy and edge.legacy.address, 4),
    ):
        if not isinstance(address, str) and address is not None and address.version != version:
            yield f"{setting}: {address} must be an IPv{version} address; the redirects are IPv4, and IPv6 reaches HAProxy directly"
    if all(node.state != "active" for node in site.cluster.nodes.values()):
        yield "cluster.nodes: none is active, so HAProxy would have nowhere to send mail; leave one in state active"
    if edge.target == "legacy" and edge.legacy is None:
        yield "edge.target: legacy needs `edge.legacy.address`, the LoadBalancer Service that the redirects would lead to"
    if edge.remove_legacy_alias and (edge.legacy is not None or edge.target == "legacy"):
        yield "edge.remove_legacy_alias: needs `edge.legacy: null` and target haproxy; the alias is what legacy redirects lead to"
    if edge.ipv6_interface is not None and edge.ipv6_address is None:
        yield "edge.ipv6_interface: means nothing without ipv6_address"

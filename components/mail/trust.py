"""Who may talk to the mail server, and whose word about a client's address it takes."""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from components.settings.site import Site

Net = IPv4Network | IPv6Network


def host_network(address: object) -> Net:
    return ip_network(str(address))


def edge_networks(site: Site) -> tuple[Net, ...]:
    """The networks that HAProxy's connections and checks come from, as the pod sees them, without duplicates.

    With `externalTrafficPolicy: Cluster` the node that takes a connection passes it on under an address of its own, unless the
    pod runs on that very node: there the firewall's address is kept. With `Local` the firewall's address is all there is.
    """
    return (host_network(site.edge.address),) if site.cluster.traffic_policy == "Local" else forwarded_networks(site)


def forwarded_networks(site: Site) -> tuple[Net, ...]:
    """Where a connection from the firewall may come from, by any node, as the pod sees it."""
    return tuple(dict.fromkeys(_forwarded_networks(site)))


def _forwarded_networks(site: Site) -> Iterator[Net]:
    cluster = site.cluster
    yield host_network(site.edge.address)
    for node in cluster.nodes.values():
        yield host_network(node.address)
    if cluster.overlay_network and any(node.tunnel_address is None for node in cluster.nodes.values()):
        # Mail through three of four nodes would be refused without their tunnel addresses; preview warns of the price.
        yield from cluster.pod_networks
    elif cluster.overlay_network:
        for node in cluster.nodes.values():
            yield host_network(node.tunnel_address)


def unknown_tunnels(site: Site) -> list[str]:
    """Nodes whose tunnel address matters and is not in the settings."""
    if not site.cluster.overlay_network or site.cluster.traffic_policy == "Local":
        return []
    return [name for name, node in site.cluster.nodes.items() if node.tunnel_address is None]


def trusted_relay_networks(site: Site) -> tuple[Net, ...]:
    return tuple(host_network(address) for relay in site.mail.trusted_relays for address in relay.addresses)


def own_networks(site: Site, *more: object) -> list[str]:
    """Who must never be banned: pods, nodes, firewall, mail hosts, trusted relays and `more`, without overlaps."""
    networks = [ip_network(str(network)) for network in (*more, *_own_networks(site))]
    ipv4 = collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    ipv6 = collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
    return [str(network) for network in (*ipv4, *ipv6)]


def _own_networks(site: Site) -> Iterator[object]:
    edge = site.edge
    yield from site.cluster.pod_networks
    for node in site.cluster.nodes.values():
        yield node.address
    yield from (address for address in (edge.address, edge.wan_address, edge.ipv6_address) if address and not isinstance(address, str))
    yield from site.public_addresses
    yield from trusted_relay_networks(site)

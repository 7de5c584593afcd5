"""What a preview says of the firewall."""

from collections.abc import Iterator

from components.settings.site import KEY, Site


def edge_warnings(site: Site) -> Iterator[str]:
    resting = [f"{name} ({node.state})" for name, node in site.cluster.nodes.items() if node.state != "active"]
    if resting:
        yield f"{KEY}.cluster.nodes: HAProxy gives no new connection to {', '.join(resting)}; set state back to active when that is over"
    if site.edge.target == "legacy":
        yield (
            f"{KEY}.edge.target: legacy: mail from the world goes to {site.edge.legacy and site.edge.legacy.address} and past HAProxy; "
            "IPv6 stays with HAProxy, there is no other way for it"
        )


def edge_notes(site: Site) -> Iterator[str]:
    if site.edge.ssh is None:
        yield "the firewall is left as it is: edge.ssh is not set"
    else:
        yield "firewall: `make edge-plan STACK=…` shows what would change there; a preview knows what Pulumi last saw, unless REFRESH=1"

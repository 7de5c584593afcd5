"""Rules for the edge: addresses, redirects, nodes in HAProxy's pools."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.checks.finding import Area, Found
from components.settings.site import Site

AREA = Area[Site]("edge", "pfSense, HAProxy and the redirects")


@AREA.error("address-family", remedy="the redirects are IPv4; IPv6 reaches HAProxy directly")
def address_family(site: Site) -> Found:
    """Each address of the edge is of the family that its use has."""
    edge = site.edge
    for setting, address, version in (
        ("edge.address", edge.address, 4),
        ("edge.wan_address", edge.wan_address, 4),
        ("edge.ipv6_address", edge.ipv6_address, 6),
        ("edge.legacy.address", edge.legacy and edge.legacy.address, 4),
    ):
        if not isinstance(address, str) and address is not None and address.version != version:
            yield setting, f"{address} must be an IPv{version} address"


@AREA.error("no-active-node", remedy="leave one in the state active")
def no_active_node(site: Site) -> Found:
    """HAProxy needs a server to send mail to."""
    if all(node.state != "active" for node in site.cluster.nodes.values()):
        yield "cluster.nodes", "no node is active, so HAProxy would have no server"


@AREA.warning("node-not-active", remedy="set state back to active afterwards")
def node_not_active(site: Site) -> Found:
    """A node that is drained or taken out gets no new connections."""
    for name, node in site.cluster.nodes.items():
        if node.state != "active":
            yield f"cluster.nodes.{name}.state", f"{node.state}: HAProxy gives this node no new connections"


@AREA.error("legacy-without-address", remedy="set edge.legacy.address, the LoadBalancer Service that the redirects would point to")
def legacy_without_address(site: Site) -> Found:
    """The target `legacy` needs a Service to point to."""
    if site.edge.target == "legacy" and site.edge.legacy is None:
        yield "edge.target", "is legacy, and edge.legacy is not set"


@AREA.error("alias-in-use", remedy="set `edge.legacy: null` and target haproxy first")
def alias_in_use(site: Site) -> Found:
    """The alias of the legacy address cannot be removed while redirects may still point to it."""
    edge = site.edge
    if edge.remove_legacy_alias and (edge.legacy is not None or edge.target == "legacy"):
        yield "edge.remove_legacy_alias", "the legacy path is still configured"


@AREA.error("interface-without-address", remedy="set edge.ipv6_address too, or remove it")
def interface_without_address(site: Site) -> Found:
    """The IPv6 interface is only where the IPv6 address is reached."""
    if site.edge.ipv6_interface is not None and site.edge.ipv6_address is None:
        yield "edge.ipv6_interface", "has no effect unless ipv6_address is set"


@AREA.warning("target-legacy", remedy="set it back to haproxy when the new path works")
def target_legacy(site: Site) -> Found:
    """Rolled back: the redirects bypass HAProxy. IPv6 stays with HAProxy, because there is no other path for it."""
    if site.edge.target == "legacy" and site.edge.legacy:
        yield "edge.target", f"mail from the Internet goes to {site.edge.legacy.address} and past HAProxy; IPv6 stays with HAProxy"


@AREA.note("not-managed", remedy="set edge.ssh to have it managed")
def not_managed(site: Site) -> Found:
    """Without SSH access the firewall is only rendered."""
    if site.edge.ssh is None:
        yield "edge.ssh", "is not set, so the firewall is left alone"


@dataclass(frozen=True)
class NodePortMove:
    """NodePorts by service name, as declared last and now: the pair in use (mail, checks), then a previous pair if any."""

    before: Mapping[str, list[str]]
    after: Mapping[str, list[str]]


MOVES = Area[NodePortMove]("node-ports", "changes of NodePorts in a preview of a live stack")


@MOVES.error("in-use")
def in_use(move: NodePortMove) -> Found:
    """The Service changes before HAProxy does, so a NodePort that HAProxy still uses would close."""
    for service, ports in move.before.items():
        used = ports[:2]
        if not set(used) <= set(move.after.get(service, used)):
            pair = ", ".join(used)
            remedy = f"add `previous: [{pair}]` for one `up` (a pair changes as a whole)"
            yield f"cluster.node_ports.{service}", f"HAProxy still uses {pair}, which would close before it moves on", remedy

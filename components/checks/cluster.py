"""Rules for the cluster: nodes, tunnel addresses, traffic policy."""

from components.checks.finding import Area, Found
from components.mail.trust import unknown_tunnels
from components.settings.site import Site

AREA = Area[Site]("cluster", "the Kubernetes cluster and its nodes")

_TUNNELS = "set each node's tunnel_address; docs/runbooks/deploy.md shows how to read them"


@AREA.error("address-used-twice", remedy="correct one of them")
def address_used_twice(site: Site) -> Found:
    """Two nodes with one address: HAProxy would send one node the connections of both."""
    seen: dict[object, str] = {}
    for name, node in site.cluster.nodes.items():
        if (other := seen.setdefault(node.address, name)) != name:
            yield f"cluster.nodes.{name}.address", f"{node.address} is already the address of {other}"


@AREA.error("tunnel-outside-pod-networks", remedy="correct the address, or add its network")
def tunnel_outside_pod_networks(site: Site) -> Found:
    """A tunnel address is an address of the pod network; any other one is a mistake, and would admit a foreign host."""
    for name, node in site.cluster.nodes.items():
        if node.tunnel_address and not any(node.tunnel_address in network for network in site.cluster.pod_networks):
            yield f"cluster.nodes.{name}.tunnel_address", f"{node.tunnel_address} is not in cluster.pod_networks"


@AREA.error("pod-network-admitted", remedy=_TUNNELS, consent=True)
def pod_network_admitted(site: Site) -> Found:
    """In production without tunnel addresses, every pod may reach the PROXY ports and claim any client address."""
    if site.production and (nodes := unknown_tunnels(site)):
        yield "cluster.nodes", f"no tunnel_address for {', '.join(nodes)}, so any pod can reach the PROXY ports and forge a client address"


@AREA.warning("no-tunnel-addresses", remedy=_TUNNELS)
def no_tunnel_addresses(site: Site) -> Found:
    """The same outside production, where it is no error."""
    if not site.production and (nodes := unknown_tunnels(site)):
        yield "cluster.nodes", f"no tunnel_address for {', '.join(nodes)}, so any pod can reach the PROXY ports and forge a client address"


@AREA.note("any-node", remedy="block the NodePorts there for all but the firewall, or set Local")
def any_node(site: Site) -> Found:
    """With the traffic policy Cluster any node takes mail, and passes a connection on under an address of its own."""
    if site.cluster.traffic_policy == "Cluster":
        yield (
            "cluster.traffic_policy",
            "Cluster: a host on the nodes' network can reach the PROXY listeners through another node and forge a client address",
        )


@AREA.note("one-node")
def one_node(site: Site) -> Found:
    """With the traffic policy Local only the pod's node takes mail, and the firewall is the only source that is admitted."""
    if site.cluster.traffic_policy == "Local":
        yield "cluster.traffic_policy", "Local: only the pod's node takes mail, and only from the firewall"


@AREA.warning("unprotected", remedy="remove the entries that you do not mean to take out")
def unprotected(site: Site) -> Found:
    """Objects that the next `up` or `destroy` may delete, in a production stack."""
    if site.production and site.unprotected:
        yield "unprotected", f"the next up or destroy may delete {', '.join(site.unprotected)}"


@AREA.note("uid-unknown", remedy="set it: kubectl get namespace kube-system -o jsonpath='{.metadata.uid}'")
def uid_unknown(site: Site) -> Found:
    """A context's name can point to another cluster from one day to the next; the uid of kube-system tells them apart."""
    if site.cluster.context and not site.cluster.uid:
        yield "cluster.uid", f"is not set, so nothing notices when context {site.cluster.context} points to another cluster"

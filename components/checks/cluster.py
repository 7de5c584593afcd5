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
    """The same outside production, where it is only a warning."""
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


_NOT_ADOPTABLE = {
    "ConfigMap": "its content would be written into the plan and the state, and a predecessor's holds passwords",
    "Secret": "its content would be written into the plan and the state",
    "ExternalSecret": "an import does not see what a custom resource's former owner had set, and would leave it in place",
}


@AREA.error("not-adoptable")
def not_adoptable(site: Site) -> Found:
    """Objects of these kinds are not taken over: the program creates its own."""
    for entry in site.adopt:
        kind, _, name = entry.partition("/")
        if kind in _NOT_ADOPTABLE:
            yield (
                "adopt",
                f"{entry}: {_NOT_ADOPTABLE[kind]}",
                "remove the entry, and if the program's own has this name, the object: "
                f"kubectl -n {site.namespace} delete --cascade=orphan {kind.lower()} {name}",
            )


@AREA.warning("unprotected", remedy="remove what you do not mean to take out")
def unprotected(site: Site) -> Found:
    """Objects that hold or carry mail and that the next `up` or `destroy` may delete."""
    if site.production and site.unprotected:
        yield "unprotected", f"the next up or destroy may delete {', '.join(site.unprotected)}"


@AREA.note("no-uid", remedy="set cluster.uid: kubectl get namespace kube-system -o jsonpath={.metadata.uid}")
def no_uid(site: Site) -> Found:
    """A context of a kubeconfig can be redirected to another cluster; the uid of the cluster cannot."""
    if site.cluster.context and not site.cluster.uid:
        yield "cluster.uid", f"is not set, so nothing notices when context {site.cluster.context} points to another cluster"

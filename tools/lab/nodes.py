"""Kubernetes' part of the inbound path, as kube-proxy does it with `externalTrafficPolicy: Cluster`: rules in the firewall's host."""

import socket

from components.settings.site import Site
from tools.lab.hosts import Host
from tools.lab.paths import POD

CLOSED_PORT = 1  # nothing listens there
SILENT_PORT = 9  # where a node that hangs takes connections and never says a word


class Nodes:
    """Every node's NodePorts forward to the pod, which is on the first node. A node can be made to die in three ways."""

    def __init__(self, host: Host, site: Site) -> None:
        self.host, self.site = host, site
        self._silent: socket.socket | None = None
        self.names = list(site.cluster.nodes)
        self.home = self.names[0]
        lines = ["table ip nodes {", "  chain faults { type filter hook output priority -150; }"]
        lines += ["  chain elsewhere { type nat hook output priority -110; }"]
        lines += ["  chain ports { type nat hook output priority -100;"]
        for node in site.cluster.nodes.values():
            for listener in site.listeners:
                for entrance, target in ((listener.node_port, listener.proxy_port), (listener.health_node_port, listener.port)):
                    lines.append(f"    ip daddr {node.address} tcp dport {entrance} dnat to {POD}:{target}")
        lines += ["  }", "  chain sources { type nat hook postrouting priority 100;"]
        lines += [
            f"    ct original ip daddr {node.address} ip daddr {POD} snat to {self.seen_as(name)}"
            for name, node in site.cluster.nodes.items()
            if name != self.home
        ]
        host.run("nft", "-f", "-", stdin="\n".join([*lines, "  }", "}"]))

    def seen_as(self, name: str) -> str:
        """The source address of what comes through a node: the firewall's on the pod's own node, the tunnel's from elsewhere."""
        node = self.site.cluster.nodes[name]
        return str(self.site.edge.address if name == self.home else node.tunnel_address or node.address)

    def _fault(self, name: str, chain: str, verdict: str) -> None:
        address = str(self.site.cluster.nodes[name].address)
        self.host.run("nft", "add", "rule", "ip", "nodes", chain, "ip", "daddr", address, *verdict.split())

    def refuse(self, name: str) -> None:
        """The process is gone: a new connection is answered with a reset. (A `reject` rule's own does not reach a socket of its host.)"""
        self._fault(name, "elsewhere", f"meta l4proto tcp dnat to 127.0.0.1:{CLOSED_PORT}")

    def black_hole(self, name: str) -> None:
        """The machine is gone: no packet is answered."""
        self._fault(name, "faults", "drop")

    def hang(self, name: str) -> None:
        """The machine takes connections and says no word."""
        if self._silent is None:
            with self.host.network():
                self._silent = socket.create_server(("127.0.0.1", SILENT_PORT), backlog=1000)
        self._fault(name, "elsewhere", f"meta l4proto tcp dnat to 127.0.0.1:{SILENT_PORT}")

    def heal(self) -> None:
        for chain in ("faults", "elsewhere"):
            self.host.run("nft", "flush", "chain", "ip", "nodes", chain)

"""Where the mail system runs: the Kubernetes cluster, its networks, and what is installed in it."""

from typing import Literal

from pydantic import Field, model_validator

from components.listeners import LISTENERS
from components.settings.types import Address, Model, Network, ObjectName, Port


class Node(Model):
    """A worker that HAProxy sends connections to."""

    address: Address = Field(description="the node's address on the firewall's side; its NodePorts are reached here")
    tunnel_address: Address | None = Field(
        default=None,
        description="the node's address inside the pod network (Calico IPIP/VXLAN, flannel VXLAN), "
        "which the pod sees when another node passes a connection on",
    )
    state: Literal["active", "drain", "out"] = Field(
        default="active", description="drain: HAProxy gives it no new connection but goes on checking it. out: disabled, not checked either"
    )


class NodePorts(Model):
    """The two NodePorts of one mail service."""

    proxy: Port = Field(description="leads HAProxy's traffic to the PROXY listener")
    health: Port = Field(description="leads HAProxy's checks to the stock listener; a check on a PROXY listener kills smtpd")
    previous: tuple[Port, Port] | None = Field(
        default=None, description="both ports before a change, proxy first; they stay open until HAProxy uses the new ones"
    )


ServiceName = Literal["smtp", "submissions", "submission", "imaps"]


class Cluster(Model):
    """One Kubernetes cluster, or a folder that its manifests are written to."""

    context: str | None = Field(default=None, description="context of the kubeconfig (KUBECONFIG or ~/.kube/config) to deploy to")
    render_to: str | None = Field(default=None, description="folder for YAML manifests instead of a cluster")
    nodes: dict[ObjectName, Node] = Field(min_length=1, description="the workers in HAProxy's pools, by node name")
    pod_networks: tuple[Network, ...] = Field(min_length=1, description="where pods and tunnel addresses live")
    overlay_network: bool = Field(
        default=True, description="whether the CNI wraps traffic between nodes, so that a tunnel address is the source the pod sees"
    )
    traffic_policy: Literal["Cluster", "Local"] = Field(
        default="Cluster",
        description="Cluster: any node takes mail. Local: only the pod's node does, and the firewall is the only source the policy admits",
    )
    node_port_range: tuple[Port, Port] = Field(default=(30000, 32767), description="the API server's --service-node-port-range")
    node_ports: dict[ServiceName, NodePorts] = Field(default={}, description="other NodePorts than those of the table, by service name")
    external_secrets: Literal["v1", "v1beta1"] | None = Field(
        default="v1", description="API version of external-secrets in the cluster; null when it is not installed"
    )
    workload_annotations: dict[str, str] = Field(
        default={}, description="annotations of every Deployment and CronJob, such as those that keep an image updater away"
    )
    reloader: bool = Field(default=True, description="stakater/Reloader is installed and restarts the pod when a Secret changes")
    autoresizer: bool = Field(default=False, description="topolvm/pvc-autoresizer is installed and grows the mail volume")

    def previous_node_ports(self, service: str) -> tuple[int, int] | None:
        ports = self.node_ports.get(service)  # pyright: ignore[reportArgumentType]
        return ports.previous if ports else None

    @model_validator(mode="after")
    def _one_destination(self) -> "Cluster":
        if (self.context is None) == (self.render_to is None):
            raise ValueError("context: set either it or render_to")
        return self

    @model_validator(mode="after")
    def _node_ports_fit(self) -> "Cluster":
        low, high = self.node_port_range
        owner: dict[int, str] = {}
        for listener in LISTENERS:
            ports = self.node_ports.get(listener.name)  # pyright: ignore[reportArgumentType]
            pair = (ports.proxy, ports.health) if ports else (listener.node_port, listener.health_node_port)
            previous = ports.previous if ports and ports.previous else ()
            kinds = ("proxy", "health", "previous.0", "previous.1")
            for kind, port in zip(kinds, (*pair, *previous), strict=False):
                setting = f"node_ports.{listener.name}.{kind}"
                if not low <= port <= high:
                    raise ValueError(f"{setting}: {port} is outside node_port_range {low}-{high}")
                if port in owner:
                    raise ValueError(f"{setting}: {port} is taken by {owner[port]}; every NodePort stands once")
                owner[port] = setting
        return self

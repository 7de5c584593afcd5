"""Where the mail system runs: the Kubernetes cluster, its networks, and what is installed in it."""

from typing import Literal

from pydantic import Field, model_validator

from components.listeners import LISTENERS
from components.settings.types import Address, Model, Network, ObjectName, Port, ServiceName


class Node(Model):
    """A worker node that HAProxy sends connections to."""

    address: Address = Field(
        description="address of the node as seen from the firewall; its NodePorts are reached there", examples=["192.0.2.11"]
    )
    tunnel_address: Address | None = Field(
        default=None,
        description="address of the node inside the pod network (Calico IPIP or VXLAN, flannel VXLAN): "
        "the source that the pod sees when another node forwards a connection",
        examples=["10.244.1.0"],
    )
    state: Literal["active", "drain", "out"] = Field(
        default="active", description="drain: HAProxy opens no new connection to it but keeps checking it; out: disabled and not checked"
    )


class NodePorts(Model):
    """The two NodePorts of one mail service."""

    proxy: Port = Field(description="forwards HAProxy's traffic to the PROXY listener", examples=[31125])
    health: Port = Field(
        description="forwards HAProxy's checks to the stock listener; a check on a PROXY listener would kill smtpd", examples=[31145]
    )
    previous: tuple[Port, Port] | None = Field(
        default=None,
        description="both ports before a change, proxy first; they stay open until HAProxy uses the new ones",
        examples=[[30125, 30145]],
    )


class Cluster(Model):
    """One Kubernetes cluster, or a directory that its manifests are written to. Set exactly one of `context` and `render_to`."""

    context: str | None = Field(
        default=None, description="kubeconfig context to deploy to (KUBECONFIG or ~/.kube/config)", examples=["admin@home"]
    )
    uid: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        description="uid of the cluster's Namespace kube-system, the same under any context; another one replaces every object",
        examples=["5a3c1f7e-2b40-4c56-9d1e-0f6a7b8c9d10"],
    )
    render_to: str | None = Field(
        default=None, description="directory that manifests are written to instead of a cluster", examples=["build/manifests"]
    )
    nodes: dict[ObjectName, Node] = Field(
        min_length=1,
        description="the worker nodes in HAProxy's pools, by node name",
        examples=[{"worker1": {"address": "192.0.2.11", "tunnel_address": "10.244.1.0"}}],
    )
    pod_networks: tuple[Network, ...] = Field(
        min_length=1, description="networks of the pods and tunnel addresses", examples=[["10.244.0.0/16"]]
    )
    overlay_network: bool = Field(
        default=True,
        description="whether the CNI encapsulates traffic between nodes, so that the pod sees a tunnel address as the source",
    )
    traffic_policy: Literal["Cluster", "Local"] = Field(
        default="Cluster",
        description="externalTrafficPolicy. Cluster: every node accepts mail; "
        "Local: only the pod's node does, and the firewall is the only source that the NetworkPolicy admits",
    )
    node_port_range: tuple[Port, Port] = Field(default=(30000, 32767), description="--service-node-port-range of the API server")
    node_ports: dict[ServiceName, NodePorts] = Field(
        default={},
        description="NodePorts other than the built-in ones, by service name",
        examples=[{"smtp": {"proxy": 31125, "health": 31145}}],
    )
    external_secrets: Literal["v1", "v1beta1"] | None = Field(
        default="v1", description="API version of external-secrets in the cluster; null: not installed"
    )
    workload_annotations: dict[str, str] = Field(
        default={}, description="annotations of every Deployment and CronJob, such as those that keep an image updater away"
    )
    workload_labels: dict[str, str] = Field(
        default={}, description="labels of every Deployment and CronJob, such as those that policies of the cluster choose by"
    )
    namespace_labels: dict[str, str] = Field(default={}, description="labels of the Namespace that policies of the cluster choose by")
    reloader: bool = Field(default=True, description="stakater/Reloader is installed and restarts the pod when a Secret changes")
    autoresizer: bool = Field(default=False, description="topolvm/pvc-autoresizer is installed and grows the mail volume")

    def previous_node_ports(self, service: str) -> tuple[int, int] | None:
        ports = self.node_ports.get(service)
        return ports.previous if ports else None

    @model_validator(mode="after")
    def _one_destination(self) -> "Cluster":
        if (self.context is None) == (self.render_to is None):
            raise ValueError("context: set exactly one of context and render_to")
        return self

    @model_validator(mode="after")
    def _node_ports_fit(self) -> "Cluster":
        low, high = self.node_port_range
        owner: dict[int, str] = {}
        for listener in LISTENERS:
            ports = self.node_ports.get(listener.name)
            pair = (ports.proxy, ports.health) if ports else (listener.node_port, listener.health_node_port)
            previous = ports.previous if ports and ports.previous else ()
            kinds = ("proxy", "health", "previous.0", "previous.1")
            for kind, port in zip(kinds, (*pair, *previous), strict=False):
                setting = f"node_ports.{listener.name}.{kind}"
                if not low <= port <= high:
                    raise ValueError(f"{setting}: {port} is outside node_port_range {low}-{high}")
                if port in owner:
                    raise ValueError(f"{setting}: {port} is already used by {owner[port]}; every NodePort must be unique")
                owner[port] = setting
        return self

"""The Services: stock ports inside the cluster, PROXY ports for the edge, and the legacy LoadBalancer for a rollback."""

from typing import Any

import pulumi_kubernetes as k8s

from components.base import NO_WAIT, Component
from components.listeners import MANAGESIEVE_PORT
from components.names import LEGACY_SERVICE, MAIL_SERVER, PROXY_SERVICE, SELECTOR


def cluster_service(component: Component) -> k8s.core.v1.Service:
    """`mailserver`: 25, 465, 587 and 993 without PROXY, for pods; 4190 for the webmail."""
    ports = _stock_ports(component)
    if component.site.managesieve:
        ports.append(k8s.core.v1.ServicePortArgs(name="sieve", protocol="TCP", port=MANAGESIEVE_PORT, target_port=MANAGESIEVE_PORT))
    return _service(component, MAIL_SERVER, type="ClusterIP", ports=ports)


def proxy_service(component: Component) -> k8s.core.v1.Service:
    """`mailserver-proxy`: NodePorts to the PROXY listeners, and beside each one to its stock listener for health checks."""
    ports = []
    for listener in component.site.listeners:
        name = listener.proxy_port_name
        ports.append(
            k8s.core.v1.ServicePortArgs(
                name=name, protocol="TCP", port=listener.port, target_port=listener.proxy_port, node_port=listener.node_port
            )
        )
        ports.append(
            k8s.core.v1.ServicePortArgs(
                name=name.replace("proxy", "check"),
                protocol="TCP",
                port=listener.health_service_port,
                target_port=listener.port,
                node_port=listener.health_node_port,
            )
        )
    ports += _previous_ports(component)
    return _service(component, PROXY_SERVICE, type="NodePort", external_traffic_policy=component.site.cluster.traffic_policy, ports=ports)


def _previous_ports(component: Component) -> list[k8s.core.v1.ServicePortArgs]:
    """NodePorts that are about to go: open beside the new ones, so that mail finds one whichever HAProxy still uses."""
    return [
        k8s.core.v1.ServicePortArgs(
            name=f"{listener.proxy_port_name}-{kind}",
            protocol="TCP",
            port=node_port,  # unused, but it must differ from every other port of the Service
            target_port=target,
            node_port=node_port,
        )
        for listener in component.site.listeners
        if (previous := component.site.cluster.previous_node_ports(listener.name))
        for kind, node_port, target in (("old", previous[0], listener.proxy_port), ("oldcheck", previous[1], listener.port))
    ]


def legacy_service(component: Component) -> k8s.core.v1.Service | None:
    """`mailserver-legacy`: the LoadBalancer that keeps client addresses by itself, while the settings ask for it."""
    legacy = component.site.edge.legacy
    if legacy is None:
        return None
    return _service(
        component,
        LEGACY_SERVICE,
        annotations={"metallb.io/loadBalancerIPs": str(legacy.address)},
        type="LoadBalancer",
        external_traffic_policy="Local",
        ports=_stock_ports(component),
    )


def _stock_ports(component: Component) -> list[k8s.core.v1.ServicePortArgs]:
    return [
        k8s.core.v1.ServicePortArgs(name=s.port_name, protocol="TCP", port=s.port, target_port=s.port) for s in component.site.listeners
    ]


def _service(component: Component, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> k8s.core.v1.Service:
    # No Service waits: the Deployment alone decides readiness, and each wait costs ten seconds.
    return k8s.core.v1.Service(
        component.named(f"service-{name}"),
        metadata=component.metadata(name, labels=SELECTOR, annotations=NO_WAIT | (annotations or {})),
        spec=k8s.core.v1.ServiceSpecArgs(selector=SELECTOR, **spec),
        opts=component.child("Service", name),
    )

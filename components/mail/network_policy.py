"""The NetworkPolicy of the mail pod: PROXY ports for the edge alone, stock ports for pods and health checks."""

import pulumi_kubernetes as k8s

from components.base import Component
from components.listeners import MANAGESIEVE_PORT
from components.mail.trust import Net, edge_networks, host_network
from components.names import MAIL_SERVER, SELECTOR, WEBMAIL_SELECTOR
from components.pods import JOB_LABEL


def ingress_policy(component: Component) -> k8s.networking.v1.NetworkPolicy:
    """Everything that is not listed is refused: plain IMAP, for one, listens on every address."""
    site = component.site
    edge = [_from_network(network) for network in edge_networks(site)]
    stock = [*_clients(site.mail.allowed_namespaces), *edge]
    if site.edge.legacy:
        stock = [_from_network(host_network("0.0.0.0/0")), *_clients(site.mail.allowed_namespaces)]
    return k8s.networking.v1.NetworkPolicy(
        component.named("ingress-policy"),
        metadata=component.metadata(MAIL_SERVER),
        spec=k8s.networking.v1.NetworkPolicySpecArgs(
            pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=SELECTOR),
            policy_types=["Ingress"],
            ingress=[
                _rule([listener.proxy_port for listener in site.listeners], edge),
                _rule([listener.port for listener in site.listeners], stock),
                *([_rule([MANAGESIEVE_PORT], [_WEBMAIL])] if site.managesieve else []),
            ],
        ),
        opts=component.child("NetworkPolicy", MAIL_SERVER),
    )


_WEBMAIL = k8s.networking.v1.NetworkPolicyPeerArgs(pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=WEBMAIL_SELECTOR))


def _clients(namespaces: tuple[str, ...] | None) -> list[k8s.networking.v1.NetworkPolicyPeerArgs]:
    if namespaces is None:
        return [k8s.networking.v1.NetworkPolicyPeerArgs(namespace_selector=k8s.meta.v1.LabelSelectorArgs())]
    selector = k8s.meta.v1.LabelSelectorRequirementArgs(key="kubernetes.io/metadata.name", operator="In", values=list(namespaces))
    return [
        k8s.networking.v1.NetworkPolicyPeerArgs(namespace_selector=k8s.meta.v1.LabelSelectorArgs(match_expressions=[selector])),
        k8s.networking.v1.NetworkPolicyPeerArgs(pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=JOB_LABEL)),  # our own jobs
        _WEBMAIL,
    ]


def _from_network(network: Net) -> k8s.networking.v1.NetworkPolicyPeerArgs:
    return k8s.networking.v1.NetworkPolicyPeerArgs(ip_block=k8s.networking.v1.IPBlockArgs(cidr=str(network)))


def _rule(ports: list[int], sources: list[k8s.networking.v1.NetworkPolicyPeerArgs]) -> k8s.networking.v1.NetworkPolicyIngressRuleArgs:
    return k8s.networking.v1.NetworkPolicyIngressRuleArgs(
        ports=[k8s.networking.v1.NetworkPolicyPortArgs(protocol="TCP", port=port) for port in ports], from_=sources
    )

"""The NetworkPolicy of Roundcube's pod: the Ingress controller's requests, and our own jobs, which ask whether it runs."""

import pulumi_kubernetes as k8s

from components.base import Component
from components.names import WEBMAIL, WEBMAIL_SELECTOR
from components.pods import JOB_LABEL
from components.settings.webmail import Webmail
from components.webmail import image


def ingress_policy(component: Component, webmail: Webmail) -> k8s.networking.v1.NetworkPolicy:
    """Any other client of the Service would be past the login in front of it. The kubelet's probes need no rule."""
    return k8s.networking.v1.NetworkPolicy(
        component.named("ingress-policy"),
        metadata=component.metadata(WEBMAIL, labels=WEBMAIL_SELECTOR),
        spec=k8s.networking.v1.NetworkPolicySpecArgs(
            pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=WEBMAIL_SELECTOR),
            policy_types=["Ingress"],
            ingress=[
                k8s.networking.v1.NetworkPolicyIngressRuleArgs(
                    ports=[k8s.networking.v1.NetworkPolicyPortArgs(protocol="TCP", port=image.port(webmail))], from_=_sources(webmail)
                )
            ],
        ),
        opts=component.child("NetworkPolicy", WEBMAIL),
    )


def _sources(webmail: Webmail) -> list[k8s.networking.v1.NetworkPolicyPeerArgs]:
    ingress = webmail.ingress
    namespace = {"kubernetes.io/metadata.name": ingress.controller_namespace} if ingress.controller_namespace else None
    labels = k8s.meta.v1.LabelSelectorArgs(match_labels=ingress.controller_labels) if ingress.controller_labels else None
    return [
        k8s.networking.v1.NetworkPolicyPeerArgs(
            namespace_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=namespace), pod_selector=labels
        ),
        k8s.networking.v1.NetworkPolicyPeerArgs(pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=JOB_LABEL)),
        *(
            k8s.networking.v1.NetworkPolicyPeerArgs(ip_block=k8s.networking.v1.IPBlockArgs(cidr=str(network)))
            for network in ingress.proxies or ()
        ),
    ]

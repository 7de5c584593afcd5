"""The policy server: a ConfigMap with what it serves, nginx in front of it, and its Ingress."""

from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as k8s

from components.base import NO_WAIT, Component
from components.dns.web_pages import HEALTH_PATH, PORT, files, served
from components.live import rolled_out
from components.pods import checksum, pod_spec, rights
from components.settings.dns import Certificate, PolicyServer
from components.settings.types import Fqdn

NAME = "mta-sts"
LABELS = {"app": NAME}
FOLDER = "/site"
NGINX_USER = 101  # of the official image


def policy_server(component: Component) -> list[pulumi.Resource]:
    """The objects that have to be ready before a policy may be announced; nothing when no domain has one."""
    dns, texts = component.site.dns, files(component.site)
    if dns is None or not texts:
        return []
    config = k8s.core.v1.ConfigMap(
        component.named("policy-files"),
        metadata=component.metadata(NAME, labels=LABELS),
        data=texts,
        opts=component.child("ConfigMap", NAME),
    )
    deployment = k8s.apps.v1.Deployment(
        component.named("policy-server"),
        metadata=component.workload_metadata(NAME, LABELS, rolled_out(dns.policy_server.replicas)),
        spec=k8s.apps.v1.DeploymentSpecArgs(
            replicas=dns.policy_server.replicas,
            selector=k8s.meta.v1.LabelSelectorArgs(match_labels=LABELS),
            template=k8s.core.v1.PodTemplateSpecArgs(
                # A changed policy is a new pod, so that a finished rollout means that the new policy is served.
                metadata=k8s.meta.v1.ObjectMetaArgs(labels=LABELS, annotations=dns.policy_server.pod.annotations | checksum(texts)),
                spec=_pod(dns.policy_server),
            ),
        ),
        opts=component.child("Deployment", NAME, depends_on=[config], custom_timeouts=pulumi.CustomTimeouts(create="5m", update="5m")),
    )
    service = k8s.core.v1.Service(
        component.named("policy-service"),
        metadata=component.metadata(NAME, labels=LABELS, annotations=NO_WAIT),
        spec=k8s.core.v1.ServiceSpecArgs(
            selector=LABELS, ports=[k8s.core.v1.ServicePortArgs(name="http", protocol="TCP", port=80, target_port=PORT)]
        ),
        opts=component.child("Service", NAME),
    )
    return [deployment, service, *_ingresses(component, dns.policy_server, served(component.site))]


def _pod(server: PolicyServer) -> k8s.core.v1.PodSpecArgs:
    probe = k8s.core.v1.HTTPGetActionArgs(path=HEALTH_PATH, port=PORT)
    return pod_spec(
        server.pod,
        containers=[
            k8s.core.v1.ContainerArgs(
                name="nginx",
                image=server.image,
                # Not the image's entry point, which wants to write below /etc.
                command=["nginx", "-p", f"{FOLDER}/", "-c", "nginx.conf", "-e", "/dev/stderr"],
                ports=[k8s.core.v1.ContainerPortArgs(name="http", container_port=PORT, protocol="TCP")],
                resources=k8s.core.v1.ResourceRequirementsArgs(requests={"cpu": "5m", "memory": "16Mi"}, limits={"memory": "64Mi"}),
                readiness_probe=k8s.core.v1.ProbeArgs(http_get=probe, period_seconds=10),
                liveness_probe=k8s.core.v1.ProbeArgs(http_get=probe, period_seconds=30),
                security_context=rights(NGINX_USER),
                volume_mounts=[
                    k8s.core.v1.VolumeMountArgs(name="site", mount_path=FOLDER, read_only=True),
                    k8s.core.v1.VolumeMountArgs(name="tmp", mount_path="/tmp"),  # noqa: S108 - an emptyDir of the pod's own
                ],
            )
        ],
        volumes=[
            k8s.core.v1.VolumeArgs(name="site", config_map=k8s.core.v1.ConfigMapVolumeSourceArgs(name=NAME)),
            k8s.core.v1.VolumeArgs(name="tmp", empty_dir=k8s.core.v1.EmptyDirVolumeSourceArgs(medium="Memory", size_limit="8Mi")),
        ],
    )


def _ingresses(component: Component, server: PolicyServer, hosts: Mapping[Fqdn, Certificate]) -> list[k8s.networking.v1.Ingress]:
    """One Ingress for each certificate: cert-manager fills one Secret for all names of an Ingress."""
    grouped: dict[Certificate, list[Fqdn]] = {}
    for host, certificate in hosts.items():
        grouped.setdefault(certificate, []).append(host)
    return [_ingress(component, server, certificate, names) for certificate, names in grouped.items()]


def _ingress(component: Component, server: PolicyServer, certificate: Certificate, hosts: list[Fqdn]) -> k8s.networking.v1.Ingress:
    name = f"{NAME}-{certificate.secret}"
    annotations = NO_WAIT | server.annotations
    if server.middlewares:
        annotations["traefik.ingress.kubernetes.io/router.middlewares"] = ",".join(server.middlewares)
    if certificate.cluster_issuer:
        annotations["cert-manager.io/cluster-issuer"] = certificate.cluster_issuer
    backend = k8s.networking.v1.IngressBackendArgs(
        service=k8s.networking.v1.IngressServiceBackendArgs(name=NAME, port=k8s.networking.v1.ServiceBackendPortArgs(name="http"))
    )
    path = k8s.networking.v1.HTTPIngressPathArgs(path="/", path_type="Prefix", backend=backend)
    return k8s.networking.v1.Ingress(
        component.named(f"ingress-{name}"),
        metadata=component.metadata(name, labels=LABELS, annotations=annotations),
        spec=k8s.networking.v1.IngressSpecArgs(
            ingress_class_name=server.ingress_class,
            tls=[k8s.networking.v1.IngressTLSArgs(hosts=hosts, secret_name=certificate.secret)],
            rules=[
                k8s.networking.v1.IngressRuleArgs(host=host, http=k8s.networking.v1.HTTPIngressRuleValueArgs(paths=[path]))
                for host in hosts
            ],
        ),
        opts=component.child("Ingress", name),
    )

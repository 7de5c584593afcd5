"""The mail server: everything that runs docker-mailserver in the cluster."""

from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

from components.base import MANAGED_BY, Component, Context
from components.external_secret import external_secret
from components.mail.deployment import CONFIG_MAP, SCRIPTS_MAP, deployment
from components.mail.files import SCRIPTS, config_files, config_map_key
from components.mail.network_policy import ingress_policy
from components.mail.secrets import handmade_secrets, mounted_secrets, secret_plans
from components.mail.services import cluster_service, legacy_service, proxy_service
from components.mail.storage import claim, mail_claim
from components.names import SELECTOR

POD_SCRIPTS = Path(__file__).parents[2] / "scripts" / "pod"


class MailServer(Component):
    """Namespace, storage, Secrets, configuration, Deployment, Services and NetworkPolicy of the mail server."""

    TYPE = "mailserver:mail:MailServer"

    def __init__(self, name: str, context: Context, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, context, opts)
        site = self.site

        # Kept together with the claims: a claim in a deleted Namespace is gone, whatever its own options say.
        self.namespace = k8s.core.v1.Namespace(
            self.named("namespace"),
            metadata=k8s.meta.v1.ObjectMetaArgs(name=site.namespace, labels=MANAGED_BY | site.cluster.namespace_labels),
            opts=self.child("Namespace", site.namespace, keep=True),
        )
        self.claim = mail_claim(self)
        for retained, size in site.mail.storage.retained_claims.items():
            claim(self, retained, size)
        self.external_secrets = self._external_secrets()

        config = self.config_map(CONFIG_MAP, {config_map_key(path): text for path, text in config_files(site).items()}, SELECTOR)
        scripts = {script: (POD_SCRIPTS / script).read_text("utf-8") for script in SCRIPTS}
        programs = self.config_map(SCRIPTS_MAP, scripts, SELECTOR)
        # First, and last to go: without it any host may speak PROXY to the pod and claim any client address.
        self.policy = ingress_policy(self)
        needed = [
            self.policy,
            self.claim,
            config,
            programs,
            *(self.external_secrets[s] for s in mounted_secrets(site).values() if s in self.external_secrets),
        ]
        if site.tls.cluster_issuer:
            needed.append(self._certificate(site.tls.cluster_issuer))
        priority = site.mail.priority_class
        if priority and priority.value is not None:
            needed.append(self._priority_class(priority.class_name, priority.value))

        self.deployment = deployment(self, scripts, needed)
        self.service = cluster_service(self)
        self.proxy_service = proxy_service(self)
        self.legacy_service = legacy_service(self)

        self.host = site.hostname
        self.in_cluster_host = site.in_cluster_host
        self.node_ports = {s.name: {"proxy": s.node_port, "health": s.health_node_port} for s in site.listeners}
        services = {"cluster": self.service, "proxy": self.proxy_service, "legacy": self.legacy_service}
        self.service_names = {kind: _name(service) for kind, service in services.items() if service}
        self.claim_name = _name(self.claim)
        self.secret_names = sorted({*handmade_secrets(site), *self.external_secrets})
        self.register_outputs(
            {
                "host": self.host,
                "inClusterHost": self.in_cluster_host,
                "nodePorts": self.node_ports,
                "services": self.service_names,
                "claim": self.claim_name,
                "secrets": self.secret_names,
            }
        )

    def _external_secrets(self) -> dict[str, k8s.apiextensions.CustomResource]:
        store, api_version = self.site.secret_store, self.site.cluster.external_secrets
        if store is None or api_version is None:
            return {}
        return {
            plan.name: external_secret(
                self.named(f"external-secret-{plan.name}"),
                name=plan.name,
                namespace=self.site.namespace,
                store=store,
                api_version=api_version,
                keys=plan.keys,
                template=plan.template,
                opts=self.child("ExternalSecret", plan.name, custom_timeouts=pulumi.CustomTimeouts(create="2m", update="2m")),
            )
            for plan in secret_plans(self.site)
        }

    def _certificate(self, issuer: str) -> k8s.apiextensions.CustomResource:
        """cert-manager's Certificate (cert-manager.io/v1) for the mail hosts."""
        tls = self.site.tls
        return k8s.apiextensions.CustomResource(
            self.named("certificate"),
            api_version="cert-manager.io/v1",
            kind="Certificate",
            # The pod mounts the Secret, so an up stops here with cert-manager's complaint instead of at a pod that never starts.
            metadata=self.metadata(tls.secret, annotations={"pulumi.com/waitFor": "condition=Ready"}),
            spec={
                "secretName": tls.secret,
                "dnsNames": list(tls.names),
                "issuerRef": {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": issuer},
                "privateKey": {"rotationPolicy": "Always"},
            },
            opts=self.child("Certificate", tls.secret, custom_timeouts=pulumi.CustomTimeouts(create="10m", update="10m")),
        )

    def _priority_class(self, name: str, value: int) -> k8s.scheduling.v1.PriorityClass:
        return k8s.scheduling.v1.PriorityClass(
            self.named("priority"),
            metadata=k8s.meta.v1.ObjectMetaArgs(name=name, labels=MANAGED_BY),
            value=value,
            description="Mail: evicted after ordinary workloads",
            opts=self.child("PriorityClass", name),
        )


def _name(thing: k8s.core.v1.Service | k8s.core.v1.PersistentVolumeClaim) -> pulumi.Output[str]:
    return thing.metadata.apply(lambda metadata: str(metadata.name))

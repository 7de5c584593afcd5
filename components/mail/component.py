"""The mail server: everything that runs docker-mailserver in the cluster."""

from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

from components.base import MANAGED_BY, Component, Context
from components.external_secret import external_secret
from components.mail.deployment import CONFIG_MAP, PRIORITY_CLASS, SCRIPTS_MAP, deployment
from components.mail.files import config_files, config_map_key
from components.mail.network_policy import ingress_policy
from components.mail.secrets import mounted_secrets, secret_plans
from components.mail.services import SELECTOR, cluster_service, legacy_service, proxy_service
from components.mail.storage import claim, mail_claim

POD_SCRIPTS = Path(__file__).parents[2] / "scripts" / "pod"


class MailServer(Component):
    """Namespace, storage, Secrets, configuration, Deployment, Services and NetworkPolicy of the mail server."""

    def __init__(self, name: str, context: Context, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mail", name, context, opts)
        site = self.site

        # Kept together with the claims: a claim in a deleted Namespace is gone, whatever its own options say.
        self.namespace = k8s.core.v1.Namespace(
            "namespace",
            metadata=k8s.meta.v1.ObjectMetaArgs(name=site.namespace, labels=MANAGED_BY),
            opts=self.child("Namespace", site.namespace, keep=True),
        )
        context.namespace = self.namespace
        self.claim = mail_claim(self)
        for retained, size in site.mail.storage.retained_claims.items():
            claim(self, retained, size)
        self.external_secrets = self._external_secrets()

        config = self._config_map(CONFIG_MAP, {config_map_key(path): text for path, text in config_files(site).items()})
        scripts = {script: (POD_SCRIPTS / script).read_text("utf-8") for script in ("assemble.py", "user-patches.sh")}
        programs = self._config_map(SCRIPTS_MAP, scripts)
        needed = [
            self.claim,
            config,
            programs,
            *(self.external_secrets[s] for s in mounted_secrets(site).values() if s in self.external_secrets),
        ]
        if site.mail.priority is not None:
            needed.append(self._priority_class(site.mail.priority))

        self.deployment = deployment(self, scripts, needed)
        self.service = cluster_service(self)
        self.proxy_service = proxy_service(self)
        self.legacy_service = legacy_service(self)
        self.policy = ingress_policy(self)
        self.register_outputs({"hostname": site.hostname})

    def _external_secrets(self) -> dict[str, k8s.apiextensions.CustomResource]:
        store, api_version = self.site.secret_store, self.site.cluster.external_secrets
        if store is None or api_version is None:
            return {}
        return {
            plan.name: external_secret(
                plan.name,
                namespace=self.site.namespace,
                store=store,
                api_version=api_version,
                keys=plan.keys,
                template=plan.template,
                opts=self.child("ExternalSecret", plan.name, custom_timeouts=pulumi.CustomTimeouts(create="2m", update="2m")),
            )
            for plan in secret_plans(self.site)
        }

    def _config_map(self, name: str, data: dict[str, str]) -> k8s.core.v1.ConfigMap:
        return k8s.core.v1.ConfigMap(
            f"config-{name}",
            metadata=self.metadata(name, labels=SELECTOR),
            data=data,
            opts=self.child("ConfigMap", name),
        )

    def _priority_class(self, value: int) -> k8s.scheduling.v1.PriorityClass:
        return k8s.scheduling.v1.PriorityClass(
            "priority",
            metadata=k8s.meta.v1.ObjectMetaArgs(name=PRIORITY_CLASS, labels=MANAGED_BY),
            value=value,
            description="Mail: evicted after ordinary workloads",
            opts=self.child("PriorityClass", PRIORITY_CLASS),
        )

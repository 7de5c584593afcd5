"""What tells a person that mail is broken: rules for Prometheus and Loki."""

import pulumi
import pulumi_kubernetes as k8s

from components.base import MANAGED_BY, Component, Context
from components.mail.component import MailServer
from components.monitoring.rules import PROMETHEUS, groups
from components.monitoring.texts import LOG_RULES_MAP, RULES_MAP, log_rules_text, rules_text
from components.settings.monitoring import Monitoring as Settings


class Monitoring(Component):
    """Alert rules, in the namespaces of the programs that read them; nothing at all where the settings name none."""

    TYPE = "mailserver:monitoring:Monitoring"

    def __init__(
        self, name: str, context: Context, mail: MailServer, settings: Settings, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, context, opts, namespace=mail.namespace)
        prometheus, loki = settings.prometheus, settings.loki
        if prometheus and prometheus.form == "prometheus-rule":
            k8s.apiextensions.CustomResource(
                self.named("rules"),
                api_version="monitoring.coreos.com/v1",
                kind="PrometheusRule",
                metadata=self._metadata(RULES_MAP, prometheus.namespace, prometheus.labels),
                spec=groups(self.site, PROMETHEUS),
                opts=self.child("PrometheusRule", RULES_MAP),
            )
        elif prometheus:
            self._config_map(RULES_MAP, prometheus.namespace, prometheus.labels, rules_text(self.site))
        if loki:
            self._config_map(LOG_RULES_MAP, loki.namespace, loki.labels, log_rules_text(self.site))
        self.register_outputs({})

    def _config_map(self, name: str, namespace: str, labels: dict[str, str], text: str) -> None:
        k8s.core.v1.ConfigMap(
            self.named(f"config-{name}"),
            metadata=self._metadata(name, namespace, labels),
            data={f"{name}.yaml": text},
            opts=self.child("ConfigMap", name),
        )

    def _metadata(self, name: str, namespace: str, labels: dict[str, str]) -> k8s.meta.v1.ObjectMetaArgs:
        return k8s.meta.v1.ObjectMetaArgs(name=name, namespace=namespace, labels=MANAGED_BY | labels)

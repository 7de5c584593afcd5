"""What tells a person that mail is broken: rules for Prometheus and Loki, and a dashboard."""

import pulumi
import pulumi_kubernetes as k8s

from components.base import MANAGED_BY, Component, Context
from components.mail.component import MailServer
from components.monitoring.dashboard import dashboard_json
from components.monitoring.rules import PROMETHEUS, groups
from components.monitoring.texts import DASHBOARD_MAP, LOG_RULES_MAP, RULES_MAP, log_rules_text, rules_text
from components.settings.monitoring import Monitoring as Settings


class Monitoring(Component):
    """Alert rules and dashboard, in the namespaces of the programs that read them; nothing at all where the settings name none."""

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
            metadata = self._metadata(RULES_MAP, prometheus.namespace, prometheus.labels)
            self._config_map(metadata, RULES_MAP, f"{RULES_MAP}.yaml", rules_text(self.site))
        if loki:
            metadata = self._metadata(LOG_RULES_MAP, loki.namespace, loki.labels)
            self._config_map(metadata, LOG_RULES_MAP, f"{LOG_RULES_MAP}.yaml", log_rules_text(self.site))
        if board := settings.dashboard:
            folder = {"grafana_folder": board.folder} if board.folder else None
            metadata = self._metadata(DASHBOARD_MAP, board.namespace, board.labels, folder)
            self._config_map(metadata, DASHBOARD_MAP, "mail.json", dashboard_json(self.site))
        self.register_outputs({})

    def _config_map(self, metadata: k8s.meta.v1.ObjectMetaArgs, name: str, file: str, text: str) -> None:
        k8s.core.v1.ConfigMap(self.named(f"config-{name}"), metadata=metadata, data={file: text}, opts=self.child("ConfigMap", name))

    def _metadata(
        self, name: str, namespace: str, labels: dict[str, str], annotations: dict[str, str] | None = None
    ) -> k8s.meta.v1.ObjectMetaArgs:
        return k8s.meta.v1.ObjectMetaArgs(name=name, namespace=namespace, labels=MANAGED_BY | labels, annotations=annotations)

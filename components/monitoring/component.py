"""What tells a person that mail is broken: rules for Prometheus and Loki, and a dashboard."""

import pulumi
import pulumi_kubernetes as k8s

from components.base import MANAGED_BY, Component, Context
from components.mail.component import MailServer
from components.monitoring.dashboard import dashboard_json
from components.monitoring.rules import PROMETHEUS, groups
from components.monitoring.texts import DASHBOARD_MAP, LOG_RULES_MAP, RULES_MAP, log_rules_text, rules_text
from components.settings.monitoring import Dashboard, LokiRules, PrometheusRules
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
                metadata=_metadata(RULES_MAP, prometheus),
                spec=groups(self.site, PROMETHEUS),
                opts=self.child("PrometheusRule", RULES_MAP, namespace=prometheus.namespace),
            )
        elif prometheus:
            self._config_map(RULES_MAP, prometheus, f"{RULES_MAP}.yaml", rules_text(self.site))
        if loki:
            self._config_map(LOG_RULES_MAP, loki, f"{LOG_RULES_MAP}.yaml", log_rules_text(self.site))
        if board := settings.dashboard:
            folder = {"grafana_folder": board.folder} if board.folder else None
            self._config_map(DASHBOARD_MAP, board, "mail.json", dashboard_json(self.site), folder)
        self.register_outputs({})

    def _config_map(
        self, name: str, place: PrometheusRules | LokiRules | Dashboard, file: str, text: str, annotations: dict[str, str] | None = None
    ) -> None:
        k8s.core.v1.ConfigMap(
            self.named(f"config-{name}"),
            metadata=_metadata(name, place, annotations),
            data={file: text},
            opts=self.child("ConfigMap", name, namespace=place.namespace),
        )


def _metadata(
    name: str, place: PrometheusRules | LokiRules | Dashboard, annotations: dict[str, str] | None = None
) -> k8s.meta.v1.ObjectMetaArgs:
    return k8s.meta.v1.ObjectMetaArgs(name=name, namespace=place.namespace, labels=MANAGED_BY | place.labels, annotations=annotations)

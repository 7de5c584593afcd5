"""What tells a person that mail is broken: alerts, dashboard, reports of others. All of it is off by default."""

from typing import Annotated, Literal

from pydantic import Field

from components.settings.crowdsec import Crowdsec
from components.settings.extension import LabelKey
from components.settings.types import Model, ObjectName, text

RuleLabels = dict[LabelKey, str]
Runbooks = Annotated[str, *text("URL", r"https?://\S+[^\s/#]", "write the page's URL, without a # at the end")]


class PrometheusRules(Model):
    """Where Prometheus takes its rules from."""

    form: Literal["config-map", "prometheus-rule"] = Field(
        default="config-map",
        description="prometheus-rule: an object of the Prometheus operator; config-map: a file for any other Prometheus",
    )
    namespace: ObjectName = Field(
        default="monitoring", description="existing Namespace that the rules are created in; a ConfigMap has to be in Prometheus' own"
    )
    labels: RuleLabels = Field(
        default={}, description="labels by which the operator selects its rules", examples=[{"release": "kube-prometheus-stack"}]
    )


class LokiRules(Model):
    """Where Loki's ruler takes its rules from: a ConfigMap that its chart's sidecar loads."""

    namespace: ObjectName = Field(default="monitoring", description="existing Namespace that the ConfigMap is created in")
    labels: RuleLabels = Field(default={"loki_rule": ""}, description="labels by which the sidecar selects ConfigMaps")


class Dashboard(Model):
    """Where Grafana's sidecar looks for dashboards."""

    namespace: ObjectName = Field(default="monitoring", description="existing Namespace that the ConfigMap is created in")
    labels: RuleLabels = Field(default={"grafana_dashboard": "1"}, description="labels by which the sidecar selects ConfigMaps")
    folder: str | None = Field(
        default=None, description="folder in Grafana, by the annotation `grafana_folder`; null: the sidecar's default", examples=["Mail"]
    )


class SecondMx(Model):
    """What Prometheus already knows of a second MX that stores and forwards."""

    probe_job: str = Field(min_length=1, description="scrape job of the blackbox exporter for its port 25", examples=["backup-mx-smtp"])
    queue_node: str | None = Field(
        default=None, description="label `node` of its postfix_queue_size; null: its queue is not measured", examples=["mx2"]
    )


class Monitoring(Model):
    """Alerts and what belongs to them."""

    prometheus: PrometheusRules | None = Field(default=None, description="alerts on metrics; null: none")
    loki: LokiRules | None = Field(default=None, description="alerts on log lines; null: none")
    dashboard: Dashboard | None = Field(default=None, description="Grafana dashboard; null: none")
    channels: tuple[str, ...] = Field(
        default=(),
        description="how Alertmanager reaches a person; mail alone does not count, because it stops with the mail server",
        examples=[["slack"]],
    )
    runbooks: Runbooks | None = Field(
        default=None,
        description="where docs/runbooks/alerts.md can be read, for the link in each alert; null: its path in this repository",
        examples=["https://git.example.org/mail/blob/main/docs/runbooks/alerts.md"],
    )
    second_mx: SecondMx | None = Field(default=None, description="scrape jobs of a second MX; null: none")
    crowdsec: Crowdsec | None = Field(default=None, description="values for CrowdSec's chart; null: none")

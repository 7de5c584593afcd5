"""The files that other programs read, by name: rules, what a chart's values need, monitors of Uptime Kuma."""

import io
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from ruamel.yaml import YAML

from components.monitoring import crowdsec
from components.monitoring.kuma import monitors
from components.monitoring.rules import LOKI, PROMETHEUS, groups, inhibitions
from components.settings.site import Site

RULES_MAP = "mail-alerts"  # the ConfigMap for Prometheus, and its only file
LOG_RULES_MAP = "mail-log-alerts"
DASHBOARD_MAP = "mail-dashboard"
RULES_DIR = f"/etc/{RULES_MAP}"


def rules_text(site: Site) -> str:
    return as_yaml(groups(site, PROMETHEUS))


def log_rules_text(site: Site) -> str:
    return as_yaml(groups(site, LOKI))


def artefacts(site: Site) -> Iterator[tuple[str, str]]:
    """Path and text of what a render writes beside the objects."""
    if site.monitoring and site.monitoring.prometheus:
        yield "monitoring/prometheus-values.yaml", as_yaml(chart_values(site))
    yield "monitoring/uptime-kuma.json", json.dumps(monitors(site), indent=2) + "\n"
    if site.monitoring and site.monitoring.loki:
        yield "monitoring/drop.alloy", drop_stages()
    if site.monitoring and site.monitoring.crowdsec:
        yield "monitoring/crowdsec-values.yaml", as_yaml(crowdsec.chart_values(site, site.monitoring.crowdsec))


# What scanners leave in the log by the thousand. Never a refusal, a limit or a failed login: alerts and bans read those.
NOISE = (
    r"postfix/\S*postscreen\[\d+\]: (CONNECT from|DISCONNECT|PASS (OLD|NEW)) ",
    r"postfix/\S*smtpd\[\d+\]: (connect|lost connection after (CONNECT|EHLO|STARTTLS|UNKNOWN)) from unknown\[",
)


def drop_stages() -> str:
    """Stages of Alloy's `loki.process`."""
    return "".join(f'stage.drop {{\n  expression          = `{noise}`\n  drop_counter_reason = "mail scanners"\n}}\n' for noise in NOISE)


def chart_values(site: Site) -> dict[str, Any]:
    """Values of the chart `prometheus` (prometheus-community) that load the rules and inhibit what they say twice."""
    mount = {"name": RULES_MAP, "mountPath": RULES_DIR, "configMap": RULES_MAP, "readOnly": True}
    # Helm replaces lists as a whole: the first four are the chart's own.
    rule_files = [f"/etc/config/{name}" for name in ("recording_rules.yml", "alerting_rules.yml", "rules", "alerts")]
    values: dict[str, Any] = {"alertmanager": {"config": {"inhibit_rules": inhibitions()}}}
    if site.monitoring and site.monitoring.prometheus and site.monitoring.prometheus.form == "config-map":
        values |= {
            "server": {"extraConfigmapMounts": [mount]},
            "configmapReload": {"prometheus": {"extraConfigmapMounts": [mount], "extraVolumeDirs": [RULES_DIR]}},
            "serverFiles": {"prometheus.yml": {"rule_files": [*rule_files, f"{RULES_DIR}/*.yaml"]}},
        }
    return values


def as_yaml(content: Any) -> str:
    return _as_yaml(json.dumps(content))


@cache
def _as_yaml(content: str) -> str:
    """Of JSON. Kept, because a preview, its update and other stacks of one process ask for the same rules, and writing them takes long."""
    yaml = YAML()
    yaml.width = 1_000_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda _data: True
    buffer = io.StringIO()
    yaml.dump(json.loads(content), buffer)
    return buffer.getvalue()

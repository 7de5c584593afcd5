"""The table of alerts as files: for Prometheus, for Loki's ruler, and what silences what in Alertmanager."""

from collections.abc import Iterator, Sequence
from typing import Any

from components.monitoring import backup_alerts, ban_alerts, log_alerts, probe_alerts, report_alerts, server_alerts
from components.monitoring.alert import Alert
from components.settings.site import Site

PROMETHEUS: dict[str, Sequence[Alert]] = {
    "mail-server": server_alerts.ALERTS,
    "mail-probe": probe_alerts.ALERTS,
    "mail-backup": backup_alerts.ALERTS,
    "mail-reports": report_alerts.ALERTS,
    "mail-bans": ban_alerts.ALERTS,
}
LOKI: dict[str, Sequence[Alert]] = {"mail-logs": log_alerts.ALERTS}
PAGE = "docs/runbooks/alerts.md"

# Where the doctor looks for what a group of alerts is about.
DOCTOR = {
    "mail-server": "cluster,mail",
    "mail-probe": "mail,edge,jobs",
    "mail-backup": "cluster,jobs",
    "mail-reports": "dns,jobs,reputation",
    "mail-bans": "edge",
    "mail-logs": "mail",
}

# A cause to the alerts that say nothing new beside it. The first four are the cluster's own.
SILENCES: dict[str, tuple[str, ...]] = {
    "NodeDown": ("MailServerDown", "EmailRoundtrip.*", "EmailProbe.*"),
    "NFSServerUnresponsive": ("MailServerDown", "EmailRoundtrip.*", "EmailProbe.*"),
    "NodeMaintenanceInProgress": ("MailServerDown", "EmailRoundtripFailing", "EmailProbe.*"),
    "WANGatewayUnreachable|InternetEgressDown": ("EmailRoundtrip.*", "EmailProbe.*", "EmailOutbound.*", "MailEdge.*", "BackupMxDown"),
    "MailServerDown": ("MailPulseLost", "MailListenerMissing", "EmailProbe.*", "EmailOutbound.*", "MailEdge.*"),
    "MailFilterDown|MailVolumeNearlyFull|MailSrsDown": (
        "EmailProbeNotDelivered",
        "EmailProbeBounced",
        "MailQueueGrowing",
        "QueueFileWriteError",
    ),
    "MailListenerMissing": ("EmailRoundtripFailing", "EmailProbeNotDelivered", "EmailProbeMailboxUnreachable", "MailEdgeDown"),
    "EmailRoundtripFailing": ("EmailRoundtripStale",),
    "MailCertificateExpired": ("MailCertificateExpiring", "EmailRoundtripFailing", "EmailProbeCertificate", "MailEdgeTlsBroken"),
    "BackupRepositoryDamaged": ("BackupFailed", "BackupCronJobFailed"),
    "BackupFailed": ("BackupCronJobFailed",),
}


def groups(site: Site, table: dict[str, Sequence[Alert]]) -> dict[str, Any]:
    """A rule file of Prometheus or Loki; also the `spec` of a PrometheusRule."""
    found = {name: [_rule(site, name, alert, query) for alert in alerts if (query := alert.query(site))] for name, alerts in table.items()}
    return {"groups": [{"name": name, "rules": rules} for name, rules in found.items() if rules]}


def what_to_do(group: str, alert: Alert) -> str:
    """Markdown in one paragraph: the doctor first, then the alert's own remedy."""
    return f"`make doctor STACK=<stack> ONLY={DOCTOR[group]}` says what is broken, and why. {alert.remedy}"


def _rule(site: Site, group: str, alert: Alert, query: str) -> dict[str, Any]:
    detail = f" ({alert.detail})" if alert.detail else ""
    page = (site.monitoring and site.monitoring.runbooks) or PAGE
    return {
        "alert": alert.name,
        "expr": query,
        "for": alert.hold,
        "labels": {"severity": alert.severity, "subsystem": "mail"},
        "annotations": {"summary": alert.impact + detail, "description": what_to_do(group, alert), "runbook_url": f"{page}#{alert.anchor}"},
    }


def inhibitions() -> list[dict[str, list[str]]]:
    """Alertmanager's `inhibit_rules`."""
    return [
        {"source_matchers": [f'alertname=~"{cause}"'], "target_matchers": [f'alertname=~"{"|".join(targets)}"', 'subsystem="mail"']}
        for cause, targets in SILENCES.items()
    ]


def every_alert() -> Iterator[tuple[str, Alert]]:
    """Each alert with its group."""
    for name, alerts in (PROMETHEUS | LOKI).items():
        for alert in alerts:
            yield name, alert

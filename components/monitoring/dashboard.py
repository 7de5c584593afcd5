"""The Grafana dashboard: is mail flowing, who is rejected and why, queue, disk, ages. Every query is run by a test."""

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import loki, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from components.monitoring.alert import series
from components.names import MAIL_SERVER
from components.settings.site import Site

UID = "mail"
HEIGHT, WIDTH = 8, 12  # of Grafana's 24 columns
SMALL = 4


@dataclass(frozen=True)
class Panel:
    """`stat` shows the last value, `graph` its course, `logs` counts lines of Loki over time. Queries with their legends."""

    title: str
    kind: str
    queries: dict[str, str]
    unit: str = "short"


def rows(site: Site) -> dict[str, tuple[Panel, ...]]:
    """Panels by row; queries name nothing that only one kind of Prometheus has, but for the kubelet's and the cluster's own."""
    logs = f'{{namespace="{site.namespace}"}}'
    pvc = {"namespace": site.namespace, "persistentvolumeclaim": site.mail.storage.claim}
    found = {
        "Is mail flowing": (
            Panel(
                "Last verdict",
                "stat",
                {"email_roundtrip_verdict == 1": "inbound {{verdict}}", "email_outbound_verdict == 1": "outbound {{verdict}}"},
            ),
            Panel(
                "Since the last message that arrived",
                "stat",
                {
                    "time() - email_roundtrip_last_success_timestamp": "inbound",
                    "time() - email_outbound_last_success_timestamp": "outbound",
                },
                "s",
            ),
            Panel(
                "In the inbox, from a public address",
                "stat",
                {
                    "email_roundtrip_inbox": "inbox",
                    "email_roundtrip_client_public": "PROXY",
                    "email_outbound_inbox": "inbox, outbound",
                },
            ),
            Panel("SPF, DKIM, DMARC of the probe", "stat", {"email_roundtrip_authenticated": "{{method}}"}),
            Panel(
                "Round trip",
                "graph",
                {"email_roundtrip_duration_seconds": "inbound", "email_outbound_duration_seconds": "outbound"},
                "s",
            ),
            Panel("Arrived", "graph", {"email_roundtrip_success": "inbound", "email_outbound_success": "outbound"}),
        ),
        "The edge, as seen from inside": (
            Panel("Greets", "graph", {"min by (service, host, family) (email_edge_up)": "{{service}} {{host}} {{family}}"}),
            Panel("Valid TLS", "graph", {"min by (service, host, family) (email_edge_tls)": "{{service}} {{host}} {{family}}"}),
            Panel("Certificate, days left", "stat", {"min by (service, host) (email_edge_certificate_days)": "{{service}} {{host}}"}),
            Panel("Seen over", "stat", {"min by (family) (email_edge_visible)": "{{family}}"}),
            Panel("Listeners in the pod", "graph", {series("mail_listener_up", job=MAIL_SERVER): "{{listener}}"}),
        ),
        "What the filter decides": (
            Panel("Verdicts of the last hour", "graph", {"increase(rspamd_actions_total[1h])": "{{type}}"}),
            Panel("Learned from", "stat", {"rspamd_learned_total": "messages"}),
        ),
        "Queue and disk": (
            Panel("Queue", "graph", {"mail_queue_messages": "{{queue}}"}),
            Panel("Oldest message", "graph", {"mail_queue_oldest_seconds": "{{queue}}"}, "s"),
            Panel(
                "Free space",
                "graph",
                {"mail_volume_free_bytes": "seen by the pod", series("kubelet_volume_stats_available_bytes", **pvc): "seen by the kubelet"},
                "bytes",
            ),
            Panel("Used share of the volume", "graph", {"1 - mail_volume_free_bytes / mail_volume_size_bytes": "used"}, "percentunit"),
        ),
        "Backup, restore, retention": (
            Panel("Since the last good backup", "stat", {"time() - backup_last_success_timestamp": "{{job}}"}, "s"),
            Panel("Since the last rehearsed restore", "stat", {"time() - mail_restore_last_success_timestamp": ""}, "s"),
            Panel("Since retention last succeeded", "stat", {"time() - spam_retention_last_success_timestamp": ""}, "s"),
            Panel(
                "Last result",
                "stat",
                {"backup_success": "{{job}}", "backup_verified": "{{job}} readable", "mail_restore_success": "restore"},
            ),
            Panel("Snapshots", "stat", {"backup_snapshots": "{{job}}"}),
            Panel(
                "Age of the newest and oldest snapshot",
                "graph",
                {
                    "time() - backup_newest_snapshot_timestamp": "{{job}} newest",
                    "time() - backup_oldest_snapshot_timestamp": "{{job}} oldest",
                },
                "s",
            ),
            Panel(
                "Repository",
                "graph",
                {"backup_output_bytes": "{{job}}", "backup_written_bytes": "{{job}} new", "backup_read_bytes": "{{job}} read"},
                "bytes",
            ),
            Panel("Messages saved", "graph", {"backup_messages": "{{mailbox}}"}),
            Panel("Rows saved", "graph", {"sum by (job) (backup_rows)": "{{job}}"}),
            Panel("Files saved", "graph", {"backup_files": "{{job}} {{source}}"}),
            Panel(
                "Not saved, or damaged",
                "graph",
                {
                    "backup_mismatched_messages": "damaged in {{mailbox}}",
                    "backup_unsaved_links": "links",
                    "backup_moved_aside_messages": "moved aside",
                },
            ),
            Panel(
                "Duration",
                "graph",
                {"backup_duration_seconds": "{{job}}", "mail_restore_seconds": "restore", "spam_retention_duration_seconds": "retention"},
                "s",
            ),
            Panel("Restored in the drill", "stat", {"mail_restore_messages": "messages"}),
            Panel(
                "Retention",
                "graph",
                {
                    "spam_retention_scanned_total": "{{mailbox}} scanned",
                    "spam_retention_auto_deleted_total": "{{mailbox}} automated, deleted",
                    "spam_retention_human_deleted_total": "{{mailbox}} other, deleted",
                    "spam_retention_kept_total": "{{mailbox}} kept",
                    "spam_retention_due_total": "{{mailbox}} due",
                    "spam_retention_errors_total": "{{mailbox}} errors",
                },
            ),
        ),
        "What others say about us": (
            Panel("In our name, by source", "stat", {"sum by (source) (dmarc_messages)": "{{source}}"}),
            Panel(
                "Passing and failing DMARC",
                "graph",
                {"sum by (domain, known, aligned) (dmarc_messages)": "{{domain}} known {{known}}, aligned {{aligned}}"},
            ),
            Panel("What receivers did", "graph", {"sum by (disposition) (dmarc_messages)": "{{disposition}}"}),
            Panel(
                "Sessions over TLS",
                "graph",
                {"sum by (domain, policy, result) (tls_report_sessions)": "{{domain}} {{policy}} {{result}}"},
            ),
            Panel(
                "Reports",
                "stat",
                {
                    "mail_reports": "{{kind}}",
                    "sum by (reason) (dmarc_failure_reports)": "failure: {{reason}}",
                    "mail_reports_success": "read",
                },
            ),
            Panel("Block lists that answer", "stat", {"mail_blocklist_usable": "{{list}}"}),
            Panel(
                "Listed",
                "graph",
                {"sum by (list, whose, entry) (mail_blocklist_listed)": "{{list}} {{whose}} {{entry}}"},
            ),
            Panel(
                "Since reports and lists were last read",
                "stat",
                {
                    "time() - mail_reports_last_success_timestamp": "reports",
                    "time() - mail_reputation_last_success_timestamp": "block lists",
                },
                "s",
            ),
        ),
        "Jobs": (
            Panel("Since the last report of each job", "graph", {"time() - push_time_seconds": "{{job}}"}, "s"),
            Panel(
                "Failed jobs",
                "graph",
                {f'sum by (job_name) (kube_job_failed{{namespace="{site.namespace}", condition="true"}})': "{{job_name}}"},
            ),
        ),
    }
    if site.monitoring and site.monitoring.loki:
        rejected = f"sum by (reason) (count_over_time({logs} |= `reject:` | regexp `(?P<reason>[45]\\d\\d [45]\\.\\d+\\.\\d+)` [5m]))"
        found["Who is rejected, and why"] = (
            Panel("Refused, by reply", "logs", {rejected: "{{reason}}"}),
            Panel("Failed logins", "logs", {f"sum(count_over_time({logs} |= `authentication failed` [5m]))": "SASL"}),
            Panel(
                "Sent, deferred, bounced",
                "logs",
                {f"sum by (status) (count_over_time({logs} |= `status=` | regexp `status=(?P<status>\\w+)` [5m]))": "{{status}}"},
            ),
        )
    return found


def dashboard_json(site: Site) -> str:
    board = (
        grafana.Dashboard("Mail")
        .uid(UID)
        .tags(["mail"])
        .refresh("1m")
        .time("now-24h", "now")
        .with_variable(grafana.DatasourceVariable("prometheus").type("prometheus"))
        .with_variable(grafana.DatasourceVariable("loki").type("loki"))
    )
    for title, panels in rows(site).items():
        board = board.with_row(grafana.Row(title))
        for panel in panels:
            board = board.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build())


def _panel(panel: Panel) -> Any:
    source = "loki" if panel.kind == "logs" else "prometheus"
    query = loki.Dataquery if panel.kind == "logs" else prometheus.Dataquery
    size = (SMALL, WIDTH // 2) if panel.kind == "stat" else (HEIGHT, WIDTH)
    built = (stat.Panel() if panel.kind == "stat" else timeseries.Panel()).title(panel.title).unit(panel.unit).height(size[0]).span(size[1])
    built = built.datasource(DataSourceRef(type_val=source, uid=f"${{{source}}}"))
    for letter, (expression, legend) in zip("ABCDEF", panel.queries.items(), strict=False):
        built = built.with_target(query().expr(expression).legend_format(legend).ref_id(letter))
    return built

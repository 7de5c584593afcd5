"""Every alert on Prometheus' own evaluator: silent while all is well, and alone when its one fault is there."""

import json
import shutil
import subprocess
from dataclasses import dataclass, field

import pytest

from components.checks.registry import read_site
from components.monitoring.rules import PROMETHEUS
from components.monitoring.texts import rules_text
from tests.conftest import change, settings

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian's package prometheus)")
EVERYTHING = {"jobs/probe/outbound": {"recipient": "loop@example.com"}, "edge/bans": {"crowdsec": {"lapi": "http://crowdsec:8080"}}}

SERVICES = ("smtp", "submissions", "submission", "imaps")
LISTENERS = (
    "smtp",
    "smtp-proxy",
    "submissions",
    "submissions-proxy",
    "submission",
    "submission-proxy",
    "imaps",
    "imaps-proxy",
    "rspamd",
    "postsrsd",
)
VERDICTS = (
    "ok",
    "junk",
    "via_relay",
    "private_client",
    "bounced",
    "not_delivered",
    "send_failed",
    "certificate",
    "login_failed",
    "imap_failed",
)
VERDICTS += ("misconfigured", "stopped", "internal_error")
MAIL_CRON, DRILL_CRON = 'namespace="mailserver", cronjob="mailserver-backup"', 'namespace="mailserver", cronjob="mail-restore-drill"'
WEB_CRON, RETENTION_CRON = 'namespace="mailserver", cronjob="roundcube-backup"', 'namespace="mailserver", cronjob="spam-retention"'
REPORTS_CRON, REPUTATION_CRON = (f'namespace="mailserver", cronjob="mail-{name}"' for name in ("reports", "reputation"))
CRONS = (MAIL_CRON, WEB_CRON, DRILL_CRON, RETENTION_CRON, REPORTS_CRON, REPUTATION_CRON)
LISTED = 'job="mail-reputation", list="zen.spamhaus.org", subject="176.12.22.76", whose="own"'
REPORTS = 'job="mail-reports", domain="viktorbarzin.me"'
PVC = 'namespace="mailserver", persistentvolumeclaim="mailserver-data-encrypted"'
EDGE = 'job="email-roundtrip-monitor", service="{}", host="mail.viktorbarzin.me", family="ipv4", seen_from="inside"'
PROBE, OUTBOUND = 'job="email-roundtrip-monitor"', 'job="email-outbound-monitor"'
BACKUPS = ('job="mailserver-backup"', 'job="roundcube-backup"')
GIB = 2**30
NOW = "0+60x3000"  # a time that goes with the clock, at one sample a minute; the clock of promtool begins at 0


def always(value: float) -> str:
    return f"{value:.0f}x3000"


HEALTHY = {
    'kube_deployment_status_replicas_available{namespace="mailserver", deployment="mailserver"}': always(1),
    **{f'push_time_seconds{{job="{job}"}}': NOW for job in ("mailserver", "email-roundtrip-monitor", "email-outbound-monitor")},
    **{f'mail_listener_up{{job="mailserver", listener="{name}"}}': always(1) for name in LISTENERS},
    'mail_last_good_set_in_use{job="mailserver"}': always(0),
    **{f'mail_queue_messages{{job="mailserver", queue="{queue}"}}': always(1) for queue in ("incoming", "active", "deferred")},
    **{f'mail_queue_oldest_seconds{{job="mailserver", queue="{queue}"}}': always(600) for queue in ("incoming", "active", "deferred")},
    'mail_volume_free_bytes{job="mailserver"}': always(2 * GIB),
    f"kubelet_volume_stats_available_bytes{{{PVC}}}": always(2 * GIB),
    f"kubelet_volume_stats_used_bytes{{{PVC}}}": always(3 * GIB),
    f"kubelet_volume_stats_capacity_bytes{{{PVC}}}": always(5 * GIB),
    'probe_success{job="backup-mx-smtp"}': always(1),
    'postfix_queue_size{node="mx2", queue="deferred"}': always(0),
    f"email_roundtrip_success{{{PROBE}}}": always(1),
    f"email_roundtrip_last_success_timestamp{{{PROBE}}}": NOW,
    **{f'email_roundtrip_verdict{{{PROBE}, verdict="{verdict}"}}': always(verdict == "ok") for verdict in VERDICTS},
    **{f'email_roundtrip_authenticated{{{PROBE}, method="{method}"}}': always(1) for method in ("spf", "dkim", "dmarc")},
    f"email_outbound_success{{{OUTBOUND}}}": always(1),
    **{f"email_edge_{what}{{{EDGE.format(service)}}}": always(1) for what in ("up", "tls") for service in SERVICES},
    'mail_bans_refused{job="mail-bans"}': always(0),
    'mail_bans_taken_timestamp_seconds{job="mail-bans"}': NOW,
    **{f"email_edge_certificate_days{{{EDGE.format(service)}}}": always(60) for service in SERVICES},
    **{f"kube_cronjob_created{{{cron}}}": always(-2000000) for cron in CRONS},
    **{f"kube_cronjob_status_last_successful_time{{{cron}}}": NOW for cron in CRONS},
    f'dmarc_messages{{{REPORTS}, source="sendinblue.com", known="true", aligned="dkim", disposition="none"}}': always(97),
    f'dmarc_messages{{{REPORTS}, source="sendinblue.com", known="true", aligned="none", disposition="none"}}': always(3),
    f'dmarc_messages{{{REPORTS}, source="google.com", known="false", aligned="dkim", disposition="none"}}': always(9),
    f'dmarc_messages{{{REPORTS}, source="oracle.com", known="false", aligned="none", disposition="reject"}}': always(5000),
    f'tls_report_sessions{{{REPORTS}, policy="sts", result="success"}}': always(50),
    'mail_blocklist_usable{job="mail-reputation", list="zen.spamhaus.org"}': always(1),
    'mail_blocklist_usable{job="mail-reputation", list="bl.spamcop.net"}': always(0),
    f'mail_blocklist_listed{{{LISTED}, entry="listed"}}': always(0),
    f'mail_blocklist_listed{{{LISTED}, entry="policy"}}': always(1),
    **{f"backup_{name}{{{job}}}": always(1) for name in ("success", "verified") for job in BACKUPS},
    **{f"backup_snapshots{{{job}}}": always(15) for job in BACKUPS},
    **{f"backup_oldest_snapshot_timestamp{{{job}}}": always(-5000000) for job in BACKUPS},
    **{f'backup_repository{{{job}, id="aa"}}': always(1) for job in BACKUPS},
    f'backup_mismatched_messages{{{BACKUPS[0]}, mailbox="spam@viktorbarzin.me"}}': always(3),
    'mail_restore_success{job="mail-restore-drill"}': always(1),
    'spam_retention_errors_total{job="spam-retention", mailbox="spam@viktorbarzin.me"}': always(0),
    # A job that failed yesterday, and the one that has just ended well.
    **{
        f'kube_job_failed{{namespace="mailserver", job_name="{job}-1", condition="true"}}': always(1)
        for job in ("spam-retention", "mailserver-backup")
    },
    **{
        f'kube_job_status_start_time{{namespace="mailserver", job_name="{job}-1"}}': always(-90000)
        for job in ("spam-retention", "mailserver-backup")
    },
    'kube_job_failed{namespace="mailserver", job_name="spam-retention-2", condition="true"}': always(0),
    'kube_job_status_active{namespace="mailserver", job_name="mailserver-backup-2"}': always(1),
    **{f'kube_job_status_start_time{{namespace="mailserver", job_name="{job}-2"}}': NOW for job in ("spam-retention", "mailserver-backup")},
}


@dataclass
class Fault:
    """What differs from a healthy system (None: the series is missing), and when it is looked at, in minutes."""

    changes: dict[str, str | None]
    at: int = 10
    beside: set[str] = field(default_factory=set)  # other alerts that the same fault raises


def verdict(name: str, *beside: str) -> Fault:
    changes = {f'email_roundtrip_verdict{{{PROBE}, verdict="{other}"}}': always(other == name) for other in ("ok", name)}
    return Fault(changes, beside=set(beside))


def listener(name: str) -> Fault:
    return Fault({f'mail_listener_up{{job="mailserver", listener="{name}"}}': always(0)})


DAY = 1440  # minutes; faults that take so long are looked at in steps of ten
DAYS = DAY // 10
FAULTS = {
    "BanListRefused": Fault({'mail_bans_refused{job="mail-bans"}': always(1)}, at=20),
    "BanListNotLoaded": Fault({'mail_bans_taken_timestamp_seconds{job="mail-bans"}': always(0)}, at=40),
    "MailServerDown": Fault({'kube_deployment_status_replicas_available{namespace="mailserver", deployment="mailserver"}': always(0)}),
    "MailPulseLost": Fault({'push_time_seconds{job="mailserver"}': always(0)}, at=15),
    "MailListenerMissing": listener("submission-proxy"),
    "MailFilterDown": listener("rspamd"),
    "MailSrsDown": listener("postsrsd"),
    "MailAccountsOutdated": Fault({'mail_last_good_set_in_use{job="mailserver"}': always(1)}),
    "MailQueueGrowing": Fault({'mail_queue_messages{job="mailserver", queue="deferred"}': always(60)}, at=20),
    "MailQueueStuck": Fault({'mail_queue_oldest_seconds{job="mailserver", queue="incoming"}': always(1500)}),
    "MailVolumeNearlyFull": Fault({f"kubelet_volume_stats_available_bytes{{{PVC}}}": always(500 * 2**20)}),
    "PVFillingUp": Fault({f"kubelet_volume_stats_used_bytes{{{PVC}}}": always(4.9 * GIB)}, at=15),
    "PVPredictedFull": Fault({f"kubelet_volume_stats_used_bytes{{{PVC}}}": f"{3 * GIB}+2000000x3000"}, at=130),
    "JobFailed": Fault({'kube_job_failed{namespace="mailserver", job_name="spam-retention-2", condition="true"}': always(1)}),
    "BackupCronJobFailed": Fault(
        {'kube_job_failed{namespace="mailserver", job_name="mailserver-backup-2", condition="true"}': always(1)}, at=20
    ),
    "JobRunningTooLong": Fault(
        {'kube_job_status_start_time{namespace="mailserver", job_name="mailserver-backup-2"}': always(-10800)}, at=15
    ),
    "BackupMxDown": Fault({'probe_success{job="backup-mx-smtp"}': always(0)}, at=20),
    "BackupMxQueueStuck": Fault({'postfix_queue_size{node="mx2", queue="deferred"}': always(4)}, at=130),
    "EmailRoundtripFailing": Fault({f"email_roundtrip_success{{{PROBE}}}": always(0)}, at=65),
    "EmailRoundtripStale": Fault({f"email_roundtrip_last_success_timestamp{{{PROBE}}}": always(-3600)}, at=25),
    "EmailRoundtripNeverRun": Fault({f"push_time_seconds{{{PROBE}}}": None}, at=65),
    "EmailProbeNotDelivered": verdict("not_delivered"),
    "EmailProbeJunk": verdict("junk"),
    "EmailProbePrivateClient": verdict("private_client"),
    "EmailProbeViaRelay": verdict("via_relay"),
    "EmailProbeBounced": verdict("bounced"),
    "EmailProbeSendFailed": verdict("send_failed"),
    "EmailProbeCertificate": verdict("certificate"),
    "EmailProbeMailboxUnreachable": verdict("login_failed"),
    "EmailProbeBroken": verdict("misconfigured"),
    "EmailProbeUnauthenticated": Fault({f'email_roundtrip_authenticated{{{PROBE}, method="dkim"}}': always(0)}),
    "EmailOutboundFailing": Fault({f"email_outbound_success{{{OUTBOUND}}}": always(0)}),
    "EmailOutboundStale": Fault({f"push_time_seconds{{{OUTBOUND}}}": always(-10800)}, at=125),
    "MailEdgeDown": Fault({f"email_edge_{what}{{{EDGE.format('imaps')}}}": always(0) for what in ("up", "tls")}),
    "MailEdgeTlsBroken": Fault({f"email_edge_tls{{{EDGE.format('imaps')}}}": always(0)}),
    "MailCertificateExpiring": Fault({f"email_edge_certificate_days{{{EDGE.format('imaps')}}}": always(13)}),
    "MailCertificateExpired": Fault(
        {f"email_edge_certificate_days{{{EDGE.format('imaps')}}}": always(2)}, beside={"MailCertificateExpiring"}
    ),
    "MailserverBackupStale": Fault({f"kube_cronjob_status_last_successful_time{{{MAIL_CRON}}}": always(-129600)}, at=35),
    "MailserverBackupNeverSucceeded": Fault({f"kube_cronjob_status_last_successful_time{{{MAIL_CRON}}}": None}, at=65),
    "WebmailBackupStale": Fault({f"kube_cronjob_status_last_successful_time{{{WEB_CRON}}}": always(-129600)}, at=35),
    "WebmailBackupNeverSucceeded": Fault({f"kube_cronjob_status_last_successful_time{{{WEB_CRON}}}": None}, at=65),
    "BackupFailed": Fault({f"backup_success{{{BACKUPS[0]}}}": always(0)}),
    "BackupRepositoryDamaged": Fault({f"backup_verified{{{BACKUPS[0]}}}": always(0)}),
    "BackupRepositoryReplaced": Fault(
        {f'backup_repository{{{BACKUPS[0]}, id="aa"}}': "1x6 stale", f'backup_repository{{{BACKUPS[0]}, id="bb"}}': "_x6 1x3000"}, at=DAY
    ),
    "BackupHistoryShrunk": Fault({f"backup_snapshots{{{BACKUPS[0]}}}": f"15x{DAYS - 1} 9x3000"}, at=DAY + 20),
    "BackupMessagesDamaged": Fault(
        {f'backup_mismatched_messages{{{BACKUPS[0]}, mailbox="spam@viktorbarzin.me"}}': f"3x{DAYS} 4x3000"}, at=DAY + 20
    ),
    "RestoreDrillFailed": Fault({'mail_restore_success{job="mail-restore-drill"}': always(0)}),
    "RestoreDrillStale": Fault({f"kube_cronjob_status_last_successful_time{{{DRILL_CRON}}}": None}, at=65),
    "RetentionFailing": Fault({'spam_retention_errors_total{job="spam-retention", mailbox="spam@viktorbarzin.me"}': always(1)}),
    "DmarcUnknownSource": Fault(
        {f'dmarc_messages{{{REPORTS}, source="google.com", known="false", aligned="dkim and spf", disposition="none"}}': always(8)}
        | {f'dmarc_messages{{{REPORTS}, source="google.com", known="false", aligned="spf", disposition="none"}}': always(3)}
    ),
    "DmarcAlignmentLow": Fault(
        {f'dmarc_messages{{{REPORTS}, source="sendinblue.com", known="true", aligned="none", disposition="quarantine"}}': always(4)}
    ),
    "TlsReportedFailing": Fault({f'tls_report_sessions{{{REPORTS}, policy="sts", result="certificate-expired"}}': always(1)}),
    "MailReportsStale": Fault({f"kube_cronjob_status_last_successful_time{{{REPORTS_CRON}}}": always(-43200)}, at=65),
    "MailAddressListed": Fault({f'mail_blocklist_listed{{{LISTED}, entry="listed"}}': always(1)}),
    "BlocklistsSilent": Fault({'mail_blocklist_usable{job="mail-reputation", list="zen.spamhaus.org"}': always(0)}),
    "MailReputationStale": Fault({f"kube_cronjob_status_last_successful_time{{{REPUTATION_CRON}}}": None}, at=65),
    "RetentionStale": Fault({f"kube_cronjob_status_last_successful_time{{{RETENTION_CRON}}}": always(-43200)}, at=35),
}

# Further faults that the alert must see, and what is ordinary though it looks like one: no alert at all.
MORE = {
    "the scrape of the second MX is gone": ({"BackupMxDown"}, Fault({'probe_success{job="backup-mx-smtp"}': None}, at=20)),
    "a deferred message for five hours": (
        {"MailQueueStuck"},
        Fault({'mail_queue_oldest_seconds{job="mailserver", queue="deferred"}': always(18000)}),
    ),
    "the pod sees its volume full, the kubelet's figures were dropped": (
        {"MailVolumeNearlyFull"},
        Fault({f"kubelet_volume_stats_available_bytes{{{PVC}}}": None, 'mail_volume_free_bytes{job="mailserver"}': always(500 * 2**20)}),
    ),
    "the Deployment has no series": (
        {"MailServerDown"},
        Fault({'kube_deployment_status_replicas_available{namespace="mailserver", deployment="mailserver"}': None}),
    ),
    "the oldest snapshot is suddenly months younger": (
        {"BackupHistoryShrunk"},
        Fault({f"backup_oldest_snapshot_timestamp{{{BACKUPS[0]}}}": f"-5000000x{DAYS - 1} -900000x3000"}, at=DAY + 20),
    ),
    "a week of history goes, as each week": (
        set(),
        Fault(
            {
                f"backup_oldest_snapshot_timestamp{{{BACKUPS[0]}}}": f"-5000000x{DAYS - 1} {-5000000 + 7 * 86400}x3000",
                f"backup_snapshots{{{BACKUPS[0]}}}": f"15x{DAYS - 1} 14x3000",
            },
            at=DAY + 20,
        ),
    ),
    "a few of our messages fail, of which too few were counted": (
        set(),
        Fault(
            {
                f'dmarc_messages{{{REPORTS}, source="sendinblue.com", known="true", aligned="dkim", disposition="none"}}': always(15),
                f'dmarc_messages{{{REPORTS}, source="sendinblue.com", known="true", aligned="none", disposition="none"}}': always(3),
            }
        ),
    ),
    "one backup is late": (set(), Fault({f"kube_cronjob_status_last_successful_time{{{MAIL_CRON}}}": always(-86400)}, at=60)),
    "a deferred message for an hour": (
        set(),
        Fault({'mail_queue_oldest_seconds{job="mailserver", queue="deferred"}': always(3600)}),
    ),
    "the rest of a full Pushgateway was restarted": (
        set(),
        Fault({f"push_time_seconds{{{PROBE}}}": "_x20 1200+60x3000"}, at=65),
    ),
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    base = settings("prod")
    for path, value in EVERYTHING.items():
        change(base, path, value)
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.yaml").write_text(rules_text(read_site(json.dumps(base))), encoding="utf-8")
    return folder


def fires(fault: Fault, expected: set[str]) -> dict:
    series, step = HEALTHY | fault.changes, 10 if fault.at >= DAY else 1
    samples = f"x{fault.at // step + 1}"
    return {
        "interval": f"{step}m",
        "input_series": [
            {"series": name, "values": values.replace("+60x", f"+{60 * step}x").replace("x3000", samples)}
            for name, values in series.items()
            if values
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{fault.at}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(expected)],
            }
        ],
    }


def promtool(folder, tests: list[dict]) -> str:
    said = ""
    for step in ("1m", "10m"):
        content = {"rule_files": ["rules.yaml"], "evaluation_interval": step, "tests": [test for test in tests if test["interval"] == step]}
        (folder / "tests.json").write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
        done = subprocess.run(
            ["promtool", "test", "rules", "tests.json"], cwd=folder, capture_output=True, text=True, timeout=600, check=False
        )
        said += "" if done.returncode == 0 else done.stdout + done.stderr
    return said


@needs_promtool
def test_prometheus_accepts_the_file(rules):
    done = subprocess.run(["promtool", "check", "rules", "rules.yaml"], cwd=rules, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_on_metrics_has_its_fault():
    assert FAULTS.keys() == {alert.name for alerts in PROMETHEUS.values() for alert in alerts}


@needs_promtool
def test_a_healthy_system_raises_nothing(rules):
    assert promtool(rules, [fires(Fault({}, at=minutes), set()) for minutes in (10, 130, DAY)]) == ""


@needs_promtool
def test_each_fault_raises_its_alert_and_no_other(rules):
    tests = [fires(fault, {name, *fault.beside}) for name, fault in FAULTS.items()]
    tests += [fires(fault, expected) for expected, fault in MORE.values()]
    assert promtool(rules, tests) == ""

"""What is rendered for other programs: alert rules, Kuma's monitors, droppable log lines, the dashboard, the chart's values."""

import json
import re

import pytest
import yaml

from components.monitoring import log_alerts
from components.monitoring.dashboard import dashboard_json
from components.monitoring.kuma import monitors
from components.monitoring.rules import LOKI, PROMETHEUS, every_alert, groups
from components.monitoring.texts import NOISE, chart_values, log_rules_text, rules_text
from tests.conftest import OAUTH

# What one alert is about, and prod lacks.
WITH_ISSUER = {"mail/oauth": OAUTH}
PLACE = "Nov 21 09:00:00 mail"
# As Postfix 3.7 and the jobs write them.
EVIDENCE = {
    "AccountOverSendingLimit": "postfix/sender-cleanup/cleanup[9]: A1: milter-reject: END-OF-MESSAGE from x[1.2.3.4]: 4.7.1 a@b.c "
    "has reached the sending limit of 60 recipients an hour and 200 a day; from=<a@b.c>",
    "ClusterServiceCannotRelayMail": "postfix/smtpd[9]: NOQUEUE: reject: RCPT from app.ns.svc.cluster.local[10.10.1.5]: 554 no",
    "InternalMailAuthFailure": "postfix/submission/smtpd[9]: warning: unknown[192.168.1.9]: SASL PLAIN authentication failed: ",
    "TokenIssuerFails": "dovecot: auth: Error: oauth2(a@b.c,1.2.3.4,<x>): oauth2 failed: Introspection failed: No username returned",
    "OutboundMailBounced": "postfix/smtp[9]: A1: to=<a@b.c>, relay=x[1.2.3.4]:25, dsn=5.1.1, status=bounced (host x said: 550)",
    "OutboundMailDeferred": "postfix/smtp[9]: A1: to=<a@b.c>, relay=none, dsn=4.4.1, status=deferred (connect to x)",
    "InternalHostCannotSendMail": "postfix/smtpd[9]: NOQUEUE: reject: RCPT from unknown[192.168.1.127]: 450 4.7.25 Client host rejected: "
    "cannot find your hostname, [192.168.1.127]; from=<a@b.c>",
    "PostscreenCacheLocked": "postfix/postscreen[9]: fatal: btree:/var/lib/postfix/postscreen_cache: unable to get exclusive lock: busy",
    "HealthCheckOnProxyListener": "postfix/smtpd[9]: fatal: cannot convert address to sockaddr: Servname not supported for ai_socktype",
    "AliasListedTwice": "dovecot: auth: Error: passwd-file /etc/dovecot/userdb: User a@b.c exists more than once",
    "QueueFileWriteError": "postfix/smtpd[9]: A1: reject: END-OF-MESSAGE: 451 4.3.0 Error: queue file write error",
    "NoSpaceLeft": "postfix/smtpd[9]: NOQUEUE: reject: MAIL from x[1.2.3.4]: 452 4.3.1 Insufficient system storage",
    "LastGoodSetInUse": "assemble: LAST GOOD SET IN USE: accounts as of 2026-11-20 03:00 UTC, because of the faults above",
    "HeartbeatFailed": "heartbeat uptime_kuma: failed 4 times, last with status 404",
    "JobsCannotReport": "Pushgateway: failed 4 times, last with URLError",
    "RelayQuotaNearlyUsed": "postfix/smtp[9]: A1: to=<a@b.c>, relay=smtp-relay.brevo.com[1.2.3.4]:587, dsn=2.0.0, status=sent (250 OK)",
}
KEPT = (
    "postfix/smtpd[9]: warning: Connection rate limit exceeded: 11 from unknown[1.2.3.4] for service smtp",
    "postfix/postscreen[9]: PREGREET 11 after 0.07 from [1.2.3.4]:1234: EHLO User\\r\\n",
    "postfix/smtpd-proxy25/postscreen[9]: NON-SMTP COMMAND from [1.2.3.4]:1234: GET / HTTP/1.1",
    "postfix/smtpd[9]: lost connection after AUTH from unknown[1.2.3.4]",
    "postfix/smtpd[9]: disconnect from unknown[1.2.3.4] ehlo=1 auth=0/1 commands=1/2",
)


def filtered(query: str, line: str) -> bool:
    """Whether a line passes a LogQL query's line filters; regular expressions are RE2's, of which these use only what Python shares."""
    filters = re.findall(r"(\|=|\|~) `([^`]*)`", query)
    assert filters
    return all(text in line if kind == "|=" else re.search(text, line) for kind, text in filters)


@pytest.mark.parametrize("alert", log_alerts.ALERTS, ids=lambda alert: alert.name)
def test_an_alert_on_the_log_sees_its_line_and_not_the_others(alert, site):
    query = alert.query(site("prod", WITH_ISSUER))
    seen = {name for name, line in EVIDENCE.items() if filtered(query, line)}
    assert seen == {alert.name}


@pytest.mark.parametrize("line", [*EVIDENCE.values(), *KEPT])
def test_evidence_is_never_dropped(line):
    assert not any(re.search(noise, f"{PLACE} {line}") for noise in NOISE)


@pytest.mark.parametrize(
    "line",
    [
        "postfix/smtpd-proxy25/postscreen[9]: CONNECT from [1.2.3.4]:1234 to [10.10.0.9]:2525",
        "postfix/postscreen[9]: PASS OLD [1.2.3.4]:1234",
        "postfix/submission/smtpd[9]: connect from unknown[1.2.3.4]",
        "postfix/smtpd[9]: lost connection after CONNECT from unknown[1.2.3.4]",
    ],
)
def test_noise_is_dropped(line):
    assert any(re.search(noise, f"{PLACE} {line}") for noise in NOISE)


def test_monitors_have_the_live_names_and_the_shape_of_the_owners_script(site):
    found = {monitor["name"]: monitor for monitor in monitors(site("prod"))}
    assert found["Mailserver HAProxy SMTP (pfSense :25)"] == {
        "name": "Mailserver HAProxy SMTP (pfSense :25)",
        "type": "port",
        "hostname": "10.0.20.1",
        "port": 25,
        "url": None,
        "accepted_statuscodes": ["200-299"],
        "ignore_tls": False,
        "interval": 60,
        "retry_interval": 60,
        "max_retries": 3,
    }
    places = {(monitor["hostname"], monitor["port"]) for monitor in found.values()}
    inside = "mailserver.mailserver.svc.cluster.local"
    assert places == {("176.12.22.76", 25), ("2001:470:6e:43d::2", 25), ("10.0.20.1", 25), ("10.0.20.1", 993), (inside, 587), (inside, 993)}


def test_the_dashboard_is_one_that_grafana_reads(site):
    board = json.loads(dashboard_json(site("prod")))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len(panels) > 25
    assert all(panel["targets"] and panel["title"] for panel in panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${prometheus}", "${loki}"}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)


def test_the_charts_values_keep_its_own_rule_files(site):
    values = chart_values(site("prod"))
    files = values["serverFiles"]["prometheus.yml"]["rule_files"]
    assert files[:2] == ["/etc/config/recording_rules.yml", "/etc/config/alerting_rules.yml"]
    (mount,) = values["server"]["extraConfigmapMounts"]
    assert files[-1] == f"{mount['mountPath']}/*.yaml"


def test_names_and_labels(site):
    names = [alert.name for _, alert in every_alert()]
    assert len(names) == len(set(names))
    for table in (PROMETHEUS, LOKI):
        for group in groups(site("prod", {"jobs/probe/outbound": {"recipient": "loop@example.com"}}), table)["groups"]:
            for rule in group["rules"]:
                assert rule["labels"]["subsystem"] == "mail"
                assert rule["annotations"]["runbook_url"] == f"docs/runbooks/alerts.md#{rule['alert'].lower()}"


def test_a_site_without_a_part_has_no_alert_on_it(site):
    bare = site(
        "prod",
        {"jobs/probe": None, "jobs/retention": None, "jobs/backup": None, "jobs/webmail_backup": None, "jobs/pushgateway": None}
        | {"jobs/reports": None, "jobs/reputation": None},
    )
    text = rules_text(bare)
    gone = (
        "email_",
        "backup_",
        "mail_restore",
        "spam_retention",
        "push_time",
        "mail_queue",
        "cronjob=",
        "dmarc_",
        "tls_report",
        "blocklist",
    )
    for metric in gone:
        assert metric not in text.replace("backup-mx", ""), metric
    assert "MailServerDown" in text


def test_the_rules_for_the_log_are_plain_yaml(site):
    loaded = yaml.safe_load(log_rules_text(site("prod")))
    assert [group["name"] for group in loaded["groups"]] == ["mail-logs"]

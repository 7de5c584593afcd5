"""The doctor on recorded answers of the Pushgateway, Prometheus, the webmail, block lists, the pod's log and the job inside."""

import json
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.errors import UserError
from components.jobs.bounds import all_jobs
from components.jobs.inside import INSIDE
from components.monitoring.rules import LOKI, PROMETHEUS
from tests.doctor import not_well
from tools.commands.doctor import patient_of
from tools.doctor import delivery, inside, monitoring, reputation, results
from tools.doctor import webmail as webmail_checks
from tools.doctor.areas import checks_for
from tools.doctor.check import Check
from tools.doctor.examine import examine
from tools.doctor.patient import Patient
from tools.lab.hosts import wait_for
from tools.offline.stackfile import ROOT, load_stack


def said(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 0, text, "")


def look(patient: Patient, *checks: Check) -> dict[str, list[str]]:
    return not_well(examine(patient, checks, lambda check: None))


class Api:
    """Answers kubectl by the beginning of what is asked."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers, self.asked = answers, []

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        asked = " ".join(words)
        self.asked.append(asked)
        for beginning, text in self.answers.items():
            if asked.startswith(beginning):
                return said(text)
        raise AssertionError(asked)


def of(site, answers: dict[str, str]) -> Patient:
    return Patient(site, Api(answers), Api({}), None, ("192.0.2.53",))


GATEWAY = "get --raw /api/v1/namespaces/monitoring/services/prometheus-prometheus-pushgateway:9091/proxy/metrics"


def pushed(site, *changed: str) -> dict[str, str]:
    """What a Pushgateway shows where all is well, with some series changed."""
    series = {
        f'push_time_seconds{{instance="",job="{job.name}"}}': f"{time.time() - 60:.9e}" for job in all_jobs(site) if not job.suspended
    }
    series['email_roundtrip_success{instance="",job="email-roundtrip-monitor"}'] = "1"
    series['backup_success{instance="",job="mailserver-backup"}'] = "1"
    series |= dict(line.split(" ") for line in changed)
    return {GATEWAY: "".join(f"{name} {value}\n" for name, value in series.items())}


REPORTS = {
    "a probe that did not arrive": (
        [
            'email_roundtrip_success{instance="",job="email-roundtrip-monitor"} 0',
            'email_roundtrip_verdict{instance="",job="email-roundtrip-monitor",verdict="not_delivered"} 1',
            'email_roundtrip_verdict{instance="",job="email-roundtrip-monitor",verdict="junk"} 0',
        ],
        "email-roundtrip-monitor: the last probe message did not arrive; verdict not_delivered",
    ),
    "a stale backup": (
        ['push_time_seconds{instance="",job="mailserver-backup"} 1.5e9'],
        r"mailserver-backup: last report \d+\.\d h ago, bound 36\.0 h",
    ),
    "a repository that cannot be read": (
        ['backup_verified{instance="",job="mailserver-backup"} 0'],
        "mailserver-backup: a part of the repository cannot be read back",
    ),
}


def test_jobs_that_reported_well(site):
    prod = site("prod")
    assert look(of(prod, pushed(prod)), results.results) == {}


@pytest.mark.parametrize("case", REPORTS)
def test_what_a_job_reported_is_named(site, case):
    prod, (lines, expected) = site("prod"), REPORTS[case]
    found = look(of(prod, pushed(prod, *lines)), results.results)
    assert found.keys() == {"broken jobs.results"}
    (line,) = found["broken jobs.results"]
    assert re.fullmatch(expected, line)


def test_a_job_that_never_reported(site):
    prod = site("prod")
    answers = {GATEWAY: re.sub(r".*mail-restore-drill.*", "", pushed(prod)[GATEWAY])}
    assert look(of(prod, answers), results.results) == {
        "degraded jobs.results": ["mail-restore-drill: has not reported since the Pushgateway started"]
    }


PROXY = "get --raw /api/v1/namespaces/monitoring/services/prom:9090/proxy/api/v1/"


@pytest.fixture
def watched(site):
    return site("prod", {"doctor": {"prometheus": "http://prom.monitoring:9090"}})


def prometheus(site, **changes: object) -> dict[str, str]:
    held = [alert for alerts in PROMETHEUS.values() for alert in alerts if alert.query(site)]
    names = {name for alert in held for name in re.findall(r"\b([a-z_]+)\{", alert.query(site) or "")}
    data = {
        "rules": {"groups": [{"rules": [{"name": alert.name, "health": "ok"} for alert in held]}]},
        "alerts": {"alerts": [{"labels": {"alertname": "NodeDown"}, "state": "firing"}]},
        "label/__name__/values": sorted(names),
        "query": {"result": [{"value": [0, "17"]}]},
    } | changes
    return {PROXY + path: json.dumps({"status": "success", "data": part}) for path, part in data.items()}


WATCHING = (monitoring.rules, monitoring.alerts, monitoring.series, monitoring.crowdsec)


def test_a_prometheus_that_has_everything_is_well(watched):
    assert look(of(watched, prometheus(watched)), *WATCHING) == {}


def test_rules_that_are_not_loaded_or_cannot_be_evaluated(watched):
    answers = prometheus(watched)
    groups = json.loads(answers[PROXY + "rules"])["data"]
    loaded = groups["groups"][0]["rules"]
    lost = loaded.pop()["name"]
    loaded[0] |= {"health": "err", "lastError": "many-to-many matching"}
    found = look(of(watched, prometheus(watched, rules=groups)), *WATCHING)
    assert found == {"broken monitoring.rules": [f"Prometheus: has not loaded {lost}", f"{loaded[0]['name']}: many-to-many matching"]}


def test_an_alert_of_ours_that_fires_and_a_series_that_is_gone(watched):
    alert = {"labels": {"alertname": "MailServerDown", "subsystem": "mail", "severity": "critical"}, "state": "firing"}
    pending = alert | {"state": "pending"}
    series = [name for name in json.loads(prometheus(watched)[PROXY + "label/__name__/values"])["data"] if name != "mail_listener_up"]
    answers = prometheus(watched, alerts={"alerts": [alert, pending]}, query={"result": []}) | {
        PROXY + "label/__name__/values": json.dumps({"data": series})
    }
    assert look(of(watched, answers), *WATCHING) == {
        "broken monitoring.alerts": ["MailServerDown: fires"],
        "degraded monitoring.series": ["Prometheus: has no mail_listener_up"],
        "degraded monitoring.crowdsec": ["CrowdSec: has parsed no line of the mail log in a day"],
    }


def test_another_program_in_prometheus_place_could_not_be_checked(watched):
    found = look(of(watched, {PROXY: "<html>"}), *WATCHING)
    assert {name.rpartition(".")[0] for name in found} == {"could not check monitoring"}


def test_heartbeats_as_the_probe_told_of_them(site):
    prod = site("prod")
    line = "heartbeat uptime_kuma: accepted (200)\n"
    assert look(of(prod, {"logs": line}), monitoring.heartbeat) == {}
    found = look(of(prod, {"logs": line + "heartbeat uptime_kuma: failed 4 times, last with status 404\n"}), monitoring.heartbeat)
    assert found == {"degraded monitoring.heartbeat": ["uptime_kuma: failed 4 times, last with status 404"]}


FORM = '<input name="_user" id="rcmloginuser">'
DOORS = {
    "required, behind a login": ("required", (302, "https://login.example/", ""), None),
    "required, and open to all": ("required", (200, "", FORM), "broken"),
    "required, and something else": ("required", (200, "", "hello"), "degraded"),
    "app, as it is meant": ("app", (200, "", FORM), None),
    "app, behind a login": ("app", (302, "https://login.example/", ""), "broken"),
    "public, as it is meant": ("public", (200, "", FORM), None),
    "a proxy without a server": ("app", (502, "", ""), "broken"),
}


@pytest.mark.parametrize("case", DOORS)
def test_the_webmails_door_is_as_auth_says(site, monkeypatch, case):
    auth, page, verdict = DOORS[case]
    changes = {"webmail/auth": auth}
    if auth == "app":
        changes["webmail/ingress/auth_middleware"] = ...
    monkeypatch.setattr(webmail_checks, "_get", lambda patient, host: page)
    found = look(of(site("prod", changes), {}), webmail_checks.door)
    assert [name.split()[0] for name in found] == ([verdict] if verdict else [])


# RFC 5782, section 5: what every list holds, and what none holds, by address family and for domains.
ENTRIES = {
    "2.0.0.127.": "127.0.0.2",
    "1.0.0.127.": "127.0.0.1",
    "2.0.0.0.0.0.f.7.f.f.f.f.0.": "127.0.0.2",
    "1.0.0.0.0.0.f.7.f.f.f.f.0.": "127.0.0.1",
    "test.": "127.0.0.2",
    "invalid.": "127.0.0.1",
}
LISTS = {
    "not listed": ({"127.0.0.2": {"127.0.0.2"}}, {}),
    "listed": ({"127.0.0.2": {"127.0.0.2"}, "ours": {"127.0.0.4"}}, {"degraded"}),
    "an end user's line": ({"127.0.0.2": {"127.0.0.2"}, "ours": {"127.0.0.11"}}, {}),
    "refused in words": ({"127.0.0.2": {"127.255.255.254"}, "ours": {"127.255.255.254"}}, {"could not check"}),
    "refused by silence": ({}, {"could not check"}),
    "a list that lists everything": (
        {"127.0.0.2": {"127.0.0.2"}, "127.0.0.1": {"127.0.0.2"}, "ours": {"127.0.0.2"}},
        {"could not check"},
    ),
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_that_does_not_answer_is_not_one_that_lists_us(site, monkeypatch, case):
    answers, verdicts = LISTS[case]

    def ask(_server, name: str, _kind: str) -> set[str]:
        said = answers.get(next((entry for beginning, entry in ENTRIES.items() if name.startswith(beginning)), "ours"), set())
        return set() if said == {"127.0.0.11"} and ".zen.spamhaus.org" not in name else said  # its own code

    monkeypatch.setattr(reputation, "ask", ask)
    found = look(of(site("prod"), {}), reputation.block_lists)
    assert {name.rpartition(" ")[0] for name in found} == set(verdicts)


def test_where_no_relay_sends_a_listed_address_is_broken(site, monkeypatch):
    absent = tuple(beginning for beginning, entry in ENTRIES.items() if entry == "127.0.0.1")
    monkeypatch.setattr(reputation, "ask", lambda _server, name, _kind: set() if name.startswith(absent) else {"127.0.0.11"})
    found = look(of(site("prod", {"mail/relay": None, "jobs/probe": None}), {}), reputation.block_lists)
    assert found.keys() == {"broken reputation.block-lists"}
    assert any("zen.spamhaus.org" in line for line in found["broken reputation.block-lists"]), "its code for lines of end users"


def stamped(minutes: float, line: str) -> str:
    when = datetime.now(UTC) - timedelta(minutes=minutes)
    return f"{when.strftime('%Y-%m-%dT%H:%M:%S.%f')}123Z {line}\n"


BOUNCE = "mailserver postfix/smtp[1]: A1: to=<x@example.net>, status=bounced (550 no)"


def test_lines_of_the_log_that_an_alert_waits_for(site):
    prod = site("prod")
    text = stamped(30, BOUNCE) + stamped(200, "queue file write error") + stamped(1, "connect from mx.example.net[192.0.2.7]")
    found = look(of(prod, {"logs": text}), delivery.log)
    assert found.keys() == {"degraded mail.log"}
    (line,) = found["degraded mail.log"]
    assert line == f"OutboundMailBounced: 1 lines in 1 h, the last: {BOUNCE}"
    assert look(of(prod, {"logs": stamped(90, BOUNCE)}), delivery.log) == {}, "an hour later it is over"


def test_the_relays_quota_is_counted_in_the_log(site):
    prod = site("prod", {"jobs/probe": None})
    line = "postfix/smtp[1]: A1: relay=smtp-relay.brevo.com[192.0.2.9]:587, status=sent (250 ok)"
    found = look(of(prod, {"logs": stamped(600, line) * 241}), delivery.log)
    assert [text.partition(":")[0] for text in found["degraded mail.log"]] == ["RelayQuotaNearlyUsed"]
    assert look(of(prod, {"logs": stamped(600, line) * 240}), delivery.log) == {}


def test_every_alert_on_log_lines_is_understood(site):
    queries = {alert.name: query for alerts in LOKI.values() for alert in alerts if (query := alert.query(site("prod")))}
    understood = {name for name, query in queries.items() if (counted := delivery.pattern(query)) and counted.filters}
    assert understood == queries.keys()


def test_the_job_inside_tells_and_is_deleted(site, tmp_path, monkeypatch):
    log = tmp_path / "asked"
    lines = [["open-relay", "broken", "smtp", "accepts"], ["services", "ok", "smtp", "greets"], ["export", "ok", "/volumes/x", "writable"]]
    (tmp_path / "answer").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "kubectl").write_text(
        f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in *" create "*) cat > {tmp_path}/job;; *" logs "*) cat {tmp_path}/answer;; esac\n'
    )
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stack = load_stack(ROOT, "prod")
    errand = inside.Errand(stack)
    patient = patient_of(site("prod"), None, errand)
    checks = checks_for(patient, ("inside",))
    assert look(patient, *checks) == {"broken inside.open-relay": ["smtp: accepts"]}
    errand.end()
    verbs = re.findall(r" (create|wait|logs|delete) ", log.read_text())
    assert verbs == ["create", "wait", "logs", "delete"], "one run for all checks, and nothing of it stays"
    job = json.loads((tmp_path / "job").read_text())
    assert job["metadata"]["name"].startswith(INSIDE)
    assert f"job {job['metadata']['name']}" in log.read_text().splitlines()[-1]


def test_a_job_inside_that_cannot_run_could_not_be_checked(site, tmp_path, monkeypatch):
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho 'error: timed out waiting for the condition' >&2\nexit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    patient = patient_of(site("prod"), None, inside.Errand(load_stack(ROOT, "prod")))
    found = look(patient, *checks_for(patient, ("inside",)))
    assert {name.rpartition(" ")[0] for name in found} == {"could not check"}


def test_without_being_asked_for_nothing_runs_inside(site):
    assert checks_for(patient_of(site("prod")), ("inside",)) == []
    with pytest.raises(UserError, match=r"doctor\.inside: is not set"):
        inside.Errand(load_stack(ROOT, "dev"))()


def test_the_relay_program_is_one_file_without_this_project():
    text = Path(delivery.relay_login.__file__).read_text()
    assert not re.search(r"^(from|import) (tools|components)", text, re.MULTILINE)


@pytest.fixture
def slow_cluster(tmp_path, monkeypatch):
    """A kubectl that begins to answer and does not end; the file that it makes."""
    begun = tmp_path / "begun"
    (tmp_path / "kubectl").write_text(f"#!/bin/sh\ntouch {begun}\nexec sleep 60\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return begun


def test_a_doctor_that_is_interrupted_ends_at_once_and_says_so(slow_cluster):
    command = [sys.executable, "-m", "tools", "doctor", "--stack", "prod", "--only", "cluster"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background has it ignored
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    wait_for("its first question", slow_cluster.exists, 30)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "stopped; nothing was changed\n")


def test_without_a_terminal_there_is_no_progress_and_json_is_all(tmp_path, monkeypatch):
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho 'error: no route to host' >&2\nexit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command = [sys.executable, "-m", "tools", "doctor", "--stack", "prod", "--only", "cluster", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    rows = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (3, "")
    assert {row["verdict"] for row in rows} == {"could not check", "ok"}  # ok: nothing to look at without a legacy address
    assert {"check", "about", "seen", "expected", "meaning", "remedy", "page"} <= rows[0].keys()

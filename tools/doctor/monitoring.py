"""What watches while no one looks: rules that are loaded, series that exist, alerts that fire, lines that CrowdSec understands."""

import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

from components.errors import UserError
from components.jobs.probe import INBOUND
from components.monitoring.rules import PROMETHEUS
from tools.cluster import answer
from tools.doctor.check import Area, Seen, broken, degraded, ok, unused
from tools.doctor.fetch import fetch
from tools.doctor.patient import Patient

AREA = Area("monitoring", "what watches while no one looks")
_METRIC = re.compile(r"\b([a-z_]+)\{")
# Of kube-state-metrics and others: there only while there is something to count.
SOMETIMES = re.compile(r"kube_job_.*|kube_cronjob_status_last_successful_time")


def _prometheus(patient: Patient, path: str, **parameters: str) -> Any:
    base = patient.site.doctor.prometheus
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    try:
        return json.loads(fetch(patient, f"{base}/api/v1/{path}{query}"))["data"]
    except (ValueError, KeyError):
        raise UserError(f"{base} does not answer as Prometheus does") from None


_ASKED = ("doctor.prometheus", "monitoring.prometheus")


def _asked(patient: Patient) -> bool:
    return bool(patient.site.doctor.prometheus and patient.site.monitoring and patient.site.monitoring.prometheus)


@AREA.check(
    "rules",
    expects="Prometheus has loaded every rule, and can evaluate it",
    remedy="the namespace and the labels below monitoring.prometheus are those that Prometheus reads; its log names a rule that it refuses",
    page="runbooks/alerts.md",
)
def rules(patient: Patient) -> Iterator[Seen]:
    """The rules in Prometheus, by the names of the alert table."""
    if not _asked(patient):
        yield unused(*_ASKED)
        return
    held = {rule["name"]: rule for group in _prometheus(patient, "rules", type="alert")["groups"] for rule in group["rules"]}
    wanted = [alert.name for alerts in PROMETHEUS.values() for alert in alerts if alert.query(patient.site)]
    if missing := [name for name in wanted if name not in held]:
        yield broken("Prometheus", f"has not loaded {', '.join(missing)}")
    for name in wanted:
        if held.get(name, {}).get("health") == "err":
            yield broken(name, held[name].get("lastError") or "cannot be evaluated")
    yield ok("Prometheus", f"{len(wanted) - len(missing)} rules loaded")


@AREA.check(
    "alerts",
    expects="no alert of ours fires",
    remedy="docs/runbooks/alerts.md has a section for each name",
    page="runbooks/alerts.md",
)
def alerts(patient: Patient) -> Iterator[Seen]:
    """The alerts of this system that fire now."""
    if not _asked(patient):
        yield unused(*_ASKED)
        return
    for alert in _prometheus(patient, "alerts")["alerts"]:
        labels = alert["labels"]
        if labels.get("subsystem") == "mail" and alert["state"] == "firing":
            text = alert.get("annotations", {}).get("summary", "fires")
            yield (broken if labels.get("severity") == "critical" else degraded)(labels["alertname"], text)


@AREA.check(
    "series",
    expects="every series that a rule reads exists",
    remedy="its source does not run, is not scraped, or is dropped by a relabelling; a rule on a series that is absent never fires",
    page="runbooks/alerts.md",
)
def series(patient: Patient) -> Iterator[Seen]:
    """The metrics in the alerts' queries, as Prometheus has them."""
    if not _asked(patient):
        yield unused(*_ASKED)
        return
    names = set(_prometheus(patient, "label/__name__/values"))
    queries = [query for alerts in PROMETHEUS.values() for alert in alerts if (query := alert.query(patient.site))]
    wanted = {name for query in queries for name in _METRIC.findall(query)}
    missing = sorted(name for name in wanted - names if not SOMETIMES.fullmatch(name))
    yield degraded("Prometheus", f"has no {', '.join(missing)}") if missing else ok("Prometheus", f"{len(wanted)} series")


@AREA.check(
    "crowdsec",
    expects="CrowdSec understands the mail log",
    remedy="docs/crowdsec.md: the values of its chart; `cscli metrics` in an agent shows what it reads and cannot parse",
    page="crowdsec.md",
)
def crowdsec(patient: Patient) -> Iterator[Seen]:
    """Lines of Postfix and Dovecot that CrowdSec's agents have parsed, as Prometheus scrapes them."""
    if not _asked(patient) or patient.site.monitoring is None or patient.site.monitoring.crowdsec is None:
        yield unused(*_ASKED, "monitoring.crowdsec")
        return
    query = 'sum(increase(cs_node_hits_ok_total{name=~".*(postfix|dovecot).*"}[1d]))'
    found = _prometheus(patient, "query", query=query)["result"]
    parsed = float(found[0]["value"][1]) if found else 0.0
    yield ok("CrowdSec", f"{parsed:.0f} lines in a day") if parsed else degraded("CrowdSec", "has parsed no line of the mail log in a day")


@AREA.check(
    "heartbeat",
    expects="the outside monitor has taken the probe's last heartbeat",
    remedy="the probe's log names the heartbeat that failed: a token that changed, or a line of the Secret that is not a URL",
    page="runbooks/alerts.md#heartbeatfailed",
)
def heartbeat(patient: Patient) -> Iterator[Seen]:
    """What the last run of the probe said of each heartbeat."""
    site = patient.site
    if not (site.jobs.heartbeats and site.jobs.probe):
        yield unused("jobs.heartbeats", "jobs.probe")
        return
    selector = f"app.kubernetes.io/name={INBOUND}"
    said = answer(patient.kubectl("logs", "--namespace", site.namespace, "--selector", selector, "--tail", "100"))
    last = dict(re.findall(r"^heartbeat (\S+): (.*)$", said, re.MULTILINE))
    for name, outcome in last.items():
        yield (ok if outcome.startswith("accepted") else degraded)(name, outcome)
    if not last:
        yield degraded("heartbeats", "the probe's log has none; it calls them only when its message arrived")

"""The page "what wakes you, and what to do", from the table of alerts."""

from itertools import groupby

from components.monitoring.alert import Alert
from components.monitoring.rules import every_alert, what_to_do

INTRODUCTION = """\
# What wakes you, and what to do

`make doctor STACK=<stack>` says what is broken, and why; each alert below names the areas that it is about.

Written by `make docs` from the table in [components/monitoring](../../components/monitoring). A **critical** alert means that mail is lost,
refused or unprotected, or will be soon; a **warning** can wait for the morning. Every alert has the label `subsystem="mail"`. Commands
are for the namespace `mailserver`.

## How they reach you

All of it is off until `monitoring` is set ([settings](../settings.md)). Probe, backups, drill, retention and the mail server's
own pulse report to a Pushgateway (`jobs.pushgateway`); volumes and jobs are seen through kube-state-metrics and the kubelet, which
the charts bring along.

With the chart `prometheus`, which has no operator:

    # in Pulumi.<stack>.yaml, then `make up`
    monitoring: {prometheus: {namespace: <Prometheus' own>}, channels: [slack]}
    make render STACK=<stack>
    helm upgrade <release> prometheus-community/prometheus -n <namespace> --reuse-values \\
      -f build/<stack>/monitoring/prometheus-values.yaml

That file mounts the ConfigMap, adds it to `rule_files` and sets Alertmanager's inhibitions. Helm replaces lists as a whole, so values
of your own for the same lists have to be merged in. With the operator: `form: prometheus-rule`, any namespace that it watches, and the
labels by which it selects, such as `release`. With Loki's chart and its `sidecar.rules`: `monitoring.loki: {namespace: <Loki's own>}`.

Alertmanager needs a receiver that is not mail, named in `monitoring.channels`: alerts that travel by mail stop with the mail server.

`monitoring.dashboard` adds a Grafana dashboard for the sidecar of Grafana's chart. `make render` also writes
`uptime-kuma.json` (its monitors) and `drop.alloy` (log lines of scanners that Alloy may drop; none that an alert or a ban reads).

The probe runs every 20 minutes, so what only it can see is noticed within 25; the rest within ten. Beside a cause, Alertmanager keeps
back the alerts that only follow from it.
"""
TITLES = {
    "mail-server": "The mail server",
    "mail-probe": "The round trip",
    "mail-backup": "Backup, restore drill, retention",
    "mail-logs": "Log lines (Loki)",
}


def page() -> str:
    text = INTRODUCTION
    for group, alerts in groupby(every_alert(), key=lambda row: row[0]):
        text += f"\n# {TITLES[group]}\n"
        text += "".join(_section(group, alert) for _, alert in alerts)
    return text


def _section(group: str, alert: Alert) -> str:
    after = "at once" if alert.hold.startswith("0") else f"after {alert.hold}"
    return f"\n## {alert.name}\n\n*{alert.severity}, {after}.* {alert.impact}\n\n{what_to_do(group, alert)}\n"

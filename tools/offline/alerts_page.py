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

`monitoring.dashboard` adds a Grafana dashboard for the sidecar of Grafana's chart ([picture](#the-dashboard)). `make render` also writes
`uptime-kuma.json` (its monitors) and `drop.alloy` (log lines of scanners that Alloy may drop; none that an alert or a ban reads).

The probe runs every 20 minutes, so what only it can see is noticed within 25; the rest within ten. Beside a cause, Alertmanager keeps
back the alerts that only follow from it.
What other servers report comes a day late.

## The dashboard

![The dashboard's panels](../dashboard.png)

These are its queries on what the lab's mail server, probe, backup, drill and retention reported to a real Prometheus within one
minute, in which the relay was away for a while and some of the mail was spam. They were drawn without Grafana, by
`pytest tests/lab/test_dashboard.py`, which leaves the picture in `.tools/lab`. The lab has no webmail backup and no kube-state-metrics,
hence *No data*; the rows on reports of others and on Loki are left out.

## A second MX

`monitoring.second_mx: {probe_job: backup-mx-smtp, queue_node: mx2}` expects two scrape jobs in your Prometheus, with the chart `prometheus`
under `extraScrapeConfigs`:

```yaml
- job_name: backup-mx-smtp
  metrics_path: /probe
  params: {module: [smtp_greeting]}
  static_configs: [{targets: ["mx2.example.org:25"]}]
  relabel_configs:
    - {source_labels: [__address__], target_label: __param_target}
    - {source_labels: [__param_target], target_label: instance}
    - {target_label: __address__, replacement: "prometheus-blackbox-exporter.monitoring:9115"}
- job_name: backup-mx-node
  static_configs: [{targets: ["mx2.example.org:9100"], labels: {node: mx2}}]
```

The blackbox exporter's module waits for the greeting's last line, because postscreen bans who talks before it:

```yaml
modules:
  smtp_greeting:
    prober: tcp
    timeout: 15s
    tcp: {query_response: [{expect: "^220 "}, {send: "QUIT"}]}
```

The queue comes from node_exporter's textfile collector (`--collector.textfile.directory`), filled by cron on the second MX each minute.
Port 9100 must be open to Prometheus alone:

```sh
#!/bin/sh -e
file=/var/lib/prometheus/node-exporter/postfix.prom
queue=$(postqueue -j)
count=$(printf '%s\\n' "$queue" | grep -c '"queue_name": "deferred"') || true
printf 'postfix_queue_size{queue="deferred"} %d\\n' "$count" >"$file.new"
mv "$file.new" "$file"
```
"""
TITLES = {
    "mail-server": "The mail server",
    "mail-probe": "The round trip",
    "mail-backup": "Backup, restore drill, retention",
    "mail-reports": "What others say about us",
    "mail-bans": "Bans at the firewall",
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

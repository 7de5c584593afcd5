"""What the page of alerts tells the owner of a second MX to configure: Prometheus reads it, and it gives the series of the alerts."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from components.monitoring.rules import PROMETHEUS, groups
from tools.offline.alerts_page import INTRODUCTION

SCRAPE, MODULES = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", INTRODUCTION, re.DOTALL))
(SCRIPT,) = re.findall(r"```sh\n(.*?)```", INTRODUCTION, re.DOTALL)
(SETTINGS,) = re.findall(r"`monitoring\.second_mx: (\{.*?\})`", INTRODUCTION)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian's package prometheus)")
def test_prometheus_accepts_the_scrape_jobs(tmp_path):
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": SCRAPE}), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_select_the_jobs_and_their_label(site):
    rules = groups(site("prod", {"monitoring/second_mx": yaml.safe_load(SETTINGS)}), PROMETHEUS)["groups"]
    queries = {rule["alert"]: rule["expr"] for group in rules for rule in group["rules"]}
    probe, node = SCRAPE
    assert f'probe_success{{job="{probe["job_name"]}"}}' in queries["BackupMxDown"]
    (target,) = node["static_configs"]
    assert f'node="{target["labels"]["node"]}"' in queries["BackupMxQueueStuck"]
    assert probe["params"]["module"] == list(MODULES["modules"])


@pytest.mark.parametrize("waiting", [0, 2])
def test_the_script_counts_deferred_messages(tmp_path, waiting):
    answer = tmp_path / "postqueue"
    lines = ['{"queue_name": "active", "queue_id": "A"}', *['{"queue_name": "deferred", "queue_id": "B"}'] * waiting]
    answer.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n", encoding="utf-8")
    answer.chmod(0o755)
    script = SCRIPT.replace("/var/lib/prometheus/node-exporter", str(tmp_path))
    subprocess.run(["sh", "-e", "-c", script], check=True, timeout=30, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (tmp_path / "postfix.prom").read_text("utf-8") == f'postfix_queue_size{{queue="deferred"}} {waiting}\n'
